// Who fetches everything: what it asks for, and what it reads itself meanwhile.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { setBits, wordsFor } from "../../src/base/bitmap.ts";
import { BulkFetch } from "../../src/pager/fetch/bulk-fetch.ts";
import type { FetchClient } from "../../src/pager/fetch/client.ts";
import { Region, wholePart } from "../../src/pager/regions.ts";

const UNIT_PAGES = 16;
const UNIT_BYTES = UNIT_PAGES * PAGE_SIZE;
const UNITS = 64;
const FETCHES = 4;

function scene({ helps = true, holes = [] as readonly number[] } = {}) {
  const pageCount = UNITS * UNIT_PAGES;
  const resident = new Uint32Array(wordsFor(pageCount));
  const zero = new Uint32Array(wordsFor(pageCount));
  const pages = { pageSize: PAGE_SIZE, pageCount, imageOffset: 0, windowPages: UNIT_PAGES, resident, zero };
  const part = wholePart(0x10_0000, new Region({ ...pages, hasZeros: false }));
  const holeBits = new Uint32Array(wordsFor(UNITS));
  for (const hole of holes) setBits(holeBits, hole, hole + 1);
  const known = new Set<number>();
  const asked: number[] = [];
  const read: number[] = [];
  const state = { whole: 0 };
  const install = (_part: unknown, first: number, until: number): void => setBits(resident, first, until);
  const client = { loop: { installer: { install } } } as unknown as FetchClient;
  const bulk = new BulkFetch({
    byteLength: UNITS * UNIT_BYTES,
    unitBytes: UNIT_BYTES,
    fetchesMax: FETCHES,
    holes: holeBits,
    isKnown: (unit) => known.has(unit),
    want: (_client, unit) => {
      asked.push(unit);
      return known.add(unit) !== undefined;
    },
    readDirectly: (_part, page) => read.push(page / UNIT_PAGES) > 0,
    helps,
    onWhole: () => void state.whole++,
  });
  const arrive = (first: number, until: number): void => {
    setBits(resident, first * UNIT_PAGES, until * UNIT_PAGES);
    for (let unit = first; unit < until; unit++) known.delete(unit);
  };
  const goOn = (unit: number, last = UNITS - 1): boolean => bulk.goOn(client, part, unit, last);
  return { known, asked, read, arrive, goOn, state, bulk };
}

test("what is there already is not fetched again", () => {
  const { known, arrive, goOn } = scene({ helps: false });
  arrive(2, 5);
  assert.equal(goOn(0), false);
  assert.deepEqual([...known], [0, 1, 5, 6, 7, 8]);
});

test("nothing is asked for while half of what was asked for is on its way", () => {
  const { known, arrive, goOn } = scene({ helps: false });
  goOn(0);
  assert.deepEqual([...known], [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  arrive(0, 3);
  goOn(3);
  assert.equal(Math.max(...known), 8);
  arrive(3, 6);
  goOn(6);
  assert.equal(Math.max(...known), 14);
});

test("what is on its way is not asked for again, and what was given up is", () => {
  const { known, asked, arrive, goOn } = scene({ helps: false });
  goOn(0);
  arrive(0, 6);
  goOn(6);
  assert.deepEqual(asked, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
  arrive(6, 10);
  for (const unit of [10, 12]) known.delete(unit);
  goOn(10);
  assert.deepEqual(
    [10, 12, 18].map((unit) => known.has(unit)),
    [true, true, true],
  );
});

test("this thread reads what lies behind that, each unit once and no holes", () => {
  const { read, arrive, goOn } = scene({ holes: [10] });
  arrive(12, 13);
  assert.deepEqual([goOn(0), goOn(0), goOn(0)], [true, true, true]);
  assert.deepEqual(read, [9, 11, 13]);
  arrive(0, 9);
  goOn(14);
  assert.deepEqual(read, [9, 11, 13, 23], "and never what the other one has been asked for");
  while (goOn(14));
  assert.equal(new Set(read).size, read.length);
  assert.equal(Math.max(...read), UNITS - 1);
});

test("that most of the source will be needed is said once, and not of a part of it", () => {
  const { goOn, state, bulk } = scene();
  goOn(0, UNITS / 2 - 1);
  assert.deepEqual([bulk.isWhole, state.whole], [false, 0]);
  goOn(1);
  goOn(2);
  assert.deepEqual([bulk.isWhole, state.whole], [true, 1]);
});
