// Panes: memory for units that lie side by side in the image, which two threads fill. The one that serves opens a pane
// around a fault, verifies the unit of the fault, and leaves the others to the one that fetches, on another CPU.
//
//   pane 0   [ 8 there ][ 9 there ][ 10 taken ][ 11 wanted ]     around a fault in unit 8
//   pane 1   [12 wanted][13 wanted][ 14 wanted ][15 wanted ]     what lies behind it, once somebody goes in order
//
//            ┌──────────── takeBack ──────────┐
//   OURS ── want ──▶ WANTED ── claim ──▶ TAKEN ── end ──▶ THERE, ZERO, FAILED ── open, another time ──▶ OURS
//
// Each unit has a word for its state, and whoever changes it says thereby whose its memory is: that of a unit which is
// TAKEN is the other thread's until it ends, whatever becomes of the fault. Bytes are verified before they are THERE.
// The other thread takes one unit at a time, so of two panes one is always free; nobody here has to wait for it.

/** LIMIT: panes of a source: around a fault, ahead of it, and one with a unit in it that is still the other thread's. */
export const PANES = 3;
/** LIMIT: units of a pane. */
export const PANE_UNITS = 4;
/** LIMIT: bytes of a pane, unless a unit has more: a tenth of a millisecond's work. */
const PANE_BYTES = 256 * 1024;

/** How many units a window of this source has at most. */
export function paneUnits(unitBytes: number): number {
  return Math.min(PANE_UNITS, Math.max(1, Math.floor(PANE_BYTES / unitBytes)));
}

export const UNIT_STATE = { OURS: 0, WANTED: 1, TAKEN: 2, THERE: 3, ZERO: 4, FAILED: 5 } as const;
export type UnitEnd = typeof UNIT_STATE.THERE | typeof UNIT_STATE.ZERO | typeof UNIT_STATE.FAILED;

/** Of each pane: its first unit, the place from which its units are wanted, how urgent it is, and its units' states. */
const WORD = { FIRST: 0, FROM: 1, RANK: 2, STATES: 4 } as const;
const PANE_WORDS = 8;
/** Behind all panes: whether the other thread looks for what is wanted. */
const LISTENING = PANES * PANE_WORDS;

/** What lies ahead comes after all that surrounds a fault. */
const RANK_AHEAD = 0;

export function makePaneWords(): Int32Array {
  return new Int32Array(new SharedArrayBuffer((LISTENING + 1) * Int32Array.BYTES_PER_ELEMENT));
}

/** A pane as the serving thread has it. */
export interface Pane {
  readonly index: number;
  /** Units [first, until); none: it is not open. */
  first: number;
  until: number;
  /** It was opened ahead of the guest, which has not come to it yet. */
  isAhead: boolean;
}

/** The serving thread's side. */
export class Panes {
  readonly #words: Int32Array;
  /** The one that somebody came to last at the end. */
  readonly #panes: Pane[];
  #rank = RANK_AHEAD;

