// Where in the frame pool each page of a paged memory stands: the page tables once more, flat, for the hot path.
//
// One number a page: the byte offset of its frame, or 0 where there is none (the zero page has an offset of its own).
// The arrays are as long as the memory, but the engine's zeroed buffers take no memory until they are touched.
// Offsets from 2 GiB on come out negative; whoever reads them makes them unsigned.

import { PAGE_SIZE } from "../../abi/memory.ts";

/** Bytes of memory that one map covers, so that an offset in it is a small integer. */
export const MAP_BYTES = 2 ** 31;
export const MAP_PAGES: number = MAP_BYTES / PAGE_SIZE;

export class Translations {
  /** Of the first 2 GiB. Another array after `clear` of a large range. */
  first: Int32Array;
  readonly #maps: (Int32Array | undefined)[];
  readonly #pages: number;

  constructor(byteLength: number) {
    this.#pages = Math.ceil(byteLength / PAGE_SIZE);
    this.#maps = new Array<Int32Array | undefined>(Math.ceil(this.#pages / MAP_PAGES)).fill(undefined);
    this.first = this.#map(0);
  }

  get(page: number): number {
    const index = Math.floor(page / MAP_PAGES);
    return this.#maps[index]?.[page - index * MAP_PAGES] ?? 0;
  }

  set(page: number, offset: number): void {
    const index = Math.floor(page / MAP_PAGES);
    this.#map(index)[page - index * MAP_PAGES] = offset;
  }

  /** Forgets the pages from `from` until `until`; they may lie outside. */
  clear(from: number, until: number): void {
    const start = Math.max(0, from);
    const end = Math.min(until, this.#pages);
    for (let index = Math.floor(start / MAP_PAGES); index * MAP_PAGES < end; index++) {
      const map = this.#maps[index];
      if (map === undefined) continue;
      const base = index * MAP_PAGES;
      const first = Math.max(0, start - base);
      const last = Math.min(map.length, end - base);
      // A fresh array is cheaper than writing zeros to one that was never touched.
      if ((last - first) * 2 < map.length) map.fill(0, first, last);
      else this.#renew(index, map, first, last);
    }
  }

  #renew(index: number, old: Int32Array, first: number, last: number): void {
    this.#maps[index] = undefined;
    const map = this.#map(index);
    map.set(old.subarray(0, first));
    map.set(old.subarray(last), last);
  }

  #map(index: number): Int32Array {
    let map = this.#maps[index];
    if (map === undefined) {
      map = new Int32Array(Math.min(MAP_PAGES, this.#pages - index * MAP_PAGES));
      this.#maps[index] = map;
      if (index === 0) this.first = map;
    }
    return map;
  }
}
