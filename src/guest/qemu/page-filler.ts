// What a thread of the pool does: reads chunks of its image, verified, and puts their pages into the slots that it is told.

import { type Image, openImage } from "../../image/index.ts";
import { noteOf } from "../../pager/notes.ts";
import { isZeroPage } from "./page-content.ts";
import {
  type PoolImage,
  type PoolReply,
  type PoolRequest,
  type PoolStart,
  type SlotViews,
  slotViews,
} from "./page-pool.ts";
import { type ChunkPart, partsOf } from "./page-reader.ts";
import { RECORD_BYTES, writeRecord } from "./page-records.ts";
import { PAGE_BYTES } from "./stream-format.ts";

export class PageFiller {
  readonly #image: PoolImage;
  #opening: Promise<Image> | undefined;
  readonly #views: readonly SlotViews[];
  #room: Uint8Array | undefined;

  constructor({ image, slots, pagesMax }: PoolStart) {
    this.#views = slots.map((memory) => slotViews(memory, pagesMax));
    this.#image = image;
  }

  async answer(request: PoolRequest): Promise<PoolReply> {
    const { reader, slot } = request;
    try {
      // Not before: a machine that is about to run needs the processors.
      const image = await this.#open();
      const parts = partsOf(request.range, image.chunkBytes);
      // All chunks at once: a source that is far away is waited for only once. Nobody writes into the slot any more
      // when it is answered for, also where a chunk has failed: it is somebody else's then.
      const filled = await Promise.allSettled(parts.map(async (part) => this.#fill(image, request, part)));
      for (const each of filled) if (each.status === "rejected") throw each.reason;
      return { reader, slot };
    } catch (error) {
      return { reader, slot, error: noteOf(error) };
    }
  }

  /** One that could not be opened is tried again for the next request. */
  #open(): Promise<Image> {
    this.#opening ??= openImage(this.#image.url, { digest: this.#image.digest }).catch((error) => {
      this.#opening = undefined;
      throw error;
    });
    return this.#opening;
  }

  async close(): Promise<void> {
    // One that could not be opened need not be closed.
    await this.#opening?.then(
      (image) => image.close(),
      () => {},
    );
  }

  /** Puts the pages of a chunk into their slot. */
  #fill(image: Image, request: PoolRequest, part: ChunkPart): void | Promise<void> {
    const { chunkBytes } = image;
    const { zeros } = this.#views[request.slot]!;
    if (image.isZero(part.index * chunkBytes, chunkBytes)) {
      zeros.fill(1, part.at / PAGE_BYTES, (part.at + part.until - part.from) / PAGE_BYTES);
      return;
    }
    this.#room ??= new Uint8Array(chunkBytes);
    if (image.readChunkSync(part.index, this.#room)) {
      this.#put(request, part, this.#room);
      return;
    }
    const chunk = new Uint8Array(chunkBytes);
    return image.readChunk(part.index, chunk).then(() => this.#put(request, part, chunk));
  }

  #put({ slot, range, blockFirst }: PoolRequest, part: ChunkPart, chunk: Uint8Array): void {
    const { bytes, zeros } = this.#views[slot]!;
    for (let from = part.from, index = part.at / PAGE_BYTES; from < part.until; from += PAGE_BYTES, index++) {
      const isZero = isZeroPage(chunk, from);
      zeros[index] = isZero ? 1 : 0;
      if (isZero) continue;
      const page = chunk.subarray(from, from + PAGE_BYTES);
      if (blockFirst === undefined) bytes.set(page, index * PAGE_BYTES);
      else writeRecord(bytes, index * RECORD_BYTES, range.first + index - blockFirst, page);
    }
  }
}
