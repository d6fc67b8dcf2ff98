// Memory for what is sent: small pieces lie together, so as to leave as one, and only large ones are used again.

import assert from "node:assert/strict";
import { test } from "node:test";
import { joined, SlabPool } from "../../src/guest/qemu/slab-pool.ts";

const RECORD = 4104;

test("small pieces lie one behind the other, and can leave as one", () => {
  const pool = new SlabPool();
  const [a, b] = [pool.take(RECORD), pool.take(9)];
  a.fill(1);
  b.fill(2);
  const both = joined(a, b)!;
  assert.deepEqual([both.byteLength, both[RECORD - 1], both[RECORD]], [RECORD + 9, 1, 2]);
  assert.equal(joined(b, a), undefined);
  assert.ok(pool.isSmall(both));
});

test("memory of small pieces is never given again, however much of it has left", () => {
  const pool = new SlabPool();
  const places = new Set<string>();
  for (let index = 0; index < 200; index++) {
    const { buffer, byteOffset } = pool.take(RECORD);
    pool.give(new Uint8Array(buffer, byteOffset, RECORD));
    places.add(`${memories(buffer)} ${byteOffset}`);
  }
  assert.equal(places.size, 200);
});

test("a large piece lies alone, and its memory is used again once it has left", () => {
  const pool = new SlabPool();
  const large = pool.take(2 ** 17);
  assert.ok(!pool.isSmall(large));
  assert.notEqual(pool.take(2 ** 17).buffer, large.buffer);
  pool.give(large.subarray(0, 10));
  assert.equal(pool.take(2 ** 17).buffer, large.buffer);
  assert.ok(!pool.isSmall(pool.take(2 ** 20)));
});

const known: ArrayBufferLike[] = [];

/** A number for each memory. */
function memories(buffer: ArrayBufferLike): number {
  if (!known.includes(buffer)) known.push(buffer);
  return known.indexOf(buffer);
}
