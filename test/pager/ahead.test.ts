// The ring of what lies ahead: whose a unit is at each moment, in which order units are taken, and that nobody waits idly.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../src/base/random.ts";
import { AheadFiller, aheadUnits, makeAheadWords, UnitsAhead } from "../../src/pager/fetch/ahead.ts";
import { UNIT_STATE } from "../../src/pager/fetch/panes.ts";

const UNIT_BYTES = 64 * 1024;
const SLOTS = 4;
const FIRST_SLOT = 12;
const ADDRESS = 0x1000_0000;
const { THERE, ZERO, FAILED } = UNIT_STATE;

interface SceneOptions {
  readonly holes?: readonly number[];
  /** Units that this thread can't read, and those that are on the disk. */
  readonly damaged?: readonly number[];
  readonly cold?: readonly number[];
  /** What the other thread does while it is waited for; answers whether it goes on being waited for. */
  readonly meanwhile?: (filler: AheadFiller) => void;
}

function scene({ holes = [], damaged = [], cold = [], meanwhile = () => undefined }: SceneOptions = {}) {
  const words = makeAheadWords(SLOTS);
  const filler = new AheadFiller(words, () => undefined);
  filler.listens = true;
  const read: { unit: number; slot: number }[] = [];
  const ahead = new UnitsAhead({
    words,
    reader: {
      address: ADDRESS,
      isPlain: false,
      unitsMax: 1,
      isCached: (unit) => !cold.includes(unit),
      read(unit, _count, slot) {
        read.push({ unit, slot });
        return damaged.includes(unit) ? undefined : holes.includes(unit) ? 0 : 1;
      },
    },
    firstSlot: FIRST_SLOT,
    unitBytes: UNIT_BYTES,
    await(isSo, work = () => false) {
      while (!isSo() && work());
      meanwhile(filler);
    },
  });
  return { words, filler, ahead, read, units: () => read.map(({ unit }) => unit) };
}

/** What has ended, in order, and is let go of. */
function ended(ahead: UnitsAhead): number[] {
  const units: number[] = [];
  for (let next = ahead.nextEnded(); next !== undefined; next = ahead.nextEnded()) {
    units.push(next.unit);
    ahead.free(next.unit);
  }
  return units;
}

test("units are taken in the order in which they were wanted, each once, and are somewhere else each", () => {
  const { ahead, filler } = scene();
  for (const unit of [7, 5, 9]) assert.ok(ahead.want(unit));
  assert.ok(ahead.want(5), "it is wanted already");
  const taken = [filler.claim()!, filler.claim()!, filler.claim()!];
  assert.deepEqual(
    taken.map(({ unit }) => unit),
    [7, 5, 9],
  );
  assert.equal(filler.claim(), undefined);
  assert.ok(ahead.holds(5) && !ahead.has(5));
  for (const { slot } of taken) filler.end(slot, THERE);
  const addresses = [7, 5, 9].map((unit) => ahead.addressOf(unit));
  assert.deepEqual(
    addresses,
    taken.map(({ slot }) => ADDRESS + (FIRST_SLOT + slot) * UNIT_BYTES),
  );
  assert.equal(new Set(addresses).size, 3);
});

test("no more is taken than there is memory for, until the first of it has been let go of", () => {
  const { ahead, filler } = scene();
  for (let unit = 0; unit < SLOTS; unit++) assert.ok(ahead.want(unit));
  assert.ok(!ahead.want(SLOTS));
  const first = filler.claim()!;
  filler.end(filler.claim()!.slot, THERE);
  assert.deepEqual(ended(ahead), [1]);
  assert.ok(
    !ahead.want(SLOTS),
    "what comes next has its place behind the last one, which is the first one's",
  );
  filler.end(first.slot, THERE);
  assert.deepEqual(ended(ahead), [0]);
  assert.ok(ahead.want(SLOTS) && ahead.want(SLOTS + 1) && !ahead.want(SLOTS + 2));
});

test("what nobody has begun with is read here; what the other one could not read as well", () => {
  const { ahead, filler, read, units } = scene({ holes: [3], damaged: [4] });
  for (const unit of [1, 2, 3, 4]) ahead.want(unit);
  const { slot } = filler.claim()!;
  assert.equal(ahead.read(2), "bytes");
  assert.equal(ahead.read(3), "zero");
  assert.equal(ahead.read(4), undefined);
  filler.end(slot, FAILED);
  assert.equal(ahead.read(1), "bytes");
  assert.deepEqual(units(), [2, 3, 4, 1]);
  assert.ok(
    read.every(({ unit, slot: at }) => unit > 2 || ahead.addressOf(unit) === ADDRESS + at * UNIT_BYTES),
  );
  assert.equal(filler.claim(), undefined);
});

