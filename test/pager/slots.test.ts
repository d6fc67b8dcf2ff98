// Runs of units, read as one: straight to where they are wanted where that lies side by side, else by way of a scratch.

import assert from "node:assert/strict";
import { test } from "node:test";
import { RawUnits } from "../../src/pager/fetch/opened-source.ts";
import { joined } from "../../src/pager/fetch/slots.ts";
import { MemorySource } from "../../src/source/index.ts";
import { farSource } from "../../src/source/memory-store.ts";

const UNIT = 4096;
const UNITS = 8;
/** The last unit is half. */
const BYTES = (UNITS - 0.5) * UNIT;

/** A source far away, and the buffers that were read into. */
function farUnits(): {
  readonly units: RawUnits;
  readonly content: Uint8Array;
  readonly into: ArrayBufferLike[];
} {
  const content = Uint8Array.from({ length: BYTES }, (_, at) => (at * 7 + (at >> 12)) % 251);
  const source = farSource(new MemorySource(content));
  const into: ArrayBufferLike[] = [];
  const noting = {
    name: source.name,
    byteLength: source.byteLength,
    read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
      into.push(target.buffer);
      return source.read(offset, target, signal);
    },
    close: () => source.close(),
  };
  return { units: new RawUnits(noting, UNIT), content, into };
}

async function read(units: RawUnits, first: number, targets: readonly Uint8Array[]): Promise<number[]> {
  const ended: number[] = [];
  await units.readRun(first, targets, new AbortController().signal, (index, result) => {
    assert.equal(result, "bytes");
    ended.push(index);
  });
  return ended;
}

test("a run is read to where it is wanted if that lies side by side; what is behind the end is zeros", async () => {
  const { units, content, into } = farUnits();
  const staging = new Uint8Array(UNITS * UNIT).fill(1);
  const slots = Array.from({ length: 4 }, (_, slot) => staging.subarray(slot * UNIT, (slot + 1) * UNIT));
  assert.deepEqual(await read(units, 4, slots), [0, 1, 2, 3]);
  assert.deepEqual(into, [staging.buffer], "one read, and nothing is copied");
  assert.ok(Buffer.compare(staging.subarray(0, 3.5 * UNIT), content.subarray(4 * UNIT)) === 0);
  assert.ok(staging.subarray(3.5 * UNIT, 4 * UNIT).every((byte) => byte === 0));
  assert.ok(
    staging.subarray(4 * UNIT).every((byte) => byte === 1),
    "nothing else is written to",
  );
});

test("a run whose places are apart is one read as well", async () => {
  const { units, content, into } = farUnits();
  const staging = new Uint8Array(UNITS * UNIT).fill(1);
  const slots = [3, 1, 0].map((slot) => staging.subarray(slot * UNIT, (slot + 1) * UNIT));
  assert.deepEqual(await read(units, 2, slots), [0, 1, 2]);
  assert.equal(into.length, 1);
  for (const [index, slot] of slots.entries()) {
    assert.ok(Buffer.compare(slot, content.subarray((2 + index) * UNIT, (3 + index) * UNIT)) === 0);
  }
  assert.ok(staging.subarray(2 * UNIT, 3 * UNIT).every((byte) => byte === 1));
});

test("memory is joined where it lies side by side, in one piece of memory and in this order", () => {
  const memory = new Uint8Array(64);
  const [a, b, c] = [memory.subarray(0, 16), memory.subarray(16, 32), memory.subarray(32, 64)];
  assert.deepEqual(joined([b, c]), memory.subarray(16, 64));
  assert.equal(joined([b, a]), undefined);
  assert.equal(joined([a, c]), undefined);
  assert.equal(joined([a, new Uint8Array(64).subarray(16, 32)]), undefined);
  assert.equal(joined([]), undefined);
});
