// The one who reads what is asked for: what becomes one read, where its bytes go, and how each unit ends.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FetchAgent } from "../../src/pager/fetch/agent.ts";
import { RANK, type Rank } from "../../src/pager/fetch/machine.ts";
import { GATHERED_MAX, RawUnits } from "../../src/pager/fetch/opened-source.ts";
import type { WireEnd, WireNews } from "../../src/pager/fetch/order.ts";
import type { PageSource } from "../../src/source/index.ts";

const UNIT_BYTES = 64;
const UNITS = 100;
const SLOTS = 80;
/** The last unit is not a whole one. */
const BYTES = UNITS * UNIT_BYTES - 10;

interface Waiting {
  readonly unit: number;
  readonly count: number;
  readonly signal: AbortSignal;
  answer(error?: Error): void;
}

/** A source far away, whose reads end when they are told to. */
function scene({ bad = -1 } = {}) {
  const reads: Waiting[] = [];
  const source: PageSource = {
    name: "far",
    byteLength: BYTES,
    read: (offset, target, signal) =>
      new Promise((resolve, reject) => {
        const unit = offset / UNIT_BYTES;
        const count = Math.ceil(target.byteLength / UNIT_BYTES);
        signal?.addEventListener("abort", () => reject(signal.reason));
        const answer = (error?: Error): void => {
          for (let at = 0; at < target.byteLength; at++) target[at] = unit + Math.floor(at / UNIT_BYTES) + 1;
          const isBad = bad >= unit && bad < unit + count;
          if (error !== undefined || isBad) reject(error ?? new Error(`${bad} is bad`));
          else resolve();
        };
        reads.push({ unit, count, signal: signal!, answer });
      }),
    close: async () => undefined,
  };
  const memory = new Uint8Array(SLOTS * UNIT_BYTES).fill(255);
  const ends: WireEnd[] = [];
  let messages = 0;
  const agent = new FetchAgent({
    reader: new RawUnits(source, UNIT_BYTES),
    slots: (slot, count = 1) => memory.subarray(slot * UNIT_BYTES, (slot + count) * UNIT_BYTES),
    holes: new Uint32Array(4),
    readsMax: 4,
    tell: (news: WireNews) => {
      messages++;
      if (news.kind === "end") ends.push(news);
      else if (news.kind === "ends") ends.push(...news.ends);
    },
  });
  const fetch = (ticket: number, unit: number, slot: number, count = 1, rank: Rank = RANK.AHEAD): void =>
    agent.handle({ kind: "fetch", ticket, unit, slot, count, rank });
  const said = (): string[] => ends.map(({ ticket, count, result }) => `#${ticket}+${count} ${result}`);
  return {
    agent,
    reads,
    fetch,
    said,
    unitIn: (slot: number) => memory[slot * UNIT_BYTES]! - 1,
    memory,
    messages: () => messages,
  };
}

/** Until what has been asked for is being read, or told of. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

test("a run is read into its slots, and its end is one message", async () => {
  const { reads, fetch, said, unitIn, messages } = scene();
  fetch(7, 20, 5, 4);
  await settled();
  assert.deepEqual(
    reads.map(({ unit, count }) => [unit, count]),
    [[20, 4]],
  );
  reads[0]!.answer();
  await settled();
  assert.deepEqual(said(), ["#7+4 bytes"]);
  assert.equal(messages(), 1);
  assert.deepEqual([5, 6, 7, 8, 9].map(unitIn), [20, 21, 22, 23, 254]);
});

test("what lies side by side there and in the slots is one read, up to a limit; the rest is not", async () => {
  const { reads, fetch } = scene();
  fetch(1, 11, 31);
  fetch(2, 10, 30);
  fetch(3, 12, 40);
  fetch(4, 13, 41, 3);
  fetch(5, 50, 0, GATHERED_MAX);
  fetch(40, 50 + GATHERED_MAX, GATHERED_MAX);
  await settled();
  const shapes = reads.map(({ unit, count }) => `${unit}+${count}`);
  assert.deepEqual(shapes, ["10+2", "12+4", `50+${GATHERED_MAX}`], "a quarter of the reads is for faults");
  reads[0]!.answer();
  await settled();
  assert.deepEqual(
    reads.slice(3).map(({ unit, count }) => `${unit}+${count}`),
    [`${50 + GATHERED_MAX}+1`],
  );
});

test("the end of the source is filled up with zeros", async () => {
  const { reads, fetch, said, memory } = scene();
  fetch(1, UNITS - 2, 3, 2);
  await settled();
  reads[0]!.answer();
  await settled();
  assert.deepEqual(said(), ["#1+2 bytes"]);
  assert.deepEqual([...memory.subarray(5 * UNIT_BYTES - 11, 5 * UNIT_BYTES)], [UNITS, ...Array(10).fill(0)]);
});

test("of a run that fails each unit is read alone: what is wrong with one is not the end of the others", async () => {
  const { reads, fetch, said, unitIn } = scene({ bad: 21 });
  fetch(1, 20, 0, 3);
  await settled();
  reads[0]!.answer();
  await settled();
  assert.equal(reads.length, 4);
  for (const read of reads.slice(1)) read.answer();
  await settled();
  assert.deepEqual(said().sort(), ["#1+1 bytes", "#2+1 failed", "#3+1 bytes"]);
  assert.deepEqual([0, 2].map(unitIn), [20, 22]);
});

test("a read goes on as long as one of its units is wanted, and each ends once", async () => {
  const { agent, reads, fetch, said } = scene();
  fetch(1, 20, 0, 3);
  await settled();
  for (const ticket of [1, 3]) agent.handle({ kind: "cancel", ticket });
  assert.equal(reads[0]!.signal.aborted, false);
  agent.handle({ kind: "cancel", ticket: 2 });
  assert.equal(reads[0]!.signal.aborted, true);
  await settled();
  assert.deepEqual(said(), ["#1+1 failed", "#2+1 failed", "#3+1 failed"]);
  assert.equal(agent.running, 0);
});

test("a run that waits for its read ends at once when none of it is wanted any more", async () => {
  const { agent, reads, fetch, said } = scene();
  fetch(1, 20, 0, 2);
  agent.handle({ kind: "cancel", ticket: 2 });
  assert.deepEqual(said(), []);
  agent.handle({ kind: "cancel", ticket: 1 });
  assert.deepEqual(said(), ["#1+2 failed"]);
  await settled();
  assert.equal(reads.length, 0);
});
