// The index of one image, page by page as it is needed: opening an image loads the root and nothing else.

import { MinorfaultError } from "../base/errors.ts";
import { badImage } from "./content.ts";
import { IndexNode, type IndexRecord } from "./index-node.ts";
import { PAGE_CHUNKS } from "./limits.ts";
import type { PackReader, Place } from "./pack-reader.ts";
import { pageCapacity, type RootIndex } from "./root.ts";

/** LIMIT: bytes of index pages in memory: enough for 25 GiB of content in chunks of 64 KiB. */
const LOADED_BYTES_MAX = 32 * 2 ** 20;

export class IndexReader {
  readonly root: RootIndex;
  readonly #packs: PackReader;
  /** In the order of their use. */
  readonly #loaded = new Map<number, IndexNode>();
  #loadedBytes = 0;
  readonly #loading = new Map<number, Promise<IndexNode>>();

  constructor(root: RootIndex, packs: PackReader) {
    this.root = root;
    this.#packs = packs;
  }

  /** The record of a chunk, undefined for zeros; a promise only when its index page has to be loaded. */
  locate(chunk: number): IndexRecord | undefined | Promise<IndexRecord | undefined> {
    this.#check(chunk);
    const page = Math.floor(chunk / PAGE_CHUNKS);
    if (!this.root.node.has(page)) return undefined;
    const node = this.#loaded.get(page);
    if (node === undefined) return this.page(page).then((loaded) => loaded?.get(chunk % PAGE_CHUNKS));
    return node.get(chunk % PAGE_CHUNKS);
  }

  /** The same from what is in memory; "unknown" when the page is not. */
  peek(chunk: number): IndexRecord | undefined | "unknown" {
    this.#check(chunk);
    const page = Math.floor(chunk / PAGE_CHUNKS);
    if (!this.root.node.has(page)) return undefined;
    const node = this.#loaded.get(page);
    return node === undefined ? "unknown" : node.get(chunk % PAGE_CHUNKS);
  }

  /** Loads a page if that is possible without waiting. */
  loadSync(page: number): boolean {
    if (!this.root.node.has(page) || this.#loaded.has(page)) return true;
    const { pack, place, what } = this.#placeOf(page);
    const bytes = this.#packs.contentSync(pack, place, what);
    if (bytes === undefined) return false;
    this.#keep(page, this.#decode(page, bytes));
    return true;
  }

  /** An index page, verified; undefined where everything is zeros. */
  async page(page: number, signal?: AbortSignal): Promise<IndexNode | undefined> {
    if (!this.root.node.has(page)) return undefined;
    const loaded = this.#loaded.get(page);
    if (loaded !== undefined) {
      this.#keep(page, loaded);
      return loaded;
    }
    // One that is being loaded for somebody else may be given up by him.
    if (signal !== undefined) return this.#load(page, signal);
    let loading = this.#loading.get(page);
    if (loading === undefined) {
      loading = this.#load(page).finally(() => this.#loading.delete(page));
      this.#loading.set(page, loading);
    }
    return loading;
  }

  #check(chunk: number): void {
    if (Number.isInteger(chunk) && chunk >= 0 && chunk < this.root.chunks) return;
    throw new MinorfaultError("ERR_OUT_OF_RANGE", `Chunk ${chunk} is not one of ${this.root.chunks}`);
  }

  async #load(page: number, signal?: AbortSignal): Promise<IndexNode> {
    const { pack, place, what } = this.#placeOf(page);
    const node = this.#decode(page, await this.#packs.content(pack, place, what, signal));
    this.#keep(page, node);
    return node;
  }

  #placeOf(page: number): { pack: string; place: Place; what: () => string } {
    const record = this.root.node.get(page)!;
    if (record.encoding !== "raw") throw badImage(`Index page ${page} is said to be compressed`);
    return {
      pack: this.root.packs.name(record.pack),
      place: { ...record, contentBytes: record.storedBytes },
      what: () => `index page ${page}`,
    };
  }

  #decode(page: number, bytes: Uint8Array): IndexNode {
    const { chunks, chunkBytes, packs } = this.root;
    return new IndexNode(bytes, pageCapacity(page, chunks), packs.count, chunkBytes, `index page ${page}`);
  }

  #keep(page: number, node: IndexNode): void {
    if (!this.#loaded.delete(page)) this.#loadedBytes += node.byteLength;
    this.#loaded.set(page, node);
    for (const [oldest, old] of this.#loaded) {
      if (this.#loadedBytes <= LOADED_BYTES_MAX || oldest === page) return;
      this.#loaded.delete(oldest);
      this.#loadedBytes -= old.byteLength;
    }
  }
}
