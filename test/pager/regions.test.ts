// The pager's picture of the guest's memory, against a naive one that keeps every page in a map.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { hasBit, setBits, wordsFor } from "../../src/base/bitmap.ts";
import { addressOfPage, pageAt, Region, RegionMap, wholePart } from "../../src/pager/regions.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.log(`seed ${seed} (SEED=${seed} repeats this run)`);

const PAGE = 4096;
const PAGES = 24;
/** Addresses in play, in pages: two regions, and free space that memory is moved to. */
const SPACE = 96;

/** What the model knows of a page: which byte of the image, or zeros, and whether it is installed. */
interface ModelPage {
  readonly content: string;
  readonly isResident: boolean;
}

const pages = fc
  .tuple(fc.nat(SPACE - 1), fc.integer({ min: 1, max: 20 }))
  .map(([first, count]) => ({ first, until: Math.min(SPACE, first + count) }));

const act = fc.oneof(
  fc.record({ kind: fc.constant("install" as const), pages }),
  fc.record({ kind: fc.constant("remove" as const), pages }),
  fc.record({ kind: fc.constant("unmap" as const), pages }),
  fc.record({ kind: fc.constant("remap" as const), pages, to: fc.nat(SPACE - 1) }),
);

function region(name: number): Region {
  return new Region({
    pageSize: PAGE,
    pageCount: PAGES,
    imageOffset: name * 2 ** 20,
    windowPages: 1,
    resident: new Uint32Array(wordsFor(PAGES)),
    zero: new Uint32Array(wordsFor(PAGES)),
    hasZeros: false,
  });
}

test("a region map tells of every address what a map of single pages tells, after any events", () => {
  fc.assert(
    fc.property(fc.array(act, { maxLength: 20 }), (acts) => {
      const map = new RegionMap([wholePart(4 * PAGE, region(1)), wholePart(40 * PAGE, region(2))]);
      const model = new Map<number, ModelPage>();
      for (let page = 0; page < PAGES; page++) {
        model.set(4 + page, { content: `image ${2 ** 20 + page * PAGE}`, isResident: false });
        model.set(40 + page, { content: `image ${2 * 2 ** 20 + page * PAGE}`, isResident: false });
      }
      for (const step of acts) {
        const { first, until } = step.pages;
        const list = Array.from({ length: until - first }, (_, index) => first + index);
        if (step.kind === "install") {
          for (const page of list) {
            const part = map.find(page * PAGE);
            if (part === undefined) continue;
            const index = pageAt(part, page * PAGE);
            assert.equal(addressOfPage(part, index), page * PAGE);
            setBits(part.region.resident, index, index + 1);
            model.set(page, { ...model.get(page)!, isResident: true });
          }
        } else if (step.kind === "remove") {
          map.remove(first * PAGE, until * PAGE);
          for (const page of list)
            if (model.has(page)) model.set(page, { content: "zeros", isResident: false });
        } else if (step.kind === "unmap") {
          map.unmap(first * PAGE, until * PAGE);
          for (const page of list) model.delete(page);
        } else {
          const isApart = step.to >= until || step.to + list.length <= first;
          // A move happens within one mapping; the kernel refuses overlapping ranges.
          if (!isApart || step.to + list.length > SPACE) continue;
          map.remap(first * PAGE, step.to * PAGE, list.length * PAGE);
          for (const page of list) model.delete(step.to + page - first);
          for (const page of list) {
            const moved = model.get(page);
            if (moved === undefined) continue;
            model.set(step.to + page - first, moved);
            model.set(page, { content: "zeros", isResident: false });
          }
        }
      }
      for (const view of [map, map.fork()]) {
        for (let page = 0; page < SPACE; page++) {
          const part = view.find(page * PAGE + 17);
          const expected = model.get(page);
          assert.equal(part !== undefined, expected !== undefined, `page ${page} is known`);
          if (part === undefined || expected === undefined) continue;
          const index = pageAt(part, page * PAGE + 17);
          const content = hasBit(part.region.zero, index)
            ? "zeros"
            : `image ${part.region.imageOffset + index * PAGE}`;
          const isResident = hasBit(part.region.resident, index);
          assert.deepEqual({ content, isResident }, expected, `page ${page}`);
        }
      }
    }),
    { seed, numRuns: 500 },
  );
});

test("a forked region map changes alone", () => {
  const map = new RegionMap([wholePart(0x1000, region(1))]);
  const child = map.fork();
  child.remove(0x1000, 0x3000);
  child.unmap(0x5000, 0x6000);
  assert.ok(map.find(0x5000) !== undefined && child.find(0x5000) === undefined);
  const [parentPart, childPart] = [map.find(0x1000)!, child.find(0x1000)!];
  assert.ok(!hasBit(parentPart.region.zero, 0) && hasBit(childPart.region.zero, 0));
});