  constructor(words: Int32Array) {
    this.#words = words;
    this.#panes = Array.from({ length: PANES }, (_, index) => ({
      index,
      first: 0,
      until: 0,
      isAhead: false,
    }));
  }

  /** Whether the other thread looks for what is wanted. */
  get isHeard(): boolean {
    return Atomics.load(this.#words, LISTENING) !== 0;
  }

  paneOf(unit: number): Pane | undefined {
    for (let at = PANES - 1; at >= 0; at--) {
      const pane = this.#panes[at]!;
      if (unit >= pane.first && unit < pane.until) return pane;
    }
    return undefined;
  }

  /** The pane that has a unit's bytes. */
  paneWith(unit: number): Pane | undefined {
    const pane = this.paneOf(unit);
    return pane !== undefined && this.stateOf(pane, unit) === UNIT_STATE.THERE ? pane : undefined;
  }

  stateOf(pane: Pane, unit: number): number {
    return Atomics.load(this.#words, wordOf(pane, unit));
  }

  /** Whether what lies in a slot is the other thread's. */
  isTaken(slot: number): boolean {
    return Atomics.load(this.#words, wordOfSlot(slot)) === UNIT_STATE.TAKEN;
  }

  /** Which place of all in the memory a unit has. */
  slotOf(pane: Pane, unit: number): number {
    return pane.index * PANE_UNITS + unit - pane.first;
  }

  /** Opens a pane for units [first, until), in the place of one that was opened long ago; all its units are ours. */
  open(first: number, until: number): Pane {
    const at = this.#panes.findIndex((pane) => this.#vacate(pane));
    const [pane] = this.#panes.splice(at, 1) as [Pane];
    this.#panes.push(pane);
    pane.first = first;
    pane.until = until;
    pane.isAhead = false;
    this.#words[pane.index * PANE_WORDS + WORD.FIRST] = first;
    for (let unit = first; unit < until; unit++) this.set(pane, unit, UNIT_STATE.OURS);
    return pane;
  }

  /** Leaves the units of a pane that are ours to the other thread, first those behind `unit`, then those before it. */
  want(pane: Pane, unit: number): void {
    const at = pane.index * PANE_WORDS;
    this.#words[at + WORD.FROM] = unit - pane.first;
    this.#words[at + WORD.RANK] = pane.isAhead ? RANK_AHEAD : ++this.#rank;
    for (let each = pane.first; each < pane.until; each++) {
      if (each !== unit || pane.isAhead) this.#change(pane, each, UNIT_STATE.OURS, UNIT_STATE.WANTED);
    }
  }

  /** The guest has come to a pane that was opened ahead of it. */
  enter(pane: Pane): void {
    pane.isAhead = false;
    // The next one is about to be opened: not in its place.
    this.#panes.splice(this.#panes.indexOf(pane), 1);
    this.#panes.push(pane);
    Atomics.store(this.#words, pane.index * PANE_WORDS + WORD.RANK, ++this.#rank);
  }

  /** Makes a unit ours again if nobody has begun with it; answers its state. */
  takeBack(pane: Pane, unit: number): number {
    this.#change(pane, unit, UNIT_STATE.WANTED, UNIT_STATE.OURS);
    return this.stateOf(pane, unit);
  }

  /** Of a unit that is ours. */
  set(pane: Pane, unit: number, state: number): void {
    Atomics.store(this.#words, wordOf(pane, unit), state);
  }

  /** Nothing is found in this pane any more, and nothing wanted of it. */
  forget(pane: Pane): void {
    pane.until = pane.first;
    this.#vacate(pane);
  }

  /** Whether all of a pane is ours now: a unit that is being written to keeps its pane. */
  #vacate({ index }: Pane): boolean {
    const from = index * PANE_WORDS + WORD.STATES;
    let isFree = true;
    for (let word = from; word < from + PANE_UNITS; word++) {
      const state = Atomics.compareExchange(this.#words, word, UNIT_STATE.WANTED, UNIT_STATE.OURS);
      if (state === UNIT_STATE.TAKEN) isFree = false;
    }
    return isFree;
  }

  #change(pane: Pane, unit: number, from: number, to: number): void {
    Atomics.compareExchange(this.#words, wordOf(pane, unit), from, to);
  }
}

/** Fills a slot with a unit, verified; it may throw. */
export type ReadUnit = (unit: number, slot: number) => "bytes" | "zero" | undefined;

/** A unit that is wanted, and where it goes. */
export interface Claimed {
  readonly slot: number;
  readonly unit: number;
}

/** The side of the thread that fetches, of panes as of what lies ahead. */
export abstract class UnitFiller {
  protected readonly words: Int32Array;
  readonly #read: ReadUnit;

  constructor(words: Int32Array, read: ReadUnit) {
    this.words = words;
    this.#read = read;
  }

  /** Takes the unit that is wanted most, whose memory is ours then until its `end`; undefined: none is. */
  abstract claim(): Claimed | undefined;

  abstract end(slot: number, state: UnitEnd): void;

  /** Fills the unit that is wanted most; false: none is. */
  fill(): boolean {
    const claimed = this.claim();
    if (claimed === undefined) return false;
    const { slot, unit } = claimed;
    this.end(slot, this.#endOf(unit, slot));
    return true;
  }

  #endOf(unit: number, slot: number): UnitEnd {
    try {
      const result = this.#read(unit, slot);
      if (result !== undefined) return result === "zero" ? UNIT_STATE.ZERO : UNIT_STATE.THERE;
    } catch {
      // Whoever needs it reads it again, and hears of it.
    }
    return UNIT_STATE.FAILED;
  }
}

export class PaneFiller extends UnitFiller {
  /** Whether it looks for what is wanted from now on. */
  set listens(on: boolean) {
    Atomics.store(this.words, LISTENING, on ? 1 : 0);
  }

  claim(): Claimed | undefined {
    for (;;) {
      const slot = this.#next();
      if (slot < 0) return undefined;
      const { WANTED, TAKEN } = UNIT_STATE;
      const state = Atomics.compareExchange(this.words, wordOfSlot(slot), WANTED, TAKEN);
      // While a unit of it is taken a pane stays where it is.
      const first = this.words[Math.floor(slot / PANE_UNITS) * PANE_WORDS + WORD.FIRST]!;
      if (state === WANTED) return { slot, unit: first + (slot % PANE_UNITS) };
    }
  }

  end(slot: number, state: UnitEnd): void {
    Atomics.store(this.words, wordOfSlot(slot), state);
  }

  #next(): number {
    let best = -1;
    let bestRank = -1;
    for (let pane = 0; pane < PANES; pane++) {
      const rank = Atomics.load(this.words, pane * PANE_WORDS + WORD.RANK);
      if (rank <= bestRank) continue;
      const slot = this.#nextIn(pane);
      if (slot < 0) continue;
      best = slot;
      bestRank = rank;
    }
    return best;
  }

  #nextIn(pane: number): number {
    const from = this.words[pane * PANE_WORDS + WORD.FROM]!;
    for (let index = from; index < PANE_UNITS; index++)
      if (this.#isWanted(pane, index)) return pane * PANE_UNITS + index;
    for (let index = from - 1; index >= 0; index--)
      if (this.#isWanted(pane, index)) return pane * PANE_UNITS + index;
    return -1;
  }

  #isWanted(pane: number, index: number): boolean {
    return Atomics.load(this.words, pane * PANE_WORDS + WORD.STATES + index) === UNIT_STATE.WANTED;
  }
}

function wordOf(pane: Pane, unit: number): number {
  return pane.index * PANE_WORDS + WORD.STATES + unit - pane.first;
}

function wordOfSlot(slot: number): number {
  return Math.floor(slot / PANE_UNITS) * PANE_WORDS + WORD.STATES + (slot % PANE_UNITS);
}
