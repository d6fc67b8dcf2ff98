// Reads by way of a cache on disk: whole aligned blocks, of which only the missing ones are asked for.
//
// A block's key is the content's identity and the block's number, so that a replaced object finds nothing of the old
// one. A source whose identity nobody knows can't be cached.

import { MinorfaultError } from "../base/errors.ts";
import type { DiskCache } from "./disk-cache.ts";
import { LayeredSource } from "./layered-source.ts";
import { checkRead, closedSource, type PageSource } from "./page-source.ts";

export interface CacheOptions {
  readonly blockBytes?: number;
  /** LIMIT: bytes of one request. */
  readonly requestBytesMax?: number;
  /** Names the content where the source itself doesn't know. */
  readonly identity?: string;
}

export class CachingSource extends LayeredSource {
  readonly #cache: DiskCache;
  readonly #blockBytes: number;
  readonly #blocksMax: number;
  readonly #key: string;
  #closed = false;

  constructor(inner: PageSource, cache: DiskCache, options: CacheOptions = {}) {
    super(inner);
    const identity = options.identity ?? inner.identity;
    if (identity === undefined) {
      throw new MinorfaultError(
        "ERR_BAD_ARGUMENT",
        `${inner.name} has no identity to be cached under (its server sends no strong ETag)`,
      );
    }
    this.#cache = cache;
    this.#blockBytes = options.blockBytes ?? 65_536;
    this.#blocksMax = Math.max(1, Math.floor((options.requestBytesMax ?? 2 ** 20) / this.#blockBytes));
    this.#key = `${identity} ${this.#blockBytes}`;
  }

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (this.#closed) throw closedSource(this.name);
    signal?.throwIfAborted();
    checkRead(this, offset, target.byteLength);
    const until = offset + target.byteLength;
    const missing: number[] = [];
    for (let block = Math.floor(offset / this.#blockBytes); block * this.#blockBytes < until; block++) {
      const start = block * this.#blockBytes;
      const bytes = this.#cache.get(`${this.#key} ${block}`, this.#lengthOf(block));
      if (bytes === undefined) missing.push(block);
      else copyOverlap(start, bytes, offset, target);
    }
    for (const run of this.#runs(missing)) await this.#fetch(run, offset, target, signal);
  }

  /** Neighbours together, as many as one request may have. */
  *#runs(blocks: readonly number[]): Generator<readonly number[]> {
    let run: number[] = [];
    for (const block of blocks) {
      const isNeighbour = run.length > 0 && block === (run.at(-1) ?? 0) + 1;
      if (run.length > 0 && (!isNeighbour || run.length === this.#blocksMax)) {
        yield run;
        run = [];
      }
      run.push(block);
    }
    if (run.length > 0) yield run;
  }

  async #fetch(
    blocks: readonly number[],
    offset: number,
    target: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const [first = 0] = blocks;
    const start = first * this.#blockBytes;
    const last = blocks.at(-1) ?? first;
    const bytes = new Uint8Array(last * this.#blockBytes + this.#lengthOf(last) - start);
    await this.inner.read(start, bytes, signal);
    copyOverlap(start, bytes, offset, target);
    for (const block of blocks) {
      const from = block * this.#blockBytes - start;
      this.#cache.put(`${this.#key} ${block}`, bytes.subarray(from, from + this.#lengthOf(block)));
    }
  }

  #lengthOf(block: number): number {
    return Math.min(this.#blockBytes, this.byteLength - block * this.#blockBytes);
  }

  override async close(): Promise<void> {
    this.#closed = true;
    await super.close();
  }
}

function copyOverlap(start: number, bytes: Uint8Array, offset: number, target: Uint8Array): void {
  const from = Math.max(offset, start);
  const until = Math.min(offset + target.byteLength, start + bytes.byteLength);
  if (until > from) target.set(bytes.subarray(from - start, until - start), from - offset);
}
