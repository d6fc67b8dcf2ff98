// The panes that two threads fill: whose a unit is at each moment, and what is taken first.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  makePaneWords,
  PANE_UNITS,
  PANES,
  PaneFiller,
  Panes,
  UNIT_STATE,
} from "../../src/pager/fetch/panes.ts";

const { OURS, WANTED, TAKEN, THERE, FAILED } = UNIT_STATE;

function bothSides() {
  const words = makePaneWords();
  return { panes: new Panes(words), filler: new PaneFiller(words, () => undefined) };
}

/** What the other thread takes, in order. */
function claimed(filler: PaneFiller): number[] {
  const units: number[] = [];
  for (let next = filler.claim(); next !== undefined; next = filler.claim()) {
    units.push(next.unit);
    filler.end(next.slot, THERE);
  }
  return units;
}

test("what lies behind a fault is taken first, then what lies before it; its own unit never", () => {
  const { panes, filler } = bothSides();
  panes.want(panes.open(8, 12), 9);
  assert.deepEqual(claimed(filler), [10, 11, 8]);
});

test("the last fault's pane comes first, and what was opened ahead after all of them, until somebody has come there", () => {
  const { panes, filler } = bothSides();
  panes.want(panes.open(0, 4), 0);
  const ahead = panes.open(20, 22);
  ahead.isAhead = true;
  panes.want(ahead, 20);
  panes.want(panes.open(8, 12), 8);
  assert.equal(filler.claim()?.unit, 9);
  panes.enter(ahead);
  assert.deepEqual(claimed(filler), [20, 21, 10, 11, 1, 2, 3]);
});

test("what nobody has begun with is taken back; what somebody has is theirs until the end", () => {
  const { panes, filler } = bothSides();
  const pane = panes.open(4, 7);
  panes.want(pane, 4);
  const { slot, unit } = filler.claim()!;
  assert.deepEqual([unit, slot], [5, panes.slotOf(pane, 5)]);
  assert.equal(panes.takeBack(pane, 5), TAKEN);
  assert.equal(panes.takeBack(pane, 6), OURS);
  assert.equal(filler.claim(), undefined);
  filler.end(slot, FAILED);
  assert.equal(panes.takeBack(pane, 5), FAILED);
});

test("a pane with a unit that is being written to is not opened again, whatever else is", () => {
  const { panes, filler } = bothSides();
  const first = panes.open(0, 4);
  panes.want(first, 0);
  const taken = filler.claim()!;
  const places = new Set<number>();
  for (let window = 1; window <= 3 * PANES; window++)
    places.add(panes.open(10 * window, 10 * window + 4).index);
  assert.ok(!places.has(first.index));
  assert.equal(places.size, PANES - 1);
  assert.equal(panes.paneOf(1), first, "what it has is still found");
  assert.equal(panes.stateOf(first, 3), OURS, "and nothing else of it is read for nobody");
  filler.end(taken.slot, THERE);
  assert.equal(panes.paneWith(1), first);
  assert.equal(panes.open(1000, 1000 + PANE_UNITS).index, first.index);
  assert.equal(panes.paneOf(1), undefined);
});

test("a unit of a pane that was opened anew is told by its new name", () => {
  const { panes, filler } = bothSides();
  for (let window = 0; window < 3 * PANES; window++) {
    const first = window * PANE_UNITS;
    const pane = panes.open(first, first + PANE_UNITS);
    panes.want(pane, first);
    assert.equal(panes.stateOf(pane, first + 1), WANTED);
    assert.equal(filler.claim()?.unit, first + 1);
    filler.end(panes.slotOf(pane, first + 1), THERE);
  }
});

test("who has come to a pane that was opened ahead keeps it, whatever is opened then", () => {
  const { panes } = bothSides();
  const ahead = panes.open(0, 4);
  ahead.isAhead = true;
  for (let window = 1; window < PANES; window++) panes.open(10 * window, 10 * window + 4);
  panes.enter(ahead);
  assert.notEqual(panes.open(4, 8).index, ahead.index);
  assert.equal(panes.paneOf(1), ahead);
});
