// Page tables against a plain map, and huge pages that split.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PageTable } from "../../src/uffd/software/page-table.ts";
import { random, seed } from "./machine.ts";

test("a page table holds what a map holds, at page numbers of any size", (t) => {
  const start = seed();
  t.diagnostic(`seed ${start}`);
  const next = random(start);
  const table = new PageTable();
  const model = new Map<number, number>();
  const bases = [0, 510, 2 ** 20, 2 ** 31 - 5, 2 ** 33, 2 ** 35 - 2048];
  const page = (): number => bases[next(bases.length)]! + next(1200);
  for (let step = 0; step < 20_000; step++) {
    const at = page();
    switch (next(4)) {
      case 0: {
        const entry = next(2 ** 31) | 1;
        table.set(at, entry);
        model.set(at, entry);
        break;
      }
      case 1:
        assert.equal(table.get(at), model.get(at) ?? 0, `seed ${start}, page ${at}`);
        break;
      case 2: {
        const until = at + next(700);
        const seen: number[] = [];
        table.clear(at, until, (_entry, dropped) => seen.push(dropped));
        const expected = [...model.keys()].filter((key) => key >= at && key < until).sort((a, b) => a - b);
        assert.deepEqual(seen, expected, `seed ${start}, clear [${at}, ${until})`);
        for (const key of expected) model.delete(key);
        break;
      }
      default: {
        const until = at + next(700);
        table.update(at, until, (entry) => entry ^ 2);
        for (const key of [...model.keys()])
          if (key >= at && key < until) model.set(key, model.get(key)! ^ 2);
      }
    }
  }
});

test("clearing whole leaves gives their memory back", () => {
  const table = new PageTable();
  for (let page = 0; page < 5 * 512; page++) table.set(page, 1);
  assert.equal(table.byteLength, 5 * 2048);
  table.clear(100, 5 * 512, () => {});
  assert.equal(table.byteLength, 2048);
  assert.equal(table.get(99), 1);
  assert.equal(table.get(100), 0);
});

test("a huge page is one until a part of it is touched", () => {
  const table = new PageTable();
  table.markHuge(1024);
  assert.equal(table.isHuge(1535), true);
  table.splitEdges(1024, 1536);
  assert.equal(table.isHuge(1024), true);
  table.splitEdges(1024, 1500);
  assert.equal(table.isHuge(1024), false);
});
