// Installs everything that is not there yet, piece by piece, so that faults come first in between: in the guest, then in each
// child that it has forked, those that are born meanwhile among them.

import type { Range } from "../base/range.ts";
import { COUNTER, type Counters } from "./counters.ts";
import type { FaultLoop } from "./fault-loop.ts";
import { FILL_BYTES_MAX } from "./installer.ts";
import { type Part, pageAt, untilPage } from "./regions.ts";

/** All addresses. */
const EVERYTHING: Range = { start: 0, until: Number.MAX_SAFE_INTEGER };

/** "away": what comes next is being fetched. */
export type BulkState = "more" | "put-off" | "away" | "done";

export class Bulk {
  /** Names the order to the one who gave it. */
  readonly id: number;
  /** Live: children come and go. */
  readonly #loops: readonly FaultLoop[];
  readonly #done = new Set<FaultLoop>();
  #loop: FaultLoop | undefined;
  readonly #counters: Counters;
  readonly pieceBytes: number;
  /** Addresses outside of it are left alone. */
  readonly #range: Range;
  #parts: readonly Part[] = [];
  #part = 0;
  #page = 0;
  #until = 0;

  constructor(
    id: number,
    loops: readonly FaultLoop[],
    counters: Counters,
    pieceBytes: number = FILL_BYTES_MAX,
    range: Range = EVERYTHING,
  ) {
    this.id = id;
    this.#range = range;
    this.#loops = loops;
    this.#counters = counters;
    this.pieceBytes = pieceBytes;
    this.#next();
  }

  /** Installs the next piece. */
  step(): BulkState {
    const loop = this.#loop;
    if (loop === undefined) return "done";
    if (!this.#loops.includes(loop)) return this.#next();
    const { regions, installer, fetchFrom } = loop;
    // The guest has unmapped or moved something: once more from the start, what is resident is passed over quickly.
    if (regions.parts !== this.#parts) this.#begin(loop);
    const part = this.#parts[this.#part];
    if (part === undefined) return this.#next();
    const { pageSize } = part.region;
    const until = this.#until;
    const pieceUntil = Math.min(until, this.#page + Math.max(1, Math.floor(this.pieceBytes / pageSize)));
    const page = installer.install(part, this.#page, pieceUntil, this.pieceBytes);
    this.#counters[COUNTER.BULK_DONE]! += (page - this.#page) * pageSize;
    this.#page = page;
    if (installer.isAway && fetchFrom !== undefined) {
      const goesOnAt = fetchFrom(part, page, until);
      if (goesOnAt === undefined) return "away";
      this.#page = goesOnAt;
    }
    if (this.#page === until) this.#enter(this.#part + 1);
    if (installer.isPutOff) return "put-off";
    return this.#part === this.#parts.length ? this.#next() : "more";
  }

  /** Turns to a loop that has not had its turn. */
  #next(): BulkState {
    if (this.#loop !== undefined) this.#done.add(this.#loop);
    this.#loop = this.#loops.find((loop) => !this.#done.has(loop));
    if (this.#loop === undefined) return "done";
    this.#begin(this.#loop);
    return "more";
  }

  #begin({ regions }: FaultLoop): void {
    this.#parts = regions.parts;
    const done = this.#loops.filter((loop) => this.#done.has(loop));
    this.#counters[COUNTER.BULK_DONE] = this.#lengthOf(done);
    this.#counters[COUNTER.BULK_TOTAL] = this.#lengthOf(this.#loops);
    this.#enter(0);
  }

  #lengthOf(loops: readonly FaultLoop[]): number {
    const parts = loops.flatMap(({ regions }) => regions.parts);
    return parts.reduce((sum, part) => sum + this.#lengthWithin(part), 0);
  }

  #enter(index: number): void {
    this.#part = index;
    const part = this.#parts[index];
    if (part === undefined) return;
    if (this.#lengthWithin(part) === 0) {
      this.#enter(index + 1);
      return;
    }
    const { start, until } = this.#range;
    this.#page = start > part.start ? pageAt(part, start) : part.firstPage;
    this.#until = until < part.until ? pageAt(part, until - 1) + 1 : untilPage(part);
  }

  #lengthWithin(part: Part): number {
    return Math.max(0, Math.min(part.until, this.#range.until) - Math.max(part.start, this.#range.start));
  }
}
