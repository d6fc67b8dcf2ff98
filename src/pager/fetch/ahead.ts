// What lies ahead of a guest, unit by unit, in a ring of memory that two threads fill: the one that fetches takes what is
// wanted in its order, and the one that serves, when a fault has come to a unit that the other one is at, does the next ones
// meanwhile. So both are at work for as long as somebody waits, and neither waits for the other.
//
//   slots      [ 7 there ][ 8 taken ][ 9 ours ][10 wanted ][11 wanted ]
//                  │          ▲ fault     ▲ read meanwhile, here
//                  └ to be installed
//
//   OURS ── want ──▶ WANTED ── claim ──▶ TAKEN ── end ──▶ THERE, ZERO, FAILED ── free ──▶ OURS
//                       └──── take back ────▶ OURS
//
// Whoever changes a slot's state says thereby whose its memory is, as with panes (panes.ts). No message is sent for a unit:
// that would cost a third of what there is to do for it.

import type { DirectReader } from "./direct.ts";
import { type Claimed, type ReadUnit, UNIT_STATE, type UnitEnd, UnitFiller } from "./panes.ts";

/** LIMIT: units that are there or on their way ahead of guests: more than the widest run brings along. */
const AHEAD_UNITS_MAX = 40;
/** LIMIT: bytes of them, but two units. */
const AHEAD_BYTES_MAX = 4 * 1024 * 1024;

/** How many units a source has memory for, ahead of its guests. */
export function aheadUnits(unitBytes: number): number {
  return Math.min(AHEAD_UNITS_MAX, Math.max(2, Math.floor(AHEAD_BYTES_MAX / unitBytes)));
}

/** The first word says whether the other thread looks for what is wanted; of each slot follow its unit and its state. */
const LISTENING = 0;
const HEADER_WORDS = 2;
const SLOT_WORDS = 2;
const WORD = { UNIT: 0, STATE: 1 } as const;

export function makeAheadWords(slots: number): Int32Array {
  return new Int32Array(
    new SharedArrayBuffer((HEADER_WORDS + slots * SLOT_WORDS) * Int32Array.BYTES_PER_ELEMENT),
  );
}

function slotsOf(words: Int32Array): number {
  return (words.length - HEADER_WORDS) / SLOT_WORDS;
}

function stateWord(slot: number): number {
  return HEADER_WORDS + slot * SLOT_WORDS + WORD.STATE;
}

/** The first slot from one on, all around, whose unit is wanted, and takes it: it is the caller's then; -1: none is. */
function takeNext(words: Int32Array, from: number, state: number): number {
  const { WANTED } = UNIT_STATE;
  const slots = slotsOf(words);
  for (let step = 0; step < slots; step++) {
    const slot = (from + step) % slots;
    const word = stateWord(slot);
    if (Atomics.load(words, word) !== WANTED) continue;
    if (Atomics.compareExchange(words, word, WANTED, state) === WANTED) return slot;
  }
  return -1;
}

export interface UnitsAheadOptions {
  readonly words: Int32Array;
  readonly reader: DirectReader;
  /** The place of the first slot in the memory of the reader. */
  readonly firstSlot: number;
  readonly unitBytes: number;
  /** Waits until it is so, or a moment is over; what there is to do meanwhile is to be done until there is no more. */
  readonly await: (isSo: () => boolean, meanwhile?: () => boolean) => void;
}

/** The serving thread's side. */
export class UnitsAhead {
  readonly #options: UnitsAheadOptions;
  readonly #words: Int32Array;
  readonly #slots: number;
  /** By unit. */
  readonly #held = new Map<number, number>();
  /** The slots in use are those from `oldest` on, all around, of which some have been freed. */
  #oldest = 0;
  #used = 0;
  /** What the other thread did not end in time: it is asked for nothing until it has; -1: none. */
  #lateSlot = -1;

  constructor(options: UnitsAheadOptions) {
    this.#options = options;
    this.#words = options.words;
    this.#slots = slotsOf(options.words);
  }

