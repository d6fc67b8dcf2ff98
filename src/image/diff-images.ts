// Where two images differ, exact to pages of 4 KiB. Hashes say which chunks differ, and only those are read; index
// pages that are equal are not even looked into.
//
//   index pages   ═ ═ ≠ ═        chunks of it   ═ ≠ ═ ═ ≠        pages of them   ═ ═ ≠ ≠ ═
//                     └ loaded                    └ read, both                       └ reported

import { MinorfaultError } from "../base/errors.ts";
import type { Range } from "../base/range.ts";
import type { IndexNode, IndexRecord } from "./index-node.ts";
import { PAGE_BYTES, PAGE_CHUNKS } from "./limits.ts";
import type { OpenedImage } from "./open-image.ts";

/** LIMIT: chunks of each image that are read at once. */
const READS_MAX = 8;
/** LIMIT: ranges that are reported. */
const RANGES_MAX = 1_000_000;

export interface DiffReport {
  readonly same: boolean;
  /** Pages of 4 KiB that differ: all of the following. */
  readonly pages: number;
  /** With content in both, but another one; in the second only; in the first only. What has no content is zeros. */
  readonly changed: number;
  readonly added: number;
  readonly removed: number;
  /** Chunks that had to be read, and their size. */
  readonly chunks: number;
  readonly chunkBytes: number;
  /** The pages that differ, joined, in the flat space. LIMIT: the first million; `rangeCount` says how many there are. */
  readonly ranges: readonly Range[];
  readonly rangeCount: number;
}

export interface DiffOptions {
  readonly signal?: AbortSignal;
  /** Bytes of the flat space that have been compared. */
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
}

/** Both images have the same size, and chunks of the same size: ERR_BAD_ARGUMENT otherwise. */
export async function diffImages(
  a: OpenedImage,
  b: OpenedImage,
  options: DiffOptions = {},
): Promise<DiffReport> {
  checkComparable(a, b);
  const comparison = new Comparison(a, b, options);
  await comparison.run();
  return comparison.report();
}

type Kind = "changed" | "added" | "removed";

class Comparison {
  readonly #a: OpenedImage;
  readonly #b: OpenedImage;
  readonly #options: DiffOptions;
  readonly #counts: Record<Kind, number> = { changed: 0, added: 0, removed: 0 };
  readonly #ranges: Range[] = [];
  #rangeCount = 0;
  #chunks = 0;
  /** The range that the next page may belong to. */
  #last: { start: number; until: number } | undefined;
  readonly #buffers: { readonly a: Uint8Array; readonly b: Uint8Array }[];

  constructor(a: OpenedImage, b: OpenedImage, options: DiffOptions) {
    this.#a = a;
    this.#b = b;
    this.#options = options;
    this.#buffers = Array.from({ length: READS_MAX }, () => ({
      a: new Uint8Array(a.chunkBytes),
      b: new Uint8Array(b.chunkBytes),
    }));
  }

  async run(): Promise<void> {
    const { signal, onProgress } = this.#options;
    const totalBytes = this.#a.byteLength;
    for (let page = 0; page < this.#a.index.root.node.capacity; page++) {
      signal?.throwIfAborted();
      if (!isSame(this.#a.index.root.node.get(page), this.#b.index.root.node.get(page))) {
        await this.#compareIndexPage(page);
      }
      const doneBytes = Math.min(totalBytes, (page + 1) * PAGE_CHUNKS * this.#a.chunkBytes);
      onProgress?.({ doneBytes, totalBytes });
    }
  }

  report(): DiffReport {
    const { changed, added, removed } = this.#counts;
    const pages = changed + added + removed;
    const { chunkBytes } = this.#a;
    return {
      same: pages === 0,
      pages,
      changed,
      added,
      removed,
      chunks: this.#chunks,
      chunkBytes,
      ranges: this.#ranges,
      rangeCount: this.#rangeCount,
    };
  }

  async #compareIndexPage(page: number): Promise<void> {
    const { signal } = this.#options;
    const nodes = await Promise.all([this.#a.index.page(page, signal), this.#b.index.page(page, signal)]);
    const chunks = differing(...nodes).map((place) => page * PAGE_CHUNKS + place);
    this.#chunks += chunks.length;
    for (let at = 0; at < chunks.length; at += READS_MAX) {
      const some = chunks.slice(at, at + READS_MAX);
      await Promise.all(
        some.flatMap((chunk, index) => [
          this.#a.readChunk(chunk, this.#buffers[index]!.a, signal),
          this.#b.readChunk(chunk, this.#buffers[index]!.b, signal),
        ]),
      );
      for (const [index, chunk] of some.entries()) this.#compareChunk(chunk, this.#buffers[index]!);
      // So that a signal and a progress bar get their turn.
      await new Promise(setImmediate);
    }
  }

  #compareChunk(chunk: number, { a, b }: { readonly a: Uint8Array; readonly b: Uint8Array }): void {
    const start = chunk * this.#a.chunkBytes;
    for (let at = 0; at < a.byteLength; at += PAGE_BYTES) {
      const [before, after] = [a.subarray(at, at + PAGE_BYTES), b.subarray(at, at + PAGE_BYTES)];
      if (Buffer.compare(before, after) === 0) continue;
      this.#counts[isZero(before) ? "added" : isZero(after) ? "removed" : "changed"]++;
      this.#add(start + at);
    }
  }

  #add(start: number): void {
    const until = start + PAGE_BYTES;
    if (this.#last?.until === start) {
      this.#last.until = until;
      return;
    }
    this.#last = { start, until };
    this.#rangeCount++;
    if (this.#ranges.length < RANGES_MAX) this.#ranges.push(this.#last);
  }
}

const ZEROS = new Uint8Array(PAGE_BYTES);

function isZero(page: Uint8Array): boolean {
  return Buffer.compare(page, ZEROS) === 0;
}

function checkComparable(a: OpenedImage, b: OpenedImage): void {
  if (a.chunkBytes === b.chunkBytes && a.byteLength === b.byteLength) return;
  throw new MinorfaultError(
    "ERR_BAD_ARGUMENT",
    `${a.name} has ${a.byteLength} bytes in chunks of ${a.chunkBytes}, ${b.name} has ${b.byteLength} in chunks ` +
      `of ${b.chunkBytes}: they can not be compared chunk by chunk`,
  );
}

/** By hash. Index pages name packs by number, but chunks by hash as well: equal pages are equal content. */
function isSame(left: IndexRecord | undefined, right: IndexRecord | undefined): boolean {
  if (left === undefined || right === undefined) return left === right;
  return Buffer.compare(left.hash, right.hash) === 0;
}

/** Places of chunks that differ. */
function differing(left: IndexNode | undefined, right: IndexNode | undefined): number[] {
  const capacity = left?.capacity ?? right?.capacity ?? 0;
  return Array.from({ length: capacity }, (_, place) => place).filter(
    (place) => !isSame(left?.get(place), right?.get(place)),
  );
}
