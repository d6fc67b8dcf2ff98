// Where in the frame pool each page of a paged memory stands: the page tables once more, flat, for the hot path.
//
// One number a page: the byte offset of its frame, or 0 where there is none (the zero page has an offset of its own).
// The arrays are as long as the memory, but the engine's zeroed buffers take no memory until they are written, and
// only what was written is cleared. Offsets from 2 GiB on come out negative; whoever reads them makes them unsigned.

import { PAGE_SIZE } from "../../abi/memory.ts";

/** Bytes of memory that one map covers, so that an offset in it is a small integer. */
export const MAP_BYTES = 2 ** 31;
const MAP_PAGES = MAP_BYTES / PAGE_SIZE;
/** Entries that are known as written or not together: a page of theirs. */
const CHUNK_SHIFT = 10;
const CHUNK = 1 << CHUNK_SHIFT;

class OffsetMap {
  readonly offsets: Int32Array;
  /** 1 for each chunk that may hold an entry. */
  readonly #used: Uint8Array;

  constructor(pages: number) {
    this.offsets = new Int32Array(pages);
    this.#used = new Uint8Array(Math.ceil(pages / CHUNK));
  }

  set(index: number, offset: number): void {
    this.offsets[index] = offset;
    this.#used[index >>> CHUNK_SHIFT] = 1;
  }

  clear(from: number, until: number): void {
    for (let chunk = from >>> CHUNK_SHIFT; chunk << CHUNK_SHIFT < until; chunk++) {
      if (this.#used[chunk] === 0) continue;
      const start = Math.max(from, chunk << CHUNK_SHIFT);
      const end = Math.min(until, (chunk + 1) << CHUNK_SHIFT);
      this.offsets.fill(0, start, end);
      if (end - start === CHUNK) this.#used[chunk] = 0;
    }
  }
}

export class Translations {
  /** Of the first 2 GiB: always the same array. */
  readonly first: Int32Array;
  readonly #maps: (OffsetMap | undefined)[];
  readonly #pages: number;

  constructor(byteLength: number) {
    this.#pages = Math.ceil(byteLength / PAGE_SIZE);
    this.#maps = new Array<OffsetMap | undefined>(Math.ceil(this.#pages / MAP_PAGES)).fill(undefined);
    this.first = this.#map(0).offsets;
  }

  get(page: number): number {
    const index = Math.floor(page / MAP_PAGES);
    return this.#maps[index]?.offsets[page - index * MAP_PAGES] ?? 0;
  }

  set(page: number, offset: number): void {
    const index = Math.floor(page / MAP_PAGES);
    this.#map(index).set(page - index * MAP_PAGES, offset);
  }

  /** Forgets the pages from `from` until `until`; they may lie outside. */
  clear(from: number, until: number): void {
    const start = Math.max(0, from);
    const end = Math.min(until, this.#pages);
    for (let index = Math.floor(start / MAP_PAGES); index * MAP_PAGES < end; index++) {
      const base = index * MAP_PAGES;
      this.#maps[index]?.clear(Math.max(0, start - base), Math.min(MAP_PAGES, end - base));
    }
  }

  #map(index: number): OffsetMap {
    let map = this.#maps[index];
    if (map === undefined) {
      map = new OffsetMap(Math.min(MAP_PAGES, this.#pages - index * MAP_PAGES));
      this.#maps[index] = map;
    }
    return map;
  }
}
