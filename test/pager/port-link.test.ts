// The line to a thread that fetches and dies: all that it has been asked for has its end, and what it had said before counts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MessageChannel } from "node:worker_threads";
import type { FetchNews } from "../../src/pager/fetch/link.ts";
import { RANK } from "../../src/pager/fetch/machine.ts";
import { WIRE, WIRE_WORDS, type WireNews } from "../../src/pager/fetch/order.ts";
import { PortLink } from "../../src/pager/fetch/port-link.ts";

/** A line, and the other end of it. */
function line(t: { after(end: () => void): void }, replaying?: string) {
  const { port1, port2 } = new MessageChannel();
  const words = new Int32Array(new SharedArrayBuffer(WIRE_WORDS * 4));
  t.after(() => port1.close());
  return {
    link: new PortLink({ port: port1, words, replaying }),
    tell: (news: WireNews) => {
      port2.postMessage(news);
      Atomics.add(words, WIRE.DONE, 1);
    },
    die: () => Atomics.store(words, WIRE.DEAD, 1),
  };
}

function heard(link: PortLink): string[] {
  const texts: string[] = [];
  for (let news = link.receive(64); news !== undefined; news = link.receive(64)) texts.push(textOf(news));
  assert.equal(link.hasNews, false);
  return texts;
}

function textOf(news: FetchNews): string {
  if (news.kind === "end") return `end ${news.ticket}+${news.count} ${news.error?.code ?? news.result}`;
  if (news.kind === "replayed") return `replayed ${news.workingSet} ${news.error?.code ?? "well"}`;
  return news.kind;
}

test("what the dead has said is heard first; then all that it has not done has failed", (t) => {
  const { link, tell, die } = line(t);
  link.send({ kind: "fetch", ticket: 1, count: 2, unit: 0, slot: 0, rank: RANK.FAULT });
  link.send({ kind: "fetch", ticket: 3, count: 1, unit: 9, slot: 2, rank: RANK.FAULT });
  link.send({ kind: "replay", workingSet: "boot" });
  link.send({ kind: "replay", workingSet: "login" });
  tell({ kind: "end", ticket: 1, count: 1, result: "bytes" });
  tell({ kind: "replayed", workingSet: "boot" });
  die();
  assert.equal(link.hasNews, true);
  const ends = ["end 2+1 ERR_BUG", "end 3+1 ERR_BUG", "replayed login ERR_BUG"];
  assert.deepEqual(heard(link), ["end 1+1 bytes", "replayed boot well", ...ends]);
});

test("a replay that began with the opening has its end as well, and only one", (t) => {
  const [dead, alive] = [line(t, "boot"), line(t, "boot")];
  dead.die();
  assert.deepEqual(heard(dead.link), ["replayed boot ERR_BUG"]);
  alive.tell({ kind: "replayed", workingSet: "boot" });
  alive.die();
  assert.deepEqual(heard(alive.link), ["replayed boot well"]);
});
