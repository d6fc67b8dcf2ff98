// The window that follows the faults.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { Random } from "../../src/base/random.ts";
import { planRun } from "../../src/pager/plan.ts";
import { AdaptiveWidth } from "../../src/pager/width.ts";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import { Guest } from "./guest.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.log(`seed ${seed} (SEED=${seed} repeats this run)`);
const PAGES = 16_384;

/** Touches pages in this order: faults, pages installed, and how wide the window was at last. */
function walk(pages: Iterable<number>): { faults: number; installed: number; width: number } {
  const resident = new Uint32Array(PAGES / 32);
  const width = new AdaptiveWidth(16, 512);
  const run = { first: 0, until: 0 };
  let faults = 0;
  let installed = 0;
  for (const page of pages) {
    if ((resident[page >>> 5]! >>> (page & 31)) & 1) continue;
    faults++;
    planRun(page, 0, PAGES, width.pages, resident, run);
    assert.ok(run.first <= page && page < run.until && run.until - run.first <= 512);
    for (let each = run.first; each < run.until; each++) resident[each >>> 5]! |= 1 << (each & 31);
    installed += run.until - run.first;
    width.served(page, run.first, run.until);
  }
  return { faults, installed, width: width.pages };
}

test("runs in either direction widen it to 2 MiB", () => {
  fc.assert(
    fc.property(fc.nat(1000), fc.boolean(), (start, isUpwards) => {
      const order = Array.from({ length: 8192 }, (_, index) =>
        isUpwards ? start + index : PAGES - 1 - start - index,
      );
      const { faults, width } = walk(order);
      assert.equal(width, 512);
      assert.ok(faults < 40, `${faults} faults`);
    }),
    { seed },
  );
});

test("small strides widen it too", () => {
  for (const stride of [2, 3, 5]) {
    const { width } = walk(Array.from({ length: 3000 }, (_, index) => index * stride));
    assert.equal(width, 512, `stride ${stride}`);
  }
});

test("faults at random narrow it to the page: little is installed that nobody touched", () => {
  fc.assert(
    fc.property(fc.nat(2 ** 31), (walkSeed) => {
      const touched = new Random(walkSeed).sample(300, PAGES);
      const { installed, width } = walk(touched);
      assert.ok(width <= 4, `${width} pages`);
      assert.ok(installed < 300 * 1.5 + 32, `${installed} pages for 300`);
    }),
    { seed, numRuns: 50 },
  );
});

test("runs of one length, wherever they are, soon need little more than a fault each", () => {
  for (const pages of [64, 256]) {
    const starts = Array.from(new Random(seed).sample(40, PAGES / pages), (run) => run * pages);
    const { faults, installed } = walk(
      starts.flatMap((start) => Array.from({ length: pages }, (_, index) => start + index)),
    );
    assert.ok(faults < 40 * 1.4 + 8, `${faults} faults for 40 runs of ${pages}`);
    assert.ok(installed < 40 * pages * 1.5, `${installed} pages for ${40 * pages}`);
  }
});

test("a run after a walk at random widens it again", () => {
  const order = [
    ...new Random(seed).sample(200, 4096),
    ...Array.from({ length: 8000 }, (_, index) => 8000 + index),
  ];
  assert.equal(walk(order).width, 512);
});

describe("an adaptive pager", { skip, timeout: 300_000 }, () => {
  test("needs few faults for a walk in order, and brings the right bytes", async (t) => {
    const guest = new Guest({ pages: 4096 });
    t.after(() => guest.close());
    const pager = await guest.pager({ plan: { adaptive: true } });
    guest.checkAll();
    const { faults } = pager.statistics();
    assert.ok(faults < 30, `${faults} faults`);
  });
});
