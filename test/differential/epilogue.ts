// The end of every program: all events are read, every userfaultfd is closed, so that whoever waits goes on, and
// the contents of all memory are compared.

import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { uffdio } from "../../src/abi/structs.ts";
import { UFFDIO } from "../../src/abi/userfaultfd.ts";
import { AREAS, type Area } from "./arena.ts";
import { readAll } from "./descriptor-acts.ts";
import { type Actor, type Host, resultText, THREADS } from "./host.ts";
import { hasOriginator, hasReader, type Order, waiters } from "./rules.ts";

export interface Part {
  readonly text: string;
  readonly run: (host: Host) => string[];
}

const ROUNDS_MAX = 12;

/** What is to be done, decided on the first system as each part is asked for. */
export function* epilogue(reference: Host, order: Order): Iterable<Part> {
  for (let round = 0; hasOriginator(reference) && round < ROUNDS_MAX; round++) {
    yield { text: "read all events", run: drain };
  }
  // A reader holds its context, and a fork holds what it has copied: then who waits there waits on.
  if (hasOriginator(reference) || hasReader(reference)) return;
  // All at once would go on in any order, and a private copy of a shared page shows who was first.
  // Which neighbours of a page of the object are mapped with it (fault-around) still depends on who was first.
  const chance = waiters(reference) >= 2;
  if (chance) yield { text: "unregister page by page", run: (host) => withoutPages(unregisterAll(host)) };
  yield { text: "close all", run: chance ? (host) => withoutPages(closeAll(host)) : closeAll };
  if (reference.living.some((actor) => actor.pending.size > 0)) return;
  if (order.lost && reference.actors.length > 1) return;
  yield { text: "compare memory", run: contents };
}

/** Takes what is there to be read; who is released may raise the next event, which the next round takes. */
function drain(host: Host): string[] {
  const said: string[] = [];
  for (const actor of host.living) {
    for (const [index, { fd }] of [...actor.handles].entries()) {
      said.push(`${actor.index} u${index} ${readAll(host, actor, fd).join(" ")}`);
      host.settle();
    }
  }
  return [...said, ...host.observe()];
}

function withoutPages(lines: readonly string[]): string[] {
  return lines.map((line) => line.replace(/ pages .*/, ""));
}

/** Each page by itself, and wakes who waits there. */
function unregisterAll(host: Host): string[] {
  const said: string[] = [];
  for (const actor of host.living) {
    const seen = new Set<number>();
    for (const { fd, context } of actor.handles) {
      if (seen.has(context)) continue;
      seen.add(context);
      const results = AREAS.map((area) =>
        Array.from({ length: area.pages }, (_, page) => freePage(host, actor, fd, area, page)),
      );
      said.push(`${actor.index} ${results.map((each) => each.join("")).join(" ")}`);
    }
  }
  return [...said, ...host.observe()];
}

function freePage(host: Host, actor: Actor, fd: number, area: Area, page: number): string {
  const { at, address } = actor.scratch(THREADS);
  uffdio.range.write(actor.view, at, { start: area.start + page * area.pageBytes, len: area.pageBytes });
  const result = actor.process.ioctl(fd, UFFDIO.UNREGISTER, address);
  actor.process.ioctl(fd, UFFDIO.WAKE, address);
  host.settle();
  return result === 0 ? "." : `(${resultText(result)})`;
}

function closeAll(host: Host): string[] {
  const said: string[] = [];
  for (const actor of host.living) {
    for (const { fd } of actor.handles.splice(0)) {
      actor.process.call("close", fd);
      host.settle();
      said.push(...host.observe());
    }
  }
  return said;
}

/** Every page of every process, as what write(2) takes from it: an errno, or a number that stands for its bytes. */
function contents(host: Host): string[] {
  return host.living.map(
    (actor) => `${actor.index} holds ${AREAS.map((area) => pages(actor, area)).join(" ")}`,
  );
}

function pages(actor: Actor, area: Area): string {
  const file = actor.memfd("contents");
  const results: string[] = [];
  // Of a huge page, its first 4 KiB and those that threads reach by straddling.
  const step = area.pageBytes;
  for (let page = 0; page < area.pages; page++) {
    const address = area.start + page * step;
    const result = actor.process.call("write", file, address, PAGE_SIZE);
    results.push(result === PAGE_SIZE ? sum(actor, file) : resultText(result));
    actor.process.call("ftruncate", file, 0);
    actor.process.call("lseek", file, 0, 0);
  }
  actor.process.call("close", file);
  return results.join(",");
}

function sum(actor: Actor, file: number): string {
  const { at, address } = actor.scratch(THREADS);
  actor.must("pread64", file, address, PAGE_SIZE, 0);
  // FNV-1a over words.
  let hash = 0x811c9dc5;
  for (let offset = 0; offset < PAGE_SIZE; offset += 4) {
    hash = Math.imul(hash ^ actor.view.getUint32(at + offset, true), 0x01000193);
  }
  return hash === EMPTY ? "0" : (hash >>> 0).toString(16);
}

const EMPTY = (() => {
  let hash = 0x811c9dc5;
  for (let offset = 0; offset < PAGE_SIZE; offset += 4) hash = Math.imul(hash, 0x01000193);
  return hash;
})();
