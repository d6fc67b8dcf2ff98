// The sweep: how far it goes, what it has read, and when it does not.

import assert from "node:assert/strict";
import { test } from "node:test";
import { RawUnits } from "../../src/pager/fetch/opened-source.ts";
import { WIRE, WIRE_WORDS } from "../../src/pager/fetch/order.ts";
import { Sweep } from "../../src/pager/fetch/sweep.ts";
import { MemorySource } from "../../src/source/index.ts";

const MIB = 2 ** 20;
const BYTES = 10 * MIB + 5;
const PLENTY = (): number => 2 ** 40;

/** A source on a disk that brings what it was told of up to `brought`, and notes what it was told. */
function disk() {
  const told: [offset: number, byteLength: number][] = [];
  const bytes = new MemorySource(new Uint8Array(BYTES));
  const state = { brought: 0 as number | undefined, waited: 0 };
  const source = {
    name: "disk",
    byteLength: BYTES,
    read: bytes.read.bind(bytes),
    readSync(_offset: number, target: Uint8Array): void {
      assert.equal(target.byteLength, 1, "of what was read ahead nothing is copied");
      state.waited++;
    },
    expect: (offset: number, byteLength: number) => void told.push([offset, byteLength]),
    isCached: (offset: number) => (state.brought === undefined ? undefined : offset < state.brought),
    close: () => bytes.close(),
  };
  return { told, state, source, reader: new RawUnits(source, 65_536) };
}

/** In order, each byte once; answers how many. */
function checkTold(told: readonly (readonly [number, number])[]): number {
  let until = 0;
  for (const [offset, byteLength] of told) {
    assert.equal(offset, until);
    until += byteLength;
  }
  return until;
}

test("a sweep goes as far as the reads have paid for that have waited for the disk", () => {
  const { told, state, reader } = disk();
  state.brought = BYTES;
  const words = new Int32Array(WIRE_WORDS);
  const sweep = new Sweep({ reader, words, freeBytes: PLENTY });
  assert.equal(sweep.step(), undefined);
  assert.equal(told.length, 0);
  // Eight times as long as one that takes a tenth of a millisecond: the disk reads some 800 KiB meanwhile.
  words[WIRE.DISK_WAIT] = 100;
  for (let step = 0; step < 10; step++) sweep.step();
  assert.equal(checkTold(told), MIB);
  words[WIRE.DISK_WAIT] = 500;
  for (let step = 0; step < 10; step++) sweep.step();
  assert.equal(checkTold(told), 4 * MIB);
});

test("everything is told the disk once, in order, and little of it at a time", () => {
  const { told, state, reader } = disk();
  const sweep = new Sweep({ reader, words: new Int32Array(WIRE_WORDS), freeBytes: PLENTY });
  sweep.want();
  for (;;) {
    const waitMs = sweep.step();
    assert.ok(checkTold(told) - (state.brought ?? 0) <= 2 * MIB);
    if (waitMs === undefined) break;
    assert.ok(waitMs > 0);
    const before = told.length;
    sweep.step();
    assert.equal(told.length, before, "the disk has brought nothing meanwhile");
    state.brought = Math.min(BYTES, (state.brought ?? 0) + MIB);
  }
  assert.equal(checkTold(told), BYTES);
  assert.equal(state.waited, 0);
  assert.equal(sweep.step(), undefined, "once is enough");
});

test("where the system does not say what it has, the end of a piece is waited for", () => {
  const { told, state, reader } = disk();
  state.brought = undefined;
  const sweep = new Sweep({ reader, words: new Int32Array(WIRE_WORDS), freeBytes: PLENTY });
  sweep.want();
  while (sweep.step() !== undefined);
  assert.equal(checkTold(told), BYTES);
  assert.equal(state.waited, told.length);
});

test("what would take the memory of others is not swept", () => {
  const { told, reader } = disk();
  const sweep = new Sweep({ reader, words: new Int32Array(WIRE_WORDS), freeBytes: () => 2 * BYTES - 2 });
  sweep.want();
  assert.equal(sweep.step(), undefined);
  assert.equal(told.length, 0);
});

test("what can't be read ends a sweep, and nobody hears of it", () => {
  const { told, state, source } = disk();
  state.brought = undefined;
  const readSync = (): void => {
    throw new Error("the disk is broken");
  };
  const reader = new RawUnits({ ...source, readSync }, 65_536);
  const sweep = new Sweep({ reader, words: new Int32Array(WIRE_WORDS), freeBytes: PLENTY });
  sweep.want();
  while (sweep.step() !== undefined);
  const before = told.length;
  assert.ok(checkTold(told) <= 2 * MIB);
  assert.equal(sweep.step(), undefined);
  assert.equal(told.length, before);
});