test("a fault whose unit the other one is at does the next ones meanwhile, and finds its own there then", () => {
  let slot = -1;
  const { ahead, filler, units } = scene({ meanwhile: (other) => other.end(slot, THERE) });
  for (const unit of [1, 2, 3]) ahead.want(unit);
  slot = filler.claim()!.slot;
  assert.equal(ahead.read(1), "bytes");
  assert.deepEqual(units(), [2, 3], "those behind it, in their order");
  assert.deepEqual(ended(ahead), [1, 2, 3]);
});

test("nothing is read meanwhile for which a disk would have to be waited for: it is left to the other one", () => {
  const { ahead, filler, units } = scene({ cold: [2] });
  for (const unit of [1, 2, 3]) ahead.want(unit);
  filler.claim();
  assert.equal(ahead.read(1), undefined);
  assert.deepEqual(units(), []);
  assert.equal(filler.claim()?.unit, 2);
});

test("who does not come to an end is asked for nothing more until he has", () => {
  const { ahead, filler } = scene();
  ahead.want(1);
  const { slot } = filler.claim()!;
  assert.ok(ahead.isHeard);
  assert.equal(ahead.read(1), undefined);
  assert.ok(!ahead.isHeard);
  filler.end(slot, ZERO);
  assert.ok(ahead.isHeard);
  assert.equal(ahead.read(1), "zero");
  filler.listens = false;
  assert.ok(!ahead.isHeard);
});

test("the thread that fetches ends what it takes, whatever its reading comes to", () => {
  const words = makeAheadWords(SLOTS);
  const results = ["bytes", "zero", undefined] as const;
  const filler = new AheadFiller(words, (unit) => {
    if (unit === 3) throw new Error("a disk has failed");
    return results[unit];
  });
  const { reader, firstSlot, unitBytes } = {
    reader: undefined as never,
    firstSlot: 0,
    unitBytes: UNIT_BYTES,
  };
  const ahead = new UnitsAhead({ words, reader, firstSlot, unitBytes, await: () => undefined });
  const states: number[] = [];
  for (let unit = 0; unit < 4; unit++) ahead.want(unit);
  while (filler.fill());
  for (let next = ahead.nextEnded(); next !== undefined; next = ahead.nextEnded()) {
    states.push(next.state);
    ahead.free(next.unit);
  }
  assert.deepEqual(states, [THERE, ZERO, FAILED, FAILED]);
});

test("whatever both do, a unit is read by one of them, into memory that nobody else has", () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed} (SEED=${seed} repeats this run)`);
  const random = new Random(seed);
  const { ahead, filler, read } = scene();
  const taken = new Map<number, number>();
  const held = new Set<number>();
  let next = 0;
  for (let step = 0; step < 20_000; step++) {
    const choice = random.below(5);
    const before = read.length;
    if (choice === 0 && ahead.want(next)) held.add(next++);
    if (choice === 1) {
      const claimed = filler.claim();
      if (claimed !== undefined) {
        assert.ok(held.has(claimed.unit) && !taken.has(claimed.slot));
        taken.set(claimed.slot, claimed.unit);
      }
    }
    if (choice === 2) {
      for (const [slot] of taken) {
        taken.delete(slot);
        filler.end(slot, [THERE, ZERO, FAILED][random.below(3)]! as typeof THERE);
        break;
      }
    }
    if (choice === 3 && held.size > 0) ahead.read([...held][random.below(held.size)]!);
    if (choice === 4) for (const unit of ended(ahead)) assert.ok(held.delete(unit));
    for (const { unit, slot } of read.slice(before)) {
      assert.ok(
        held.has(unit) && !taken.has(slot - FIRST_SLOT),
        `unit ${unit} is read into another one's memory`,
      );
    }
    for (const unit of held) assert.ok(ahead.holds(unit));
  }
  assert.ok(next > 500, `${next} units`);
});

test("a source of huge units has memory for two of them, one of small ones for a long run", () => {
  assert.equal(aheadUnits(2 * 1024 * 1024), 2);
  assert.ok(aheadUnits(UNIT_BYTES) > 32);
});
