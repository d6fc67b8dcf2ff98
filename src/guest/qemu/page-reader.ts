// Reads pages of an image, verified: in this thread at once where the image is local, which is what a guest that waits
// needs, or in a pool of threads for everything that nobody waits for (page-pool.ts).

import type { Image } from "../../image/index.ts";
import { findZeros, type PageContent, type PageRange } from "./page-content.ts";
import { PAGE_BYTES } from "./stream-format.ts";

export interface PageReader {
  /** `blockFirst`: the first page of the block that they belong to, which makes records of them possible. */
  read(range: PageRange, signal: AbortSignal, blockFirst?: number): Promise<PageContent>;
  close(): Promise<void>;
}

export class InlineReader implements PageReader {
  readonly #image: Image;
  readonly #chunk: Uint8Array;

  constructor(image: Image) {
    this.#image = image;
    this.#chunk = new Uint8Array(image.chunkBytes);
  }

  /** Pages without waiting; undefined when that is impossible now. */
  readSync(range: PageRange): PageContent | undefined {
    const bytes = new Uint8Array(range.count * PAGE_BYTES);
    return readIntoSync(this.#image, range, bytes, this.#chunk) ? contentOf(range, bytes) : undefined;
  }

  async read(range: PageRange, signal: AbortSignal): Promise<PageContent> {
    const bytes = new Uint8Array(range.count * PAGE_BYTES);
    await readInto(this.#image, range, bytes, signal);
    return contentOf(range, bytes);
  }

  async close(): Promise<void> {}
}

/** Reads pages without waiting; false when that is impossible now. `chunk`: room for one. */
export function readIntoSync(image: Image, range: PageRange, target: Uint8Array, chunk: Uint8Array): boolean {
  for (const { index, from, until, at } of partsOf(range, image.chunkBytes)) {
    const isWhole = until - from === image.chunkBytes;
    if (!image.readChunkSync(index, isWhole ? target.subarray(at, at + until) : chunk)) return false;
    if (!isWhole) target.set(chunk.subarray(from, until), at);
  }
  return true;
}

/** Reads pages, all their chunks at once: a source that is far away is waited for only once. */
export async function readInto(
  image: Image,
  range: PageRange,
  target: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const parts = partsOf(range, image.chunkBytes);
  await Promise.all(
    parts.map(async ({ index, from, until, at }) => {
      const chunk = new Uint8Array(image.chunkBytes);
      await image.readChunk(index, chunk, signal);
      target.set(chunk.subarray(from, until), at);
    }),
  );
}

function contentOf(range: PageRange, bytes: Uint8Array): PageContent {
  const zeros = new Uint8Array(range.count);
  findZeros(bytes, zeros);
  return { ...range, bytes, stride: PAGE_BYTES, zeros, release: () => {} };
}

export interface ChunkPart {
  /** Of the chunk. */
  readonly index: number;
  /** Bytes of the chunk. */
  readonly from: number;
  readonly until: number;
  /** Where they belong in what was asked for. */
  readonly at: number;
}

export function partsOf({ first, count }: PageRange, chunkBytes: number): ChunkPart[] {
  const start = first * PAGE_BYTES;
  const end = start + count * PAGE_BYTES;
  const parts: ChunkPart[] = [];
  for (let offset = start; offset < end; ) {
    const index = Math.floor(offset / chunkBytes);
    const chunkStart = index * chunkBytes;
    const until = Math.min(end - chunkStart, chunkBytes);
    parts.push({ index, from: offset - chunkStart, until, at: offset - start });
    offset = chunkStart + until;
  }
  return parts;
}
