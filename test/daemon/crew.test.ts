// A process among the others of its server: what its keeper tells it, told by hand.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { makeBaton } from "../../src/daemon/baton.ts";
import { Crew, type CrewListener } from "../../src/daemon/crew.ts";
import { closeAll } from "../../src/daemon/ledger.ts";
import { hear, type LinkMessage, linkPair, tell, tellEntry } from "../../src/daemon/link.ts";
import { BATON_ID } from "../../src/daemon/texts.ts";
import { mapMemory } from "../../src/linux/index.ts";

/** Nothing is heard before it is called: so messages lie side by side, as they do when a process was busy. */
class Wakeups {
  readonly #listeners = new Map<number, () => void>();

  watch(fd: number, listener: () => void): void {
    this.#listeners.set(fd, listener);
  }

  unwatch(fd: number): void {
    this.#listeners.delete(fd);
  }

  call(fd: number): void {
    this.#listeners.get(fd)?.();
  }
}

const LISTENER: CrewListener = {
  onSynced: () => undefined,
  onComplete: () => undefined,
  onServe: () => undefined,
  onEntry: () => undefined,
  onKeeper: () => undefined,
  onSpare: () => undefined,
};

/** What has been said, in its order. */
function heard(link: number): LinkMessage[] {
  const messages: LinkMessage[] = [];
  for (let arrived = hear(link); typeof arrived === "object"; arrived = hear(link)) {
    messages.push(arrived.message);
    closeAll(arrived.descriptors);
  }
  return messages;
}

/** A keeper gives it a line to a spare; the ends are the keeper's to close. */
function introduce(keeper: number): number {
  const [ours, theirs] = linkPair();
  tell(keeper, { kind: "peer", marks: [] }, [theirs]);
  closeAll([theirs]);
  return ours;
}

/** A process that has been told everything, and the keeper's end of the link to it. `predecessor`: who served before. */
function born(
  wakeups: Wakeups,
  { predecessor = 0, listener = LISTENER } = {},
): { crew: Crew; keeper: number; link: number } {
  const [keeper, link] = linkPair();
  const crew = new Crew("/nowhere", wakeups, listener, link);
  const baton = makeBaton();
  const page = mapMemory(4096, { fd: baton });
  page.view.setInt32(0, predecessor, true);
  page.close();
  tellEntry(keeper, { id: BATON_ID, type: "kept", text: "", descriptors: [baton] });
  closeAll([baton]);
  tell(keeper, { kind: "synced", generation: 0 });
  wakeups.call(link);
  return { crew, keeper, link };
}

test("of spares that follow one another while nobody listens, the last one is told what is booked", () => {
  const wakeups = new Wakeups();
  const { crew, keeper, link } = born(wakeups);
  crew.standBy();
  assert.ok(crew.isServing);
  const first = introduce(keeper);
  wakeups.call(link);
  // It dies, and so does the next one, before anything has been heard of that.
  closeAll([first]);
  closeAll([introduce(keeper)]);
  const last = introduce(keeper);
  wakeups.call(link);
  crew.book({ id: "1", type: "guest", text: "a guest", descriptors: [] });
  const put = { kind: "put", id: "1", type: "guest", text: "a guest" };
  assert.deepEqual(heard(last).at(-1), put);
  assert.deepEqual(heard(keeper).at(-1), put);
  closeAll([last]);
});

test("who takes over has heard all of its predecessor when the keeper has buried that one", () => {
  const wakeups = new Wakeups();
  let completed = 0;
  const listener = { ...LISTENER, onComplete: () => void completed++ };
  const predecessor = spawnSync("true").pid;
  const { crew, keeper, link } = born(wakeups, { predecessor, listener });
  const before = introduce(keeper);
  wakeups.call(link);
  tellEntry(before, { id: "1", type: "guest", text: "a guest", descriptors: [] });
  crew.standBy();
  assert.ok(crew.isServing);
  assert.equal(crew.ledger.get("1")?.text, "a guest");
  // What its predecessor may have been saying just then is awaited.
  tell(keeper, { kind: "synced", generation: 0 });
  wakeups.call(link);
  assert.equal(completed, 0);
  tellEntry(before, { id: "2", type: "guest", text: "another guest", descriptors: [] });
  const next = introduce(keeper);
  wakeups.call(link);
  assert.equal(completed, 1);
  assert.equal(crew.ledger.get("2")?.text, "another guest");
  closeAll([before, next]);
});
