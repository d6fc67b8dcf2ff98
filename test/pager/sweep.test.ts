// The sweep: when it begins, what it reads, and when it does not.

import assert from "node:assert/strict";
import { test } from "node:test";
import { RawUnits } from "../../src/pager/fetch/opened-source.ts";
import { WIRE, WIRE_WORDS } from "../../src/pager/fetch/order.ts";
import { Sweep } from "../../src/pager/fetch/sweep.ts";
import { MemorySource } from "../../src/source/index.ts";

const BYTES = 10 * 2 ** 20 + 5;
const PLENTY = (): number => 2 ** 40;

/** A source that notes what is read of it. */
function noted() {
  const reads: [offset: number, byteLength: number][] = [];
  const bytes = new MemorySource(new Uint8Array(BYTES));
  const source = {
    name: "noted",
    byteLength: BYTES,
    read: bytes.read.bind(bytes),
    readSync(offset: number, target: Uint8Array): void {
      reads.push([offset, target.byteLength]);
      if (target.byteLength === 0) throw new Error("nothing is asked for");
    },
    close: () => bytes.close(),
  };
  return { reads, source, reader: new RawUnits(source, 65_536) };
}

test("a sweep begins when reads of the disk have paid for a part of it, and reads everything once, in order", () => {
  const { reads, reader } = noted();
  const words = new Int32Array(WIRE_WORDS);
  const sweep = new Sweep({ reader, words, freeBytes: PLENTY });
  assert.equal(sweep.step(), false);
  // An eighth of ten MiB is as much as eight reads at random cost.
  words[WIRE.DISK_READS] = 8;
  assert.equal(sweep.step(), false);
  assert.equal(reads.length, 0);
  words[WIRE.DISK_READS] = 9;
  let steps = 0;
  while (sweep.step()) steps++;
  let until = 0;
  for (const [offset, byteLength] of reads) {
    assert.equal(offset, until);
    until += byteLength;
  }
  assert.equal(until, BYTES);
  assert.equal(steps, reads.length);
  assert.equal(sweep.step(), false, "once is enough");
});

test("what would take the memory of others is not swept", () => {
  const { reads, reader } = noted();
  const words = new Int32Array(WIRE_WORDS).fill(1000);
  const sweep = new Sweep({ reader, words, freeBytes: () => 2 * BYTES - 2 });
  assert.equal(sweep.step(), false);
  assert.equal(reads.length, 0);
});

test("what can't be read ends a sweep, and nobody hears of it", () => {
  const { reads, source } = noted();
  const readSync = (offset: number, target: Uint8Array): void => {
    source.readSync(offset, target);
    if (offset > 0) throw new Error("the disk is broken");
  };
  const words = new Int32Array(WIRE_WORDS).fill(1000);
  const reader = new RawUnits({ ...source, readSync }, 65_536);
  const sweep = new Sweep({ reader, words, freeBytes: PLENTY });
  assert.equal(sweep.step(), true);
  assert.equal(sweep.step(), false);
  assert.equal(sweep.step(), false);
  assert.equal(reads.length, 2);
});
