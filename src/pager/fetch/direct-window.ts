// What was read of a plain file at the last fault: units that lie side by side, the fault's own among them.

import { planRun } from "../plan.ts";
import { type Part, untilPage } from "../regions.ts";
import type { DirectReader } from "./direct.ts";
import { unitOf } from "./unit-pages.ts";

/** What has been read around faults, and lies in memory in pieces. */
export interface FaultWindow {
  readonly isPlain: boolean;
  /** Whether a unit is read without waiting for a disk; undefined: that is not known. */
  isCached(unit: number): boolean | undefined;
  has(unit: number): boolean;
  /** The units that lie in one piece with one that it has, as far as it has them. */
  firstOf(unit: number): number;
  untilOf(unit: number): number;
  /** Where a unit is that it has. */
  addressOf(unit: number): number;
  /**
   * Reads the unit of a page, and with it those of its window; with `asks` another thread may do a part of that. Answers what
   * the unit is; undefined: it can't be read so.
   */
  read(part: Part, page: number, asks: boolean): "bytes" | "zero" | undefined;
}

export interface DirectWindowOptions {
  readonly reader: DirectReader;
  readonly unitBytes: number;
  /** Whether a unit may be read: it is no hole, and nobody fetches it. */
  readonly isWanted: (unit: number) => boolean;
}

export class DirectWindow implements FaultWindow {
  readonly isPlain = true;
  /** Units [first, until); none until something has been read. */
  #first = 0;
  #until = 0;
  readonly #options: DirectWindowOptions;
  readonly #run = { first: 0, until: 0 };

  constructor(options: DirectWindowOptions) {
    this.#options = options;
  }

  isCached(unit: number): boolean | undefined {
    return this.#options.reader.isCached(unit);
  }

  has(unit: number): boolean {
    return unit >= this.#first && unit < this.#until;
  }

  firstOf(): number {
    return this.#first;
  }

  untilOf(): number {
    return this.#until;
  }

  addressOf(unit: number): number {
    const { reader, unitBytes } = this.#options;
    return reader.address + (unit - this.#first) * unitBytes;
  }

  read(part: Part, page: number): "bytes" | "zero" | undefined {
    const unit = unitOf(part, page, this.#options.unitBytes);
    const { first, until } = this.#around(part, page);
    if (this.#readRun(first, until - first) && this.has(unit)) return "bytes";
    // Something is wrong with one of its neighbours, or has turned out to be zeros.
    if (!this.#readRun(unit, 1)) return undefined;
    return this.has(unit) ? "bytes" : "zero";
  }

  #readRun(first: number, count: number): boolean {
    this.#first = this.#until = 0;
    const units = this.#options.reader.read(first, count, 0);
    if (units === undefined) return false;
    this.#first = first;
    this.#until = first + units;
    return true;
  }

  #around(part: Part, page: number): { first: number; until: number } {
    const { region } = part;
    const { reader, unitBytes, isWanted } = this.#options;
    const { unitsMax } = reader;
    const run = this.#run;
    planRun(page, part.firstPage, untilPage(part), region.windowPages, region.resident, run);
    const lowest = unitOf(part, run.first, unitBytes);
    const highest = unitOf(part, run.until - 1, unitBytes);
    run.first = unitOf(part, page, unitBytes);
    run.until = run.first + 1;
    while (run.first > lowest && run.until - run.first < unitsMax && isWanted(run.first - 1)) run.first--;
    while (run.until <= highest && run.until - run.first < unitsMax && isWanted(run.until)) run.until++;
    return run;
  }
}
