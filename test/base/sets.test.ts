// Bitmaps and histograms against naive models of them.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  clearBits,
  clearRunStart,
  countBits,
  hasBit,
  nextClear,
  nextSet,
  setBits,
  setRunStart,
  wordsFor,
} from "../../src/base/bitmap.ts";
import { BUCKETS, bucketOf, bucketUntil, quantile } from "../../src/base/histogram.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
const parameters = { seed, numRuns: 1000 };
console.log(`seed ${seed} (SEED=${seed} repeats this run)`);

const BITS = 150;
const range = fc
  .tuple(fc.nat(BITS), fc.nat(BITS))
  .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);
const changes = fc.array(fc.tuple(fc.boolean(), range), { maxLength: 12 });

test("a bitmap holds what a set of numbers holds, after any changes", () => {
  fc.assert(
    fc.property(changes, range, (list, [from, until]) => {
      const words = new Uint32Array(wordsFor(BITS));
      const model = new Set<number>();
      for (const [isSet, [first, end]] of list) {
        (isSet ? setBits : clearBits)(words, first, end);
        for (let bit = first; bit < end; bit++) isSet ? model.add(bit) : model.delete(bit);
      }
      for (let bit = 0; bit < BITS; bit++) assert.equal(hasBit(words, bit), model.has(bit), `bit ${bit}`);
      assert.equal(countBits(words, until), [...model].filter((bit) => bit < until).length);

      const bits = Array.from({ length: until - from }, (_, index) => from + index);
      assert.equal(nextSet(words, from, until), bits.find((bit) => model.has(bit)) ?? until);
      assert.equal(nextClear(words, from, until), bits.find((bit) => !model.has(bit)) ?? until);
      const lastSet = bits.findLast((bit) => model.has(bit));
      assert.equal(clearRunStart(words, from, until), lastSet === undefined ? from : lastSet + 1);
      const lastClear = bits.findLast((bit) => !model.has(bit));
      assert.equal(setRunStart(words, from, until), lastClear === undefined ? from : lastClear + 1);
    }),
    parameters,
  );
});

test("a histogram's bucket holds its value, and is at most a sixteenth of it wide", () => {
  fc.assert(
    fc.property(fc.nat(2 ** 31 - 1), (value) => {
      const bucket = bucketOf(value);
      assert.ok(bucket >= 0 && bucket < BUCKETS);
      const below = bucket === 0 ? 0 : bucketUntil(bucket - 1);
      assert.ok(
        below <= value && value < bucketUntil(bucket),
        `${value} in [${below}, ${bucketUntil(bucket)})`,
      );
      assert.ok(bucketUntil(bucket) - below <= Math.max(1, value / 16));
    }),
    parameters,
  );
});

test("quantile() of a histogram is within a sixteenth of the sorted list's", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(1_000_000), { minLength: 1 }),
      fc.double({ min: 0.01, max: 1, noNaN: true }),
      (values, share) => {
        const counts = new Float64Array(BUCKETS);
        for (const value of values) counts[bucketOf(value)]! += 1;
        const exact = values.sort((a, b) => a - b)[Math.ceil(share * values.length) - 1]!;
        const found = quantile(counts, share);
        assert.ok(found >= exact && found <= exact + exact / 16 + 1, `${found} for ${exact}`);
      },
    ),
    parameters,
  );
});
