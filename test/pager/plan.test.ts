// The plan of a fault: laws that hold for any page, part, window and resident pages.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { hasBit, setBits, wordsFor } from "../../src/base/bitmap.ts";
import { clipToKind, type PageRun, planRun } from "../../src/pager/plan.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
const parameters = { seed, numRuns: 2000 };
console.log(`seed ${seed} (SEED=${seed} repeats this run)`);

const PAGES = 200;

/** A part of a region, a missing page in it, what is resident, and a window. */
const situation = fc
  .record({
    bits: fc.array(fc.boolean(), { minLength: PAGES, maxLength: PAGES }),
    zero: fc.array(fc.boolean(), { minLength: PAGES, maxLength: PAGES }),
    edges: fc.tuple(fc.nat(PAGES - 1), fc.nat(PAGES - 1)),
    at: fc.nat(PAGES - 1),
    window: fc.nat(9).map((power) => 2 ** power),
  })
  .map(({ bits, zero, edges, at, window }) => {
    const from = Math.min(...edges);
    const until = Math.max(...edges) + 1;
    const page = from + (at % (until - from));
    const bitmap = (flags: readonly boolean[]): Uint32Array => {
      const words = new Uint32Array(wordsFor(PAGES));
      for (const [index, flag] of flags.entries()) if (flag) setBits(words, index, index + 1);
      return words;
    };
    const resident = bitmap(bits.map((bit, index) => bit && index !== page));
    return { from, until, page, window, resident, zero: bitmap(zero) };
  });

const pagesOf = ({ first, until }: PageRun): number[] =>
  Array.from({ length: until - first }, (_, index) => first + index);

test("planRun() takes the missing page, and only missing pages of its part and window", () => {
  fc.assert(
    fc.property(situation, ({ from, until, page, window, resident }) => {
      const run = { first: -1, until: -1 };
      planRun(page, from, until, window, resident, run);
      assert.ok(run.first <= page && page < run.until, "holds the page");
      for (const other of pagesOf(run)) {
        assert.ok(other >= from && other < until, "stays in the part");
        assert.equal(Math.floor(other / window), Math.floor(page / window), "stays in the aligned window");
        assert.ok(!hasBit(resident, other), "takes no resident page");
      }
    }),
    parameters,
  );
});

test("planRun() leaves no page out that it could have taken", () => {
  fc.assert(
    fc.property(situation, ({ from, until, page, window, resident }) => {
      const run = { first: -1, until: -1 };
      planRun(page, from, until, window, resident, run);
      for (const edge of [run.first - 1, run.until]) {
        const isEnd = edge < from || edge >= until || Math.floor(edge / window) !== Math.floor(page / window);
        assert.ok(isEnd || hasBit(resident, edge), `page ${edge} could have been taken too`);
      }
    }),
    parameters,
  );
});

test("planRun() page by page takes the page alone", () => {
  fc.assert(
    fc.property(situation, ({ from, until, page, resident }) => {
      const run = { first: -1, until: -1 };
      planRun(page, from, until, 1, resident, run);
      assert.deepEqual(run, { first: page, until: page + 1 });
    }),
    parameters,
  );
});

test("clipToKind() leaves the longest piece around the page that is zeros throughout, or nowhere", () => {
  fc.assert(
    fc.property(situation, ({ from, until, page, window, resident, zero }) => {
      const run = { first: -1, until: -1 };
      planRun(page, from, until, window, resident, run);
      const whole = { ...run };
      const isZero = hasBit(zero, page);
      clipToKind(page, isZero, zero, run);
      assert.ok(run.first <= page && page < run.until);
      for (const other of pagesOf(run)) assert.equal(hasBit(zero, other), isZero);
      assert.ok(run.first === whole.first || hasBit(zero, run.first - 1) !== isZero);
      assert.ok(run.until === whole.until || hasBit(zero, run.until) !== isZero);
    }),
    parameters,
  );
});
