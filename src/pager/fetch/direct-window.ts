// What was read at the last fault that was read directly: units that lie side by side, the fault's own among them.

import { planRun } from "../plan.ts";
import { type Part, untilPage } from "../regions.ts";
import type { DirectReader } from "./direct.ts";
import { unitOf } from "./unit-pages.ts";

export class DirectWindow {
  /** Units [first, until); none until something has been read. */
  first = 0;
  until = 0;
  readonly #reader: DirectReader;
  readonly #unitBytes: number;
  readonly #run = { first: 0, until: 0 };

  constructor(reader: DirectReader, unitBytes: number) {
    this.#reader = reader;
    this.#unitBytes = unitBytes;
  }

  get isPlain(): boolean {
    return this.#reader.isPlain;
  }

  has(unit: number): boolean {
    return unit >= this.first && unit < this.until;
  }

  /** Where a unit is that it has. */
  addressOf(unit: number): number {
    return this.#reader.address + (unit - this.first) * this.#unitBytes;
  }

  /**
   * Reads the unit of a page, and with it those of its window that are `wanted`. Answers what that unit is; undefined when it
   * can't be read so.
   */
  read(part: Part, page: number, wanted: (unit: number) => boolean): "bytes" | "zero" | undefined {
    const unit = unitOf(part, page, this.#unitBytes);
    const { first, until } = this.#around(part, page, wanted);
    if (this.#readRun(first, until - first) && this.has(unit)) return "bytes";
    // Something is wrong with one of its neighbours, or has turned out to be zeros.
    if (!this.#readRun(unit, 1)) return undefined;
    return this.has(unit) ? "bytes" : "zero";
  }

  #readRun(first: number, count: number): boolean {
    this.first = this.until = 0;
    const units = this.#reader.read(first, count);
    if (units === undefined) return false;
    this.first = first;
    this.until = first + units;
    return true;
  }

  #around(part: Part, page: number, wanted: (unit: number) => boolean): { first: number; until: number } {
    const { region } = part;
    const { unitsMax } = this.#reader;
    const run = this.#run;
    const unit = unitOf(part, page, this.#unitBytes);
    planRun(page, part.firstPage, untilPage(part), region.windowPages, region.resident, run);
    const lowest = unitOf(part, run.first, this.#unitBytes);
    const highest = unitOf(part, run.until - 1, this.#unitBytes);
    run.first = unit;
    run.until = unit + 1;
    while (run.first > lowest && run.until - run.first < unitsMax && wanted(run.first - 1)) run.first--;
    while (run.until <= highest && run.until - run.first < unitsMax && wanted(run.until)) run.until++;
    return run;
  }
}
