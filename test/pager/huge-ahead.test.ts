// Memory of this process that is gone through in order: huge pages are moved ahead of it, with the right bytes.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { open } from "../../src/index.ts";
import { COUNTER, makeCounters } from "../../src/pager/counters.ts";
import type { Filler } from "../../src/pager/filler.ts";
import { HugeAhead, type HugePages } from "../../src/pager/huge-ahead.ts";
import { type Part, Region, wholePart } from "../../src/pager/regions.ts";

const PAGE = 4096;
const HUGE = 512 * PAGE;
/** The last huge page is not whole. */
const BYTES = 40 * HUGE + 3 * PAGE + 100;

/** A file whose pages tell their numbers. */
function numberedFile(folder: string): string {
  const bytes = Buffer.alloc(BYTES);
  for (let at = 0; at + 4 <= BYTES; at += PAGE) bytes.writeUInt32LE(at / PAGE + 1, at);
  const path = join(folder, "file");
  writeFileSync(path, bytes);
  return path;
}

test("a walk in order faults seldom, and finds every page's own bytes; what it writes stays", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-huge-"));
  try {
    const memory = await open(numberedFile(folder), { mode: "private" });
    const words = new DataView(memory.buffer);
    // A page in the way of the walk, and one that is written to before.
    words.setUint32(38 * HUGE + 5 * PAGE, 77, true);
    for (let at = 0; at + 4 <= BYTES; at += PAGE) {
      const isWritten = at === 38 * HUGE + 5 * PAGE;
      assert.equal(words.getUint32(at, true), isWritten ? 77 : at / PAGE + 1);
      words.setUint32(at, 5, true);
    }
    for (let at = 0; at + 4 <= BYTES; at += PAGE) assert.equal(words.getUint32(at, true), 5);
    // One for each window of 2 MiB, and some until they are as wide; of those that are moved less, unless moving is slow.
    t.diagnostic(`${memory.statistics().faults} faults for 41 huge pages`);
    assert.ok(memory.statistics().faults < 60);
    assert.equal(memory.resident().pages, Math.ceil(BYTES / PAGE));
    await memory.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a walk backwards and pages at random are brought as before", async () => {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-huge-"));
  try {
    const memory = await open(numberedFile(folder), { mode: "private" });
    const words = new DataView(memory.buffer);
    const pages = Math.floor(BYTES / PAGE);
    for (let step = 0; step < 500; step++) {
      const page = (step * 7919) % pages;
      assert.equal(words.getUint32(page * PAGE, true), page + 1);
    }
    for (let page = pages - 1; page >= 0; page--) assert.equal(words.getUint32(page * PAGE, true), page + 1);
    await memory.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** A part of so many huge pages at an aligned address, and a HugeAhead whose moves end as told. */
function scene(hugePages: number, start = 64 * HUGE) {
  const words = hugePages * 16;
  const part: Part = wholePart(
    start,
    new Region({
      pageSize: PAGE,
      pageCount: hugePages * 512,
      imageOffset: 0,
      windowPages: 512,
      resident: new Uint32Array(words),
      zero: new Uint32Array(words),
      hasZeros: false,
    }),
  );
  const moved: number[] = [];
  const filler = {
    errno: 0,
    isPutOff: false,
    get bytesDone() {
      return this.errno === 0 ? HUGE : 0;
    },
    move(target: number) {
      moved.push((target - start) / HUGE);
      return this.errno;
    },
  };
  const asked: number[] = [];
  const pages = {
    addressOf: (slot: number) => slot * HUGE,
    ask: (_slot: number, offset: number) => asked.push(offset / HUGE),
    take: () => true,
    makeRoom: () => undefined,
  };
  const counters = makeCounters();
  const ahead = new HugeAhead(pages as unknown as HugePages, filler as unknown as Filler, counters);
  const bring = (window: number): number => ahead.bring(part, window * 512, (window + 1) * 512) / 512;
  const own = (): number => (ahead.source < 0 ? -1 : ahead.source / HUGE);
  return { part, moved, asked, own, ahead, filler, counters, bring };
}

const range = (first: number, until: number): number[] =>
  Array.from({ length: until - first }, (_, index) => first + index);

test("more is brought the longer a guest goes in order, up to a limit, and nothing for one that does not", () => {
  const { moved, counters, bring } = scene(64);
  assert.equal(bring(5), 6, "the first fault says nothing");
  assert.equal(bring(30), 31);
  assert.equal(bring(31), 34, "two behind the second");
  assert.equal(bring(34), 39);
  assert.equal(bring(39), 48);
  assert.equal(bring(48), 57);
  assert.equal(bring(57), 64, "not beyond the end");
  assert.deepEqual(moved.slice(0, 3), [32, 33, 35]);
  assert.equal(counters[COUNTER.BYTES_INSTALLED], moved.length * HUGE);
});

test("each huge page is asked for once, as many ahead as are brought, and a fault's own is among them", () => {
  const { part, moved, asked, own, bring } = scene(64);
  const sources = [0, 1, 4, 9, 18].map((window) => {
    bring(window);
    return own();
  });
  assert.deepEqual(moved, [2, 3, ...range(5, 9), ...range(10, 18), ...range(19, 27)]);
  assert.deepEqual(asked, range(2, 36));
  // The slots of 4, 9 and 18, of which there are 18.
  assert.deepEqual(sources, [-1, -1, 4, 9, 0]);
  // Its neighbour has faulted since it was asked for.
  part.region.resident[29 * 16 + 3] = 1;
  assert.equal(bring(27), 29, "that one has to be copied");
  asked.length = 0;
  bring(50);
  assert.deepEqual([asked, own()], [[], -1], "a jump asks for nothing");
  bring(51);
  assert.deepEqual(asked.slice(0, 2), [52, 53]);
});

test("a window whose move fails is copied, and so is all that follows", () => {
  const { ahead, filler, own, bring } = scene(64);
  for (const window of [0, 1, 4]) bring(window);
  assert.ok(own() >= 0);
  filler.errno = 22;
  ahead.failed();
  filler.errno = 0;
  assert.equal(bring(9), 10);
  assert.equal(own(), -1);
});

test("what is there already ends a run, and so does a refusal, for good", () => {
  const { part, moved, filler, bring } = scene(64);
  part.region.resident[3 * 16] = 1;
  assert.equal(bring(0), 1);
  assert.equal(bring(1), 3, "the page in the way");
  filler.errno = 22;
  assert.equal(bring(3), 4);
  filler.errno = 0;
  moved.length = 0;
  for (const window of [4, 5, 6]) assert.equal(bring(window), window + 1);
  assert.deepEqual(moved, []);
});

test("addresses that no huge page begins with are left alone", () => {
  const { moved, bring } = scene(8, 64 * HUGE + PAGE);
  for (const window of [0, 1, 2]) bring(window);
  assert.deepEqual(moved, []);
});
