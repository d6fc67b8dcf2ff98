// The windows around faults of what has to be verified, and what another thread has of them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { setBits, wordsFor } from "../../src/base/bitmap.ts";
import { AheadFiller, makeAheadWords, UnitsAhead } from "../../src/pager/fetch/ahead.ts";
import type { DirectReader } from "../../src/pager/fetch/direct.ts";
import { makePaneWords, PANE_UNITS, PANES, PaneFiller, UNIT_STATE } from "../../src/pager/fetch/panes.ts";
import { VerifiedWindow } from "../../src/pager/fetch/verified-window.ts";
import { type Part, Region, wholePart } from "../../src/pager/regions.ts";

const UNIT_PAGES = 16;
const UNIT_BYTES = UNIT_PAGES * PAGE_SIZE;
const UNITS = 64;
const FIRST_AHEAD = PANES * PANE_UNITS;
const { THERE, ZERO, FAILED } = UNIT_STATE;

interface SceneOptions {
  readonly listens?: boolean;
  readonly holes?: readonly number[];
  /** Units that this thread can't read. */
  readonly damaged?: readonly number[];
  /** What the other thread does while it is waited for. */
  readonly meanwhile?: (filler: PaneFiller) => void;
}

function scene({ listens = true, holes = [], damaged = [], meanwhile = () => undefined }: SceneOptions = {}) {
  const panes = makePaneWords();
  const filler = new PaneFiller(panes, () => undefined);
  filler.listens = listens;
  const pageCount = UNITS * UNIT_PAGES;
  const resident = new Uint32Array(wordsFor(pageCount));
  const zero = new Uint32Array(wordsFor(pageCount));
  const pages = { pageSize: PAGE_SIZE, pageCount, imageOffset: 0, windowPages: 64, resident, zero };
  const part: Part = wholePart(0x10_0000, new Region({ ...pages, hasZeros: false }));
  const read: number[] = [];
  let rings = 0;
  const reader: DirectReader = {
    address: 0x1000_0000,
    isPlain: false,
    unitsMax: PANE_UNITS,
    isCached: () => undefined,
    read(unit) {
      read.push(unit);
      return damaged.includes(unit) ? undefined : holes.includes(unit) ? 0 : 1;
    },
  };
  const aheadWords = makeAheadWords(4);
  const ahead = new UnitsAhead({
    words: aheadWords,
    reader,
    firstSlot: FIRST_AHEAD,
    unitBytes: UNIT_BYTES,
    await: () => undefined,
  });
  const window = new VerifiedWindow({
    reader,
    ahead,
    unitBytes: UNIT_BYTES,
    isWanted: (unit) => !holes.includes(unit),
    panes,
    ring: () => {
      rings++;
    },
    await: () => meanwhile(filler),
  });
  return {
    filler,
    ahead,
    aheadFiller: new AheadFiller(aheadWords, () => undefined),
    window,
    read,
    get rings() {
      return rings;
    },
    fault: (unit: number, asks = true) => window.read(part, unit * UNIT_PAGES, asks),
    /** The guest has these units. */
    install: (first: number, until: number) => setBits(resident, first * UNIT_PAGES, until * UNIT_PAGES),
    /** What the other thread does with all that is wanted; the units. */
    work(state: typeof THERE | typeof ZERO | typeof FAILED = THERE): number[] {
      const units: number[] = [];
      for (let next = filler.claim(); next !== undefined; next = filler.claim()) {
        units.push(next.unit);
        filler.end(next.slot, state);
      }
      return units;
    },
  };
}

test("a fault's own unit is read here, the others of its window there, and all lie in one piece then", () => {
  const one = scene();
  const { window, fault, read, work } = one;
  assert.equal(fault(9), "bytes");
  assert.deepEqual(read, [9]);
  assert.deepEqual([window.firstOf(9), window.untilOf(9)], [9, 10]);
  assert.ok(!window.has(10));
  assert.deepEqual(work(), [10, 11, 8]);
  assert.deepEqual([window.firstOf(9), window.untilOf(9)], [8, 12]);
  assert.equal(window.addressOf(11) - window.addressOf(8), 3 * UNIT_BYTES);
  assert.equal(one.rings, 1);
});

test("nobody is asked who does not listen, or whom nobody asks: then all is read here", () => {
  for (const [listens, asks] of [
    [false, true],
    [true, false],
  ] as const) {
    const { window, fault, read, work } = scene({ listens });
    assert.equal(fault(9, asks), "bytes");
    assert.deepEqual(read, [9, 8, 10, 11]);
    assert.deepEqual([window.firstOf(9), window.untilOf(9)], [8, 12]);
    assert.deepEqual(work(), []);
  }
});

