// Reads all of a local source once, in order, into the page cache, for a guest that goes through it at random.
//
// A disk gives what lies side by side some ten times as fast as the same bytes one here and one there. Nobody knows whether
// a guest will go on; so the sweep begins when the faults that have waited for the disk could have paid for a part of it,
// and it costs at most that many times more than they did. It goes on while the thread that fetches has nothing else to
// do, and no faster than the disk: a fault waits for one piece of it at most, and what the system reads ahead of that.
//
//   faults at random   ·  ·   ·    · ·  ·     ·  ·   ·
//   sweep                       ───────────────▶            from here on they find it in the page cache

import { freemem } from "node:os";
import type { UnitReader } from "./opened-source.ts";
import { WIRE } from "./order.ts";

/** LIMIT: bytes that are read at once. */
const PIECE_BYTES = 256 * 1024;
/** What a disk reads in order while it reads something at random, and how much of a sweep has to have been paid for. */
const BYTES_PER_DISK_READ = 160 * 1024;
const PAID_SHARE = 1 / 8;
/** LIMIT: of the memory that is free. */
const MEMORY_SHARE = 1 / 2;

export interface SweepOptions {
  readonly reader: Pick<UnitReader, "storedBytes" | "readAll">;
  /** The serving thread counts in DISK_READS. */
  readonly words: Int32Array;
  /** Bytes of memory that are free. */
  readonly freeBytes?: () => number;
}

export class Sweep {
  readonly #options: SweepOptions;
  #pieces: Generator<unknown> | undefined;
  #isOver = false;

  constructor(options: SweepOptions) {
    this.#options = options;
  }

  /** Reads a piece if it is time to; false: there is nothing to do at present. */
  step(): boolean {
    if (this.#isOver) return false;
    this.#pieces ??= this.#begin();
    if (this.#pieces === undefined) return false;
    try {
      this.#isOver = this.#pieces.next().done === true;
    } catch {
      // Whoever needs what can't be read will hear of it.
      this.#isOver = true;
    }
    return !this.#isOver;
  }

  #begin(): Generator<unknown> | undefined {
    const { reader, words, freeBytes = freemem } = this.#options;
    const diskReads = Atomics.load(words, WIRE.DISK_READS);
    if (diskReads === 0 || diskReads * BYTES_PER_DISK_READ < reader.storedBytes * PAID_SHARE)
      return undefined;
    if (reader.storedBytes <= freeBytes() * MEMORY_SHARE) return reader.readAll(new Uint8Array(PIECE_BYTES));
    this.#isOver = true;
    return undefined;
  }
}
