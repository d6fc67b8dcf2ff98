// Where the content of each page of a block lies in a file: 0 for zeros.
//
// Kept in pieces for 64 MiB of memory that come into being with their first page: a stream that lies about its size
// costs nothing.

import { hasBit } from "../../base/bitmap.ts";
import type { Range } from "../../base/range.ts";
import { type MappedBlock, PAGE_BYTES } from "./stream-format.ts";

const PIECE_PAGES = 16384;

export interface PagePlaces {
  /** Offset of a page's content in the file; 0: zeros. */
  offsetOf(page: number): number;
  /** Ranges of the block's bytes that may hold something. */
  extents(): Range[];
}

/** The places of a plain stream: the last record of a page counts. */
export class RecordPlaces implements PagePlaces {
  readonly #pieces: (Float64Array | undefined)[] = [];

  set(page: number, offset: number): void {
    const index = Math.floor(page / PIECE_PAGES);
    let piece = this.#pieces[index];
    if (piece === undefined) {
      if (offset === 0) return;
      piece = new Float64Array(PIECE_PAGES);
      this.#pieces[index] = piece;
    }
    piece[page % PIECE_PAGES] = offset;
  }

  offsetOf(page: number): number {
    return this.#pieces[Math.floor(page / PIECE_PAGES)]?.[page % PIECE_PAGES] ?? 0;
  }

  extents(): Range[] {
    return this.#pieces.flatMap((piece, index) =>
      piece === undefined ? [] : runsOf(PIECE_PAGES, index * PIECE_PAGES, (page) => piece[page] !== 0),
    );
  }
}

/** The places of mapped-ram: each page in its own, and bits for those that are there. */
export class MappedPlaces implements PagePlaces {
  readonly #bits: Uint32Array;
  readonly #pages: number;
  readonly #pagesOffset: number;

  constructor({ pagesOffset }: MappedBlock, byteLength: number, bitmap: Uint8Array) {
    this.#pages = byteLength / PAGE_BYTES;
    this.#bits = new Uint32Array(Math.ceil(bitmap.byteLength / 4));
    new Uint8Array(this.#bits.buffer).set(bitmap);
    this.#pagesOffset = pagesOffset;
  }

  offsetOf(page: number): number {
    return hasBit(this.#bits, page) ? this.#pagesOffset + page * PAGE_BYTES : 0;
  }

  extents(): Range[] {
    return runsOf(this.#pages, 0, (page) => hasBit(this.#bits, page));
  }
}

/** Runs of pages, in bytes, that follow one another with less than a chunk between them. */
function runsOf(pages: number, first: number, has: (page: number) => boolean): Range[] {
  const near = 16;
  const runs: { start: number; until: number }[] = [];
  let last: { start: number; until: number } | undefined;
  for (let page = 0; page < pages; page++) {
    if (!has(page)) continue;
    const start = (first + page) * PAGE_BYTES;
    if (last !== undefined && start - last.until < near * PAGE_BYTES) last.until = start + PAGE_BYTES;
    else {
      last = { start, until: start + PAGE_BYTES };
      runs.push(last);
    }
  }
  return runs;
}