  /** Whether the other thread looks for what is wanted. */
  get isHeard(): boolean {
    if (this.#lateSlot >= 0 && this.#stateOf(this.#lateSlot) === UNIT_STATE.TAKEN) return false;
    this.#lateSlot = -1;
    return Atomics.load(this.#words, LISTENING) !== 0;
  }

  /** Whether a unit is there, or on its way. */
  holds(unit: number): boolean {
    return this.#held.has(unit);
  }

  has(unit: number): boolean {
    const slot = this.#held.get(unit);
    return slot !== undefined && this.#stateOf(slot) === UNIT_STATE.THERE;
  }

  /** Of a unit that it has. */
  addressOf(unit: number): number {
    const { reader, firstSlot, unitBytes } = this.#options;
    return reader.address + (firstSlot + this.#held.get(unit)!) * unitBytes;
  }

  /** Leaves a unit to the other thread, behind those that are wanted already; false: no more is taken at present. */
  want(unit: number): boolean {
    if (this.#held.has(unit)) return true;
    if (this.#used === this.#slots) return false;
    const slot = (this.#oldest + this.#used) % this.#slots;
    this.#used++;
    this.#held.set(unit, slot);
    this.#words[HEADER_WORDS + slot * SLOT_WORDS + WORD.UNIT] = unit;
    this.#set(slot, UNIT_STATE.WANTED);
    return true;
  }

  /**
   * Has a unit that it holds read for a fault, here if nobody has begun with it. Undefined: it can't be read so, or the
   * other thread does not come to an end with it.
   */
  read(unit: number): "bytes" | "zero" | undefined {
    const slot = this.#held.get(unit)!;
    const { WANTED, OURS, TAKEN, THERE, ZERO } = UNIT_STATE;
    Atomics.compareExchange(this.#words, stateWord(slot), WANTED, OURS);
    if (this.#stateOf(slot) === TAKEN) {
      this.#options.await(
        () => this.#stateOf(slot) !== TAKEN,
        () => this.#help(slot),
      );
    }
    const state = this.#stateOf(slot);
    if (state === TAKEN) {
      this.#lateSlot = slot;
      return undefined;
    }
    if (state === THERE) return "bytes";
    if (state === ZERO) return "zero";
    return this.#readOwn(slot, unit);
  }

  /** The unit that was wanted first of those that have ended; undefined: none has. */
  nextEnded(): { readonly unit: number; readonly state: UnitEnd } | undefined {
    for (const [unit, slot] of this.#held) {
      const state = this.#stateOf(slot);
      if (state >= UNIT_STATE.THERE) return { unit, state: state as UnitEnd };
    }
    return undefined;
  }

  /** Lets go of a unit that has ended: its memory may be the next one's. */
  free(unit: number): void {
    this.#set(this.#held.get(unit)!, UNIT_STATE.OURS);
    this.#held.delete(unit);
    while (this.#used > 0 && this.#isFree(this.#oldest)) {
      this.#oldest = (this.#oldest + 1) % this.#slots;
      this.#used--;
    }
  }

  #isFree(slot: number): boolean {
    const unit = this.#words[HEADER_WORDS + slot * SLOT_WORDS + WORD.UNIT]!;
    return this.#held.get(unit) !== slot;
  }

  /** Reads the next unit that is wanted; false: none is, or it would have to be waited for. */
  #help(from: number): boolean {
    const slot = takeNext(this.#words, from, UNIT_STATE.OURS);
    if (slot < 0) return false;
    const unit = this.#words[HEADER_WORDS + slot * SLOT_WORDS + WORD.UNIT]!;
    if (this.#options.reader.isCached(unit) === false) {
      this.#set(slot, UNIT_STATE.WANTED);
      return false;
    }
    this.#readOwn(slot, unit);
    return true;
  }

  #readOwn(slot: number, unit: number): "bytes" | "zero" | undefined {
    const { reader, firstSlot } = this.#options;
    const units = reader.read(unit, 1, firstSlot + slot);
    const { THERE, ZERO, FAILED } = UNIT_STATE;
    this.#set(slot, units === undefined ? FAILED : units === 1 ? THERE : ZERO);
    return units === undefined ? undefined : units === 1 ? "bytes" : "zero";
  }

  #stateOf(slot: number): number {
    return Atomics.load(this.#words, stateWord(slot));
  }

  #set(slot: number, state: number): void {
    Atomics.store(this.#words, stateWord(slot), state);
  }
}

/** The side of the thread that fetches: it takes first what was wanted first. */
export class AheadFiller extends UnitFiller {
  readonly #slots: number;
  #next = 0;

  constructor(words: Int32Array, read: ReadUnit) {
    super(words, read);
    this.#slots = slotsOf(words);
  }

  /** Whether it looks for what is wanted from now on. */
  set listens(on: boolean) {
    Atomics.store(this.words, LISTENING, on ? 1 : 0);
  }

  claim(): Claimed | undefined {
    const slot = takeNext(this.words, this.#next, UNIT_STATE.TAKEN);
    if (slot < 0) return undefined;
    this.#next = (slot + 1) % this.#slots;
    return { slot, unit: this.words[HEADER_WORDS + slot * SLOT_WORDS + WORD.UNIT]! };
  }

  end(slot: number, state: UnitEnd): void {
    Atomics.store(this.words, stateWord(slot), state);
  }
}
