// The slots of a replay: what is on its way is limited and given back, what is kept is neither.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ReplaySlots } from "../../src/pager/fetch/replay-slots.ts";

/** Twelve slots, four of them on their way at most. */
function poolOf(): { pool: ReplaySlots; returned: number[][]; take: (count: number) => number[] } {
  const returned: number[][] = [];
  const giveBack = (first: number, count: number): void => {
    returned.push(Array.from({ length: count }, (_, index) => first + index));
  };
  const pool = new ReplaySlots({ count: 12, transitMax: 4, giveBack });
  const take = (count: number): number[] =>
    Array.from({ length: count }, () => {
      const slot = pool.take();
      assert.ok(slot !== undefined, "no slot is available");
      return slot;
    });
  return { pool, returned, take };
}

describe("the slots of a replay", () => {
  test("no more are on their way than may be, however many are free", () => {
    const { pool, take } = poolOf();
    const [first] = take(4);
    assert.deepEqual([pool.isAvailable, pool.take()], [false, undefined]);
    pool.free(first!);
    assert.equal(pool.isAvailable, true);
    assert.deepEqual(take(1), [first], "what has been written to is used again");
    assert.equal(pool.take(), undefined);
  });

  test("those that are kept make room for others, and are nobody else's until they are free", () => {
    const { pool, take } = poolOf();
    const kept = [...take(4)];
    for (const slot of kept) pool.keep(slot);
    const others = take(4);
    assert.equal(new Set([...kept, ...others]).size, 8);
    assert.equal(pool.take(), undefined);
    // A set that is kept no more: it does not count twice.
    for (const slot of kept) pool.free(slot);
    assert.equal(pool.take(), undefined, "four others are still on their way");
  });

  test("when none is on its way any more the memory of those is given back, and that of what is kept is not", () => {
    const { pool, returned, take } = poolOf();
    const [a, b, c, d] = take(4) as [number, number, number, number];
    pool.keep(b);
    for (const slot of [d, a]) pool.free(slot);
    pool.settle();
    assert.deepEqual(returned, [], "one is still on its way");
    pool.free(c);
    pool.settle();
    assert.deepEqual(returned, [[a], [c, d]]);
    pool.settle();
    assert.equal(returned.length, 2, "once is enough");
    pool.free(b);
    pool.settle();
    assert.deepEqual(returned.at(-1), [b]);
  });

  test("whatever comes to pass: limits hold, nothing is used twice, and all is given back in the end", () => {
    const { pool, returned, take } = poolOf();
    const kept: number[] = [];
    for (let round = 0; round < 50; round++) {
      const slots = take(1 + (round % 4));
      assert.ok(slots.every((slot) => !kept.includes(slot)));
      for (const [index, slot] of slots.entries()) {
        if ((round + index) % 3 > 0 || kept.length >= 8) {
          pool.free(slot);
        } else {
          pool.keep(slot);
          kept.push(slot);
        }
      }
      if (round % 7 === 0) for (const slot of kept.splice(0, 3)) pool.free(slot);
      returned.length = 0;
      pool.settle();
      for (const slot of returned.flat()) assert.ok(!kept.includes(slot), `${slot} is kept`);
    }
    for (const slot of kept.splice(0)) pool.free(slot);
    assert.equal(new Set(take(4)).size, 4);
  });
});