test("what the other one has not begun with, or could not read, is read here when a fault comes to it", () => {
  const one = scene();
  one.fault(8);
  assert.equal(one.fault(9), "bytes");
  assert.deepEqual(one.read, [8, 9]);
  assert.deepEqual(one.work(FAILED), [10, 11]);
  assert.ok(!one.window.has(10));
  assert.equal(one.fault(10), "bytes");
  assert.deepEqual(one.read, [8, 9, 10]);
});

test("what can be read by nobody so is left to whoever can say why", () => {
  const { fault, work, window } = scene({ damaged: [10] });
  fault(8);
  work(FAILED);
  assert.equal(fault(10), undefined);
  assert.ok(!window.has(10));
});

test("a unit that turns out to be zeros is said to be, whoever has found that out", () => {
  const one = scene();
  one.fault(8);
  one.work(ZERO);
  assert.equal(one.fault(9), "zero");
  assert.ok(!one.window.has(9));
  assert.deepEqual(one.read, [8]);
});

test("what the other one is at is waited for, and no longer than a moment: then it is read here, somewhere else", () => {
  const fast = scene({ meanwhile: (filler) => filler.end(1, THERE) });
  fast.fault(8);
  assert.equal(fast.filler.claim()?.unit, 9);
  assert.equal(fast.fault(9), "bytes");
  assert.deepEqual(fast.read, [8]);

  const slow = scene();
  slow.fault(8);
  const taken = slow.filler.claim()!;
  assert.equal(taken.unit, 9);
  const address = slow.window.addressOf(8) + UNIT_BYTES;
  assert.equal(slow.fault(9), "bytes");
  assert.notEqual(slow.window.addressOf(9), address, "that memory is not ours");
  assert.deepEqual(slow.read, [8, 9]);
  slow.fault(20);
  assert.deepEqual(slow.read, [8, 9, 20, 21, 22, 23], "who is late is asked for nothing more");
  slow.filler.end(taken.slot, THERE);
  slow.fault(30);
  assert.deepEqual(slow.read.slice(6), [30]);
  assert.deepEqual(slow.work(), [31, 29, 28]);
});

test("behind a guest that goes in order nothing is read before it comes: the next window is, ahead of it", () => {
  const { window, fault, read, work, install } = scene();
  fault(0);
  assert.deepEqual(work(), [1, 2, 3]);
  install(0, 4);
  fault(4);
  assert.deepEqual(work(), [5, 6, 7, 8, 9, 10, 11], "its own window, then the next one");
  install(4, 8);
  assert.ok(window.has(8));
  window.addressOf(8);
  assert.deepEqual(work(), [12, 13, 14, 15], "somebody has come to it: one more");
  assert.deepEqual(read, [0, 4]);
});

test("who jumps about has nothing read ahead; nor is what is there already, or a hole, or behind the end", () => {
  const jumping = scene();
  for (const unit of [0, 40, 20]) jumping.fault(unit);
  assert.deepEqual(
    jumping.work().sort((a, b) => a - b),
    [1, 2, 3, 21, 22, 23, 41, 42, 43],
  );

  const there = scene();
  there.fault(0);
  there.install(0, 4);
  there.install(8, 12);
  there.fault(4);
  assert.deepEqual(
    there.work().sort((a, b) => a - b),
    [1, 2, 3, 5, 6, 7],
  );

  const hole = scene({ holes: [8] });
  hole.fault(0);
  hole.fault(4);
  assert.deepEqual(
    hole.work().sort((a, b) => a - b),
    [1, 2, 3, 5, 6, 7],
  );

  const end = scene();
  end.fault(UNITS - 8);
  end.fault(UNITS - 4);
  assert.equal(Math.max(...end.work()), UNITS - 1);
});

test("what is read ahead, unit by unit, is found where it is, and no window takes it in", () => {
  const { ahead, aheadFiller, window, fault, read } = scene();
  for (const unit of [8, 10]) ahead.want(unit);
  aheadFiller.end(aheadFiller.claim()!.slot, THERE);
  assert.ok(window.has(8) && !window.has(10));
  assert.deepEqual([window.firstOf(8), window.untilOf(8)], [8, 9]);
  assert.equal(window.addressOf(8), ahead.addressOf(8));
  assert.equal(fault(9, false), "bytes");
  assert.deepEqual(read, [9], "those around it are there, or on their way");
  assert.equal(fault(10), "bytes");
  assert.deepEqual(read, [9, 10], "nobody had begun with it");
  assert.equal(window.addressOf(10), ahead.addressOf(10));
});

test("what the other one is at ahead, and does not end in time, is read somewhere else", () => {
  const { ahead, aheadFiller, window, fault, read } = scene();
  ahead.want(8);
  const { slot } = aheadFiller.claim()!;
  assert.equal(fault(8), "bytes");
  assert.deepEqual(read, [8]);
  assert.notEqual(window.addressOf(8), ahead.addressOf(8), "that memory is not ours");
  aheadFiller.end(slot, FAILED);
  assert.ok(window.has(8));
});
