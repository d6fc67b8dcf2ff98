// Has all of a local source read once, in order, into the page cache, for a guest that goes through it at random, or that is
// filled as a whole.
//
// A disk gives what lies side by side some ten times as fast as the same bytes one here and one there. Nobody knows whether
// a guest will go on; so the sweep goes on as far as the faults have paid for that have waited for the disk: it costs at most
// so many times more than they did, whenever they end. It keeps the disk at work, and waits for nothing itself: the thread
// that fetches does what it is asked for in between. A fault waits for what the disk has been told of, which is little.
//
//   faults at random   ·  ·   ·    · ·  ·     ·  ·   ·
//   sweep                ───── ─────────────▶            more and more of them find it in the page cache

import { freemem } from "node:os";
import type { PageSource } from "../../source/page-source.ts";
import type { UnitReader } from "./opened-source.ts";
import { WIRE } from "./order.ts";

/** What the disk is told at once, and LIMIT: what it has been told and has not brought yet. */
const PIECE_BYTES = 512 * 1024;
const ASKED_BYTES_MAX = 4 * PIECE_BYTES;
/** What a disk reads in order in a microsecond, and how many times as long as the faults a sweep may keep it at work. */
const BYTES_PER_US = 1024;
const PRICE = 8;
/** LIMIT: of the memory that is free. */
const MEMORY_SHARE = 1 / 2;
/** How long what was told the disk is left to it before it is looked for: it takes a third of a millisecond. */
const LOOK_MS = 0.1;

export interface SweepOptions {
  readonly reader: Pick<UnitReader, "storedBytes" | "atHand">;
  /** The serving thread counts in DISK_WAIT. */
  readonly words: Int32Array;
  /** Bytes of memory that are free. */
  readonly freeBytes?: () => number;
}

interface Piece {
  readonly source: PageSource;
  readonly offset: number;
  readonly byteLength: number;
}

export class Sweep {
  readonly #options: SweepOptions;
  #pieces: Iterator<Piece> | undefined;
  /** What the disk has been told, in order. */
  readonly #asked: Piece[] = [];
  #askedBytes = 0;
  #sweptBytes = 0;
  #isWanted = false;
  #isOver = false;

  constructor(options: SweepOptions) {
    this.#options = options;
  }

  /** All of it will be needed: it has not to be paid for. */
  want(): void {
    this.#isWanted = true;
  }

  /** Goes on; answers after how many milliseconds it is to be asked again, undefined: not before something has happened. */
  step(): number | undefined {
    if (this.#isOver) return undefined;
    try {
      this.#isOver = !this.#goOn();
    } catch {
      // Whoever needs what can't be read will hear of it.
      this.#isOver = true;
    }
    return this.#asked.length > 0 && !this.#isOver ? LOOK_MS : undefined;
  }

  /** False: it has come to its end. */
  #goOn(): boolean {
    this.#takeWhatHasCome();
    while (this.#sweptBytes < this.#paidBytes && this.#askedBytes < ASKED_BYTES_MAX) {
      this.#pieces ??= this.#begin();
      const next = this.#pieces?.next();
      if (next === undefined || next.done === true) return this.#asked.length > 0;
      const piece = next.value;
      piece.source.expect?.(piece.offset, piece.byteLength);
      this.#asked.push(piece);
      this.#askedBytes += piece.byteLength;
      this.#sweptBytes += piece.byteLength;
    }
    return true;
  }

  #takeWhatHasCome(): void {
    for (let piece = this.#asked[0]; piece !== undefined; piece = this.#asked[0]) {
      const last = piece.offset + piece.byteLength - 1;
      const isThere = piece.source.isCached?.(last);
      if (isThere === false) return;
      // The system does not say: then it is waited for.
      if (isThere === undefined) piece.source.readSync?.(last, new Uint8Array(1));
      this.#asked.shift();
      this.#askedBytes -= piece.byteLength;
    }
  }

  get #paidBytes(): number {
    if (this.#isWanted) return Number.POSITIVE_INFINITY;
    return Atomics.load(this.#options.words, WIRE.DISK_WAIT) * BYTES_PER_US * PRICE;
  }

  /** Undefined: it would take the memory of others. */
  #begin(): Iterator<Piece> | undefined {
    const { reader, freeBytes = freemem } = this.#options;
    return reader.storedBytes <= freeBytes() * MEMORY_SHARE ? piecesOf(reader.atHand()) : undefined;
  }
}

function* piecesOf(sources: Iterable<PageSource>): Generator<Piece> {
  for (const source of sources) {
    for (let offset = 0; offset < source.byteLength; offset += PIECE_BYTES) {
      yield { source, offset, byteLength: Math.min(PIECE_BYTES, source.byteLength - offset) };
    }
  }
}
