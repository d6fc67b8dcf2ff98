// Makes an index while chunks are told in order: a page is written when the next one begins. Pages of a parent that
// nothing was told about stay as they are, by reference. Where chunks may be told a second time, pages are held in
// memory and written at the end.

import { assert } from "../base/errors.ts";
import { sha256 } from "./hash.ts";
import { bitmapBytes, encodeNode, IndexNode, type IndexRecord } from "./index-node.ts";
import type { IndexReader } from "./index-reader.ts";
import { PACK_BYTES_MAX, PACKS_MAX, PAGE_CHUNKS } from "./limits.ts";
import { pageCapacity } from "./root.ts";

/** Stores an index page and says where it is. */
export type StorePage = (hash: Uint8Array, bytes: Uint8Array) => Promise<IndexRecord>;

export class IndexBuilder {
  readonly #chunks: number;
  readonly #parent: IndexReader | undefined;
  readonly #store: StorePage;
  readonly #translate: ((record: IndexRecord) => IndexRecord) | undefined;
  /** With `translate`: pages that are still the parent's. */
  readonly #old = new Set<number>();
  /** By index page. */
  readonly pages: (IndexRecord | undefined)[];
  /** With `holdPages`: pages that have been told of and are not stored. */
  #held: Map<number, Uint8Array> | undefined;
  #page = -1;
  #records: (IndexRecord | undefined)[] = [];

  /** With `translate` no page of the parent can stay: its records mean other packs in the child. */
  constructor(
    chunks: number,
    parent: IndexReader | undefined,
    store: StorePage,
    translate?: (record: IndexRecord) => IndexRecord,
  ) {
    this.#chunks = chunks;
    this.#parent = parent;
    this.#store = store;
    this.#translate = translate;
    this.pages = parent?.root.node.toRecords() ?? Array(Math.ceil(chunks / PAGE_CHUNKS)).fill(undefined);
    if (translate === undefined) return;
    for (const [page, record] of this.pages.entries()) if (record !== undefined) this.#old.add(page);
  }

  /** Lets chunks be told in any order, and again. */
  holdPages(): void {
    this.#held ??= new Map();
  }

  /** Says what a chunk is; chunks come in ascending order. */
  async set(chunk: number, record: IndexRecord | undefined): Promise<void> {
    await this.#turnTo(Math.floor(chunk / PAGE_CHUNKS));
    this.#records[chunk % PAGE_CHUNKS] = record;
  }

  /** Says that all chunks from `first` up to, not including, `until` are zeros. */
  async clear(first: number, until: number): Promise<void> {
    for (let chunk = first; chunk < until; ) {
      const page = Math.floor(chunk / PAGE_CHUNKS);
      const end = Math.min(until, (page + 1) * PAGE_CHUNKS);
      // A page that is zeros already needs no turning to.
      if (page === this.#page || this.pages[page] !== undefined || this.#held?.has(page)) {
        await this.#turnTo(page);
        this.#records.fill(undefined, chunk % PAGE_CHUNKS, end - page * PAGE_CHUNKS);
      }
      chunk = end;
    }
  }

  /** What was said of a chunk last, where pages are held. */
  told(chunk: number): IndexRecord | undefined {
    const page = Math.floor(chunk / PAGE_CHUNKS);
    if (page === this.#page) return this.#records[chunk % PAGE_CHUNKS];
    const held = this.#held?.get(page);
    if (held !== undefined) return this.#nodeOf(page, held).get(chunk % PAGE_CHUNKS);
    assert(this.pages[page] === undefined, "A chunk is read of which only the parent has been told");
    return undefined;
  }

  /** Writes the last page, and those that have to be translated. */
  async finish(): Promise<void> {
    for (const page of this.#old) await this.#turnTo(page);
    await this.#turnTo(-1);
    for (const [page, bytes] of this.#held ?? []) await this.#put(page, bytes);
  }

  /** The record of a chunk in the parent. */
  async inParent(chunk: number): Promise<IndexRecord | undefined> {
    if (this.#parent === undefined || chunk >= this.#parent.root.chunks) return undefined;
    return this.#parent.locate(chunk);
  }

  async #turnTo(page: number): Promise<void> {
    if (page === this.#page) return;
    if (this.#page !== -1) await this.#write();
    this.#page = page;
    if (page === -1) return;
    this.#old.delete(page);
    const held = this.#held?.get(page);
    if (held !== undefined) {
      this.#records = this.#nodeOf(page, held).toRecords();
      return;
    }
    const node = await this.#parent?.page(page);
    const records = node?.toRecords() ?? Array(pageCapacity(page, this.#chunks)).fill(undefined);
    const translate = this.#translate;
    this.#records = translate === undefined ? records : records.map((record) => record && translate(record));
  }

  #nodeOf(page: number, bytes: Uint8Array): IndexNode {
    const capacity = pageCapacity(page, this.#chunks);
    return new IndexNode(bytes, capacity, PACKS_MAX, PACK_BYTES_MAX, "An index page");
  }

  async #write(): Promise<void> {
    const bytes = encodeNode(this.#records);
    if (this.#held === undefined) await this.#put(this.#page, bytes);
    else this.#held.set(this.#page, bytes);
  }

  async #put(page: number, bytes: Uint8Array): Promise<void> {
    // No record, only the bitmap: zeros.
    if (bytes.byteLength === bitmapBytes(pageCapacity(page, this.#chunks))) {
      this.pages[page] = undefined;
      return;
    }
    const hash = sha256(bytes);
    const before = this.pages[page];
    const isSame = before !== undefined && Buffer.compare(before.hash, hash) === 0;
    if (this.#translate === undefined && isSame) return;
    this.pages[page] = await this.#store(hash, bytes);
  }
}
