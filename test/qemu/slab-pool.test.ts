// Memory for what is sent: small pieces that leave together are one, and none is used again before it has left.

import assert from "node:assert/strict";
import { test } from "node:test";
import { joined, SlabPool } from "../../src/guest/qemu/slab-pool.ts";

const RECORD = 4104;

test("small pieces that are gathered lie one behind the other", () => {
  const pool = new SlabPool();
  const [a, b] = [pool.gather(RECORD), pool.gather(9)];
  a.fill(1);
  b.fill(2);
  const both = joined(a, b)!;
  assert.deepEqual([both.byteLength, both[RECORD - 1], both[RECORD]], [RECORD + 9, 1, 2]);
  assert.equal(joined(b, a), undefined);
  assert.ok(pool.isGathered(both));
});

test("what has been cut off is not added to, and its memory is used again once it has left", () => {
  const pool = new SlabPool();
  const a = pool.gather(RECORD);
  pool.cut(a);
  assert.ok(!pool.isGathered(a));
  const b = pool.gather(RECORD);
  assert.notEqual(a.buffer, b.buffer);
  // Cutting what is gone already changes nothing.
  pool.cut(a);
  assert.ok(pool.isGathered(b));
  pool.give(a);
  assert.equal(pool.take(a.buffer.byteLength).buffer, a.buffer);
});

test("a strip that is full is followed by another one, and both leave by themselves", () => {
  const pool = new SlabPool();
  const first = pool.gather(RECORD);
  let last = first;
  while (last.buffer === first.buffer) last = pool.gather(RECORD);
  pool.cut(first);
  assert.ok(pool.isGathered(last));
  assert.ok(joined(last, pool.gather(RECORD)));
});

test("what is not small, or not gathered, lies alone", () => {
  const pool = new SlabPool();
  for (const bytes of [pool.gather(2 ** 20), pool.gather(2 ** 17), pool.take(RECORD)]) {
    assert.ok(!pool.isGathered(bytes));
  }
});
