// The windows around faults in what has to be verified: the unit of a fault is read by the thread that serves, at once; those
// around it meanwhile by the one that fetches, if it has nothing else to do, and so is the next window where a guest
// goes in order. What the other one has not begun with when a fault comes to it is taken back from it.

import { nextClear } from "../../base/bitmap.ts";
import { planRun } from "../plan.ts";
import { type Part, untilPage } from "../regions.ts";
import type { UnitsAhead } from "./ahead.ts";
import type { DirectReader } from "./direct.ts";
import type { FaultWindow } from "./direct-window.ts";
import { type Pane, Panes, UNIT_STATE } from "./panes.ts";
import { pagesWithin, unitOf } from "./unit-pages.ts";

export interface VerifiedWindowOptions {
  readonly reader: DirectReader;
  readonly unitBytes: number;
  /** Whether a unit may be read: it is no hole, and nobody fetches it. */
  readonly isWanted: (unit: number) => boolean;
  /** The words of the panes. */
  readonly panes: Int32Array;
  /** What is read unit by unit ahead of a guest, if anything is. */
  readonly ahead?: UnitsAhead | undefined;
  /** Tells the other thread to look for what is wanted. */
  readonly ring: () => void;
  /** Waits until it is so, but no longer than a unit may take. */
  readonly await: (isSo: () => boolean) => void;
}

export class VerifiedWindow implements FaultWindow {
  readonly isPlain = false;
  readonly #options: VerifiedWindowOptions;
  readonly #panes: Panes;
  readonly #run = { first: 0, until: 0 };
  /** Whose units are wanted ahead. */
  #part: Part | undefined;
  /** Where the last window ended: who faults there goes in order. */
  #lastUntil = -1;
  /** The slot of what the other thread did not end in time: it is asked for nothing until it has; -1: none. */
  #lateSlot = -1;

  constructor(options: VerifiedWindowOptions) {
    this.#options = options;
    this.#panes = new Panes(options.panes);
  }

  isCached(unit: number): boolean | undefined {
    return this.#options.reader.isCached(unit);
  }

  has(unit: number): boolean {
    return this.#panes.paneWith(unit) !== undefined || this.#options.ahead?.has(unit) === true;
  }

  untilOf(unit: number): number {
    const pane = this.#panes.paneWith(unit);
    let until = unit + 1;
    while (pane !== undefined && until < pane.until && this.#panes.stateOf(pane, until) === UNIT_STATE.THERE)
      until++;
    return until;
  }

  firstOf(unit: number): number {
    const pane = this.#panes.paneWith(unit);
    let first = unit;
    while (
      pane !== undefined &&
      first > pane.first &&
      this.#panes.stateOf(pane, first - 1) === UNIT_STATE.THERE
    )
      first--;
    return first;
  }

  addressOf(unit: number): number {
    const pane = this.#panes.paneWith(unit);
    if (pane === undefined) return this.#options.ahead!.addressOf(unit);
    if (pane.isAhead) this.#enter(pane);
    return this.#options.reader.address + this.#panes.slotOf(pane, unit) * this.#options.unitBytes;
  }

  read(part: Part, page: number, asks: boolean): "bytes" | "zero" | undefined {
    const unit = unitOf(part, page, this.#options.unitBytes);
    const pane = this.#panes.paneOf(unit);
    if (pane === undefined) {
      const { ahead } = this.#options;
      if (!ahead?.holds(unit)) return this.#readAround(part, page, unit, asks);
      const result = ahead.read(unit);
      // The other thread does not come to an end with it: then we do as well without.
      return result ?? this.#readOwn(this.#panes.open(unit, unit + 1), unit);
    }
    if (pane.isAhead) this.#enter(pane);
    let state = this.#panes.takeBack(pane, unit);
    if (state === UNIT_STATE.TAKEN) {
      this.#options.await(() => this.#panes.stateOf(pane, unit) !== UNIT_STATE.TAKEN);
      state = this.#panes.takeBack(pane, unit);
    }
    if (state === UNIT_STATE.THERE) return "bytes";
    if (state === UNIT_STATE.ZERO) return "zero";
    if (state !== UNIT_STATE.TAKEN) return this.#readOwn(pane, unit);
    // Its disk is slow, or its CPU busy: then we do as well without it.
    this.#lateSlot = this.#panes.slotOf(pane, unit);
    this.#panes.forget(pane);
    return this.#readOwn(this.#panes.open(unit, unit + 1), unit);
  }

  #readAround(part: Part, page: number, unit: number, asks: boolean): "bytes" | "zero" | undefined {
    const { first, until } = this.#around(part, page, unit);
    const pane = this.#panes.open(first, until);
    const isNext = first === this.#lastUntil;
    this.#lastUntil = until;
    this.#part = part;
    const isHelped = asks && this.#isHelped;
    if (isHelped && (isNext || until - first > 1)) {
      this.#panes.want(pane, unit);
      if (isNext) this.#openAhead(part, until);
      this.#options.ring();
    }
    const result = this.#readOwn(pane, unit);
    for (let each = first; !isHelped && each < until; each++) if (each !== unit) this.#readOwn(pane, each);
    return result;
  }

  /** Reads a unit that is ours; undefined: it can't be read so. */
  #readOwn(pane: Pane, unit: number): "bytes" | "zero" | undefined {
    const panes = this.#panes;
    const units = this.#options.reader.read(unit, 1, panes.slotOf(pane, unit));
    const { THERE, ZERO, OURS } = UNIT_STATE;
    panes.set(pane, unit, units === undefined ? OURS : units === 1 ? THERE : ZERO);
    return units === undefined ? undefined : units === 1 ? "bytes" : "zero";
  }

  get #isHelped(): boolean {
    if (this.#lateSlot >= 0 && this.#panes.isTaken(this.#lateSlot)) return false;
    this.#lateSlot = -1;
    return this.#panes.isHeard;
  }

  /** A guest that goes in order has come to what was opened ahead of it: now the next one is. */
  #enter(pane: Pane): void {
    this.#panes.enter(pane);
    this.#lastUntil = pane.until;
    if (this.#part === undefined || !this.#isHelped) return;
    this.#openAhead(this.#part, pane.until);
    this.#options.ring();
  }

  #openAhead(part: Part, unit: number): void {
    const pages = pagesWithin(part, unit, this.#options.unitBytes);
    const page = nextClear(part.region.resident, pages.first, pages.until);
    if (page >= pages.until || !this.#isFree(unit)) return;
    const { first, until } = this.#around(part, page, unit);
    const pane = this.#panes.open(first, until);
    pane.isAhead = true;
    this.#panes.want(pane, first);
  }

  /** Units around one that may be read: as far as the window of a page goes. */
  #around(part: Part, page: number, unit: number): { first: number; until: number } {
    const { region } = part;
    const { unitBytes, reader } = this.#options;
    const { unitsMax } = reader;
    const run = this.#run;
    planRun(page, part.firstPage, untilPage(part), region.windowPages, region.resident, run);
    const lowest = unitOf(part, run.first, unitBytes);
    const highest = unitOf(part, run.until - 1, unitBytes);
    run.first = unit;
    run.until = unit + 1;
    while (run.first > lowest && run.until - run.first < unitsMax && this.#isFree(run.first - 1)) run.first--;
    while (run.until <= highest && run.until - run.first < unitsMax && this.#isFree(run.until)) run.until++;
    return run;
  }

  #isFree(unit: number): boolean {
    const { isWanted, ahead } = this.#options;
    return isWanted(unit) && this.#panes.paneOf(unit) === undefined && !ahead?.holds(unit);
  }
}
