// A block's memory as a source, out of a file that has its pages here and there: between records, or in their places.

import type { FileSource } from "../../source/file-source.ts";
import { checkRead, type PageSource } from "../../source/page-source.ts";
import type { PagePlaces } from "./page-places.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** Pages whose contents lie so near to one another are read as one: a record's head is at most 264 bytes. */
const GAP_BYTES = 512;
const READ_BYTES_MAX = 2 ** 20;

export class PlacedSource implements PageSource {
  readonly name: string;
  readonly byteLength: number;
  readonly #file: FileSource;
  readonly #places: PagePlaces;
  readonly #scratch = new Uint8Array(READ_BYTES_MAX);

  constructor(name: string, byteLength: number, file: FileSource, places: PagePlaces) {
    this.name = name;
    this.byteLength = byteLength;
    this.#file = file;
    this.#places = places;
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.readSync(offset, target);
  }

  /** Whole pages only: that is what an image asks for. */
  readSync(offset: number, target: Uint8Array): void {
    checkRead(this, offset, target.byteLength);
    const first = offset / PAGE_BYTES;
    const pages = target.byteLength / PAGE_BYTES;
    for (let page = 0; page < pages; ) {
      const at = this.#places.offsetOf(first + page);
      if (at === 0) {
        target.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
        page++;
        continue;
      }
      const until = this.#runEnd(first, page, pages, at);
      this.#copy(target, first, page, until, at);
      page = until;
    }
  }

  async close(): Promise<void> {}

  /** The end of the pages from `page` on that lie in one piece of the file, in order. */
  #runEnd(first: number, page: number, pages: number, at: number): number {
    let last = at;
    let until = page + 1;
    for (; until < pages; until++) {
      const next = this.#places.offsetOf(first + until);
      const isNear = next >= last + PAGE_BYTES && next <= last + PAGE_BYTES + GAP_BYTES;
      if (!isNear || next + PAGE_BYTES - at > READ_BYTES_MAX) break;
      last = next;
    }
    return until;
  }

  #copy(target: Uint8Array, first: number, page: number, until: number, at: number): void {
    const end = this.#places.offsetOf(first + until - 1) + PAGE_BYTES;
    if (end - at === (until - page) * PAGE_BYTES) {
      this.#file.readSync(at, target.subarray(page * PAGE_BYTES, until * PAGE_BYTES));
      return;
    }
    const span = this.#scratch.subarray(0, end - at);
    this.#file.readSync(at, span);
    for (let index = page; index < until; index++) {
      const from = this.#places.offsetOf(first + index) - at;
      target.set(span.subarray(from, from + PAGE_BYTES), index * PAGE_BYTES);
    }
  }
}
