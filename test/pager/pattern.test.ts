// What faults foretell: properties of the guesses.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Random } from "../../src/base/random.ts";
import { Pattern } from "../../src/pager/fetch/pattern.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.log(`seed ${seed} (SEED=${seed} repeats this run)`);
const WIDTH_MAX = 32;

/** Walks over units as a guest does: what was brought along raises no fault. Answers faults and units brought. */
function walk(units: Iterable<number>): { faults: number; brought: Set<number>; widest: number } {
  const pattern = new Pattern({ widthMax: WIDTH_MAX });
  const brought = new Set<number>();
  let faults = 0;
  let widest = 0;
  for (const unit of units) {
    if (brought.has(unit)) continue;
    faults++;
    brought.add(unit);
    const { stride, count } = pattern.fault(unit);
    assert.ok(count >= 0 && count <= WIDTH_MAX && stride !== 0);
    widest = Math.max(widest, count);
    for (let index = 1; index <= count; index++) brought.add(unit + stride * index);
  }
  return { faults, brought, widest };
}

test("a run with any stride, either way, widens to the widest and is soon foreseen", () => {
  const strides = fc.integer({ min: -64, max: 64 }).filter((stride) => stride !== 0);
  fc.assert(
    fc.property(fc.nat(1_000_000), strides, (start, stride) => {
      const steps = 400;
      const { faults, brought, widest } = walk(
        Array.from({ length: steps }, (_, index) => start + stride * index),
      );
      assert.equal(widest, WIDTH_MAX);
      assert.ok(faults <= 8 + steps / WIDTH_MAX, `${faults} faults`);
      assert.ok(brought.size <= steps + 2 * WIDTH_MAX, "little is brought beyond the end");
    }),
    { seed },
  );
});

test("a fault of what is on its way already goes on with its run, and asks for what comes behind", () => {
  const pattern = new Pattern({ widthMax: WIDTH_MAX });
  let until = 0;
  for (let unit = 100; unit < 140; unit++) {
    const { stride, count } = pattern.fault(unit);
    assert.ok(count === 0 || stride === 1);
    // Whoever brings it is always just behind the guest.
    if (unit > 106) assert.equal(count, WIDTH_MAX);
    until = Math.max(until, unit + count);
  }
  assert.equal(until, 139 + WIDTH_MAX);
});

test("several runs at once are each foreseen", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 6 }), (runs) => {
      const units = Array.from(
        { length: 200 * runs },
        (_, index) => (index % runs) * 1_000_000 + Math.floor(index / runs),
      );
      assert.ok(walk(units).faults < 30 * runs);
    }),
    { seed },
  );
});

test("a random walk brings almost nothing along, also where neighbours come by chance", () => {
  fc.assert(
    fc.property(fc.nat(2 ** 31), fc.integer({ min: 2000, max: 100_000 }), (walkSeed, units) => {
      const random = new Random(walkSeed);
      const touched = random.sample(Math.floor(units / 4), units);
      const { brought } = walk(touched);
      assert.ok(brought.size <= touched.length * 1.25, `${brought.size} units for ${touched.length}`);
    }),
    { seed, numRuns: 50 },
  );
});

test("a run after a random walk widens again", () => {
  const random = new Random(seed);
  const sequence = [
    ...random.sample(200, 1_000_000),
    ...Array.from({ length: 600 }, (_, index) => 2_000_000 + index),
  ];
  assert.equal(walk(sequence).widest, WIDTH_MAX);
});

test("the same unit again and again foretells nothing", () => {
  const pattern = new Pattern({ widthMax: WIDTH_MAX });
  pattern.fault(7);
  for (let time = 0; time < 10; time++) assert.equal(pattern.fault(7).count, 0);
});
