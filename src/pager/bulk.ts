// Installs everything that is not there yet, piece by piece, so that faults come first in between.

import { COUNTER, type Counters } from "./counters.ts";
import type { FaultLoop } from "./fault-loop.ts";
import { FILL_BYTES_MAX } from "./installer.ts";
import { type Part, untilPage } from "./regions.ts";

export type BulkState = "more" | "put-off" | "done";

export class Bulk {
  /** Names the order to the one who gave it. */
  readonly id: number;
  readonly #loop: FaultLoop;
  readonly #counters: Counters;
  readonly #pieceBytes: number;
  #parts: readonly Part[] = [];
  #part = 0;
  #page = 0;

  constructor(id: number, loop: FaultLoop, counters: Counters, pieceBytes: number = FILL_BYTES_MAX) {
    this.id = id;
    this.#loop = loop;
    this.#counters = counters;
    this.#pieceBytes = pieceBytes;
    this.#begin();
  }

  /** Installs the next piece. */
  step(): BulkState {
    const { regions, installer } = this.#loop;
    // The guest has unmapped or moved something: once more from the start, what is resident is passed over quickly.
    if (regions.parts !== this.#parts) this.#begin();
    const part = this.#parts[this.#part];
    if (part === undefined) return "done";
    const { pageSize } = part.region;
    const until = untilPage(part);
    const pieceUntil = Math.min(until, this.#page + Math.max(1, Math.floor(this.#pieceBytes / pageSize)));
    const page = installer.install(part, this.#page, pieceUntil, this.#pieceBytes);
    this.#counters[COUNTER.BULK_DONE]! += (page - this.#page) * pageSize;
    this.#page = page;
    if (page === until) this.#enter(this.#part + 1);
    if (installer.isPutOff) return "put-off";
    return this.#part === this.#parts.length ? "done" : "more";
  }

  #begin(): void {
    this.#parts = this.#loop.regions.parts;
    const total = this.#parts.reduce((sum, { start, until }) => sum + until - start, 0);
    this.#counters[COUNTER.BULK_DONE] = 0;
    this.#counters[COUNTER.BULK_TOTAL] = total;
    this.#enter(0);
  }

  #enter(index: number): void {
    this.#part = index;
    this.#page = this.#parts[index]?.firstPage ?? 0;
  }
}
