// The machine that decides what is fetched, event by event. That it holds in any order of them is test/sim's business.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FetchMachine, type MachineOptions, RANK, WANTED_MAX } from "../../src/pager/fetch/machine.ts";

const DEFAULTS: MachineOptions = {
  slots: 8,
  fetchesMax: 4,
  deadlineMs: 1000,
  expires: true,
  unitBytes: 65_536,
  runMax: 1,
  backgroundRate: Number.POSITIVE_INFINITY,
};

function machineWith(options: Partial<MachineOptions> = {}): FetchMachine {
  return new FetchMachine({ ...DEFAULTS, ...options });
}

/** What it wants done, a line an action. */
function told(machine: FetchMachine): string[] {
  return machine.takeActions().map((action) => {
    if (action.kind === "fetch") return `fetch ${action.unit} #${action.ticket}`;
    if (action.kind === "cancel") return `cancel #${action.ticket}`;
    const who = "waiters" in action ? action.waiters.join(",") : action.waiter;
    return `${action.kind} ${action.unit} for ${who}`;
  });
}

test("faults at one unit share a fetch, and are served together", () => {
  const machine = machineWith();
  machine.need(1, 7, 0, 0);
  machine.need(2, 7, 1, 1);
  assert.deepEqual(told(machine), ["fetch 7 #1"]);
  machine.ended(1, "bytes", 2);
  assert.deepEqual(told(machine), ["serve 7 for 1,2"]);
  assert.ok(machine.slotOf(7) >= 0);
  assert.equal(machine.waiting, 0);
});

test("faults go first, then what lies ahead, then the background; a quarter of the places is kept for faults", () => {
  const machine = machineWith();
  for (const unit of [10, 11, 12]) machine.want(unit, RANK.BACKGROUND, 0);
  machine.want(20, RANK.AHEAD, 0);
  assert.deepEqual(told(machine), ["fetch 10 #1", "fetch 11 #2", "fetch 12 #3"]);
  machine.want(13, RANK.BACKGROUND, 0);
  for (const [index, unit] of [30, 31, 32].entries()) machine.need(index, unit, 0, 0);
  assert.deepEqual(told(machine), ["fetch 30 #4"]);
  machine.ended(1, "bytes", 1);
  assert.deepEqual(told(machine), ["serve 10 for ", "fetch 31 #5"]);
  machine.ended(4, "bytes", 2);
  assert.deepEqual(told(machine), ["serve 30 for 0", "fetch 32 #6"]);
  machine.ended(5, "bytes", 3);
  assert.deepEqual(told(machine), ["serve 31 for 1", "fetch 20 #7"]);
  machine.ended(6, "bytes", 4);
  assert.deepEqual(told(machine), ["serve 32 for 2"], "the last place is for a fault");
});

test("a fault raises what was wanted for later", () => {
  const machine = machineWith({ fetchesMax: 1 });
  for (const unit of [1, 2, 3]) machine.want(unit, RANK.BACKGROUND, 0);
  assert.deepEqual(told(machine), ["fetch 1 #1"]);
  machine.need(9, 3, 0, 0);
  machine.ended(1, "bytes", 1);
  assert.deepEqual(told(machine), ["serve 1 for ", "fetch 3 #2"]);
});

test("at its deadline a waiter is let go of, its fetch cancelled; its slot is taken again only when that has ended", () => {
  const machine = machineWith({ slots: 3, fetchesMax: 1 });
  machine.need(1, 5, 0, 0);
  told(machine);
  assert.equal(machine.nextTickMs(10), 1000);
  machine.tick(999);
  assert.deepEqual(told(machine), []);
  machine.tick(1000);
  assert.deepEqual(told(machine), ["cancel #1", "expire 5 for 1"]);
  machine.need(2, 6, 1000, 1000);
  assert.deepEqual(told(machine), [], "the only place is still taken");
  machine.ended(1, "bytes", 1100);
  assert.deepEqual(told(machine), ["fetch 6 #2"]);
  assert.equal(machine.slotOf(5), -1, "late bytes are not kept");
});

test("without expiry the owner is told once, and the waiter is served late", () => {
  const machine = machineWith({ expires: false });
  machine.need(1, 5, 0, 0);
  told(machine);
  machine.tick(1000);
  assert.deepEqual(told(machine), ["overdue 5 for 1"]);
  machine.tick(2000);
  assert.deepEqual(told(machine), []);
  machine.ended(1, "bytes", 3000);
  assert.deepEqual(told(machine), ["serve 5 for 1"]);
});

test("a withdrawn waiter ends nothing for the others at its unit", () => {
  const machine = machineWith();
  machine.need(1, 5, 0, 0);
  machine.need(2, 5, 0, 0);
  machine.withdraw(1, 1);
  machine.ended(1, "failed", 2);
  assert.deepEqual(told(machine), ["fetch 5 #1", "refuse 5 for 2"]);
});

test("the background keeps to its rate, and says when it goes on", () => {
  const machine = machineWith({ backgroundRate: 65_536 * 10 });
  for (let unit = 0; unit < 4; unit++) machine.want(unit, RANK.BACKGROUND, 0);
  assert.deepEqual(told(machine), ["fetch 0 #1"]);
  machine.ended(1, "bytes", 1);
  told(machine);
  assert.equal(machine.nextTickMs(1), 100);
  machine.tick(100);
  assert.deepEqual(told(machine), ["fetch 1 #2"]);
});

test("what nobody waits for is bounded", () => {
  const machine = machineWith();
  let taken = 0;
  while (machine.want(taken, RANK.BACKGROUND, 0)) taken++;
  assert.equal(taken, WANTED_MAX + 3);
  machine.drop(RANK.BACKGROUND, 0);
  assert.equal(machine.bounds.queued, 0);
});

test("slots are reused from the unit that was used longest ago", () => {
  const machine = machineWith({ slots: 3, fetchesMax: 1 });
  for (const unit of [1, 2, 3]) {
    machine.need(unit, unit, 0, 0);
    machine.ended(unit, "bytes", 0);
  }
  assert.ok(machine.slotOf(1) >= 0);
  machine.need(4, 4, 0, 0);
  machine.ended(4, "bytes", 0);
  assert.equal(machine.slotOf(2), -1);
  assert.ok(machine.slotOf(1) >= 0 && machine.slotOf(3) >= 0 && machine.slotOf(4) >= 0);
});

/** Units of each fetch, and the slots that they are to fill. */
function runs(machine: FetchMachine): string[] {
  return machine
    .takeActions()
    .flatMap((action) =>
      action.kind === "fetch" ? [`${action.unit}+${action.count} into ${action.slot} #${action.ticket}`] : [],
    );
}

function machineOfRuns(): FetchMachine {
  const machine = machineWith({ slots: 20, fetchesMax: 16, runMax: 4 });
  for (let unit = 0; unit < 12; unit++) machine.want(unit, RANK.BACKGROUND, 0);
  return machine;
}

test("units side by side are one fetch into slots side by side, and served as one", () => {
  const machine = machineOfRuns();
  assert.deepEqual(runs(machine), ["0+4 into 0 #1", "4+4 into 4 #5", "8+2 into 8 #9"]);
  machine.ended(5, "bytes", 1, 3);
  assert.deepEqual(machine.takeActions()[0], { kind: "serve", unit: 4, count: 3, waiters: [] });
  assert.deepEqual([machine.stagedUntil(3), machine.stagedUntil(4), machine.stagedUntil(6)], [3, 7, 7]);
  assert.equal(machine.slotOf(6), machine.slotOf(4) + 2);
});

test("the background goes on when it has places for a run", () => {
  const machine = machineOfRuns();
  runs(machine);
  for (let unit = 12; unit < 20; unit++) machine.want(unit, RANK.BACKGROUND, 0);
  assert.deepEqual(runs(machine), [], "there are two places, and units for both");
  assert.equal(machine.nextTickMs(1), Number.POSITIVE_INFINITY);
  machine.ended(1, "bytes", 1);
  assert.deepEqual(runs(machine), ["10+3 into 10 #11"]);
});

test("who waits for a unit of a run is served by itself", () => {
  const machine = machineOfRuns();
  machine.need(1, 5, 0, 0);
  runs(machine);
  machine.ended(5, "bytes", 1, 4);
  assert.deepEqual(told(machine).slice(0, 3), ["serve 4 for ", "serve 5 for 1", "serve 6 for "]);
});

test("a run that is not wanted any more ends unit by unit, and its slots are had again when it has", () => {
  const machine = machineOfRuns();
  runs(machine);
  machine.drop(RANK.BACKGROUND, 0);
  assert.equal(machine.takeActions().filter(({ kind }) => kind === "cancel").length, 10);
  machine.ended(1, "bytes", 1, 10);
  assert.equal(machine.stagedUntil(0), 0);
  assert.equal(machine.bounds.slots, 20);
  assert.equal(machine.bounds.low, 0);
});
