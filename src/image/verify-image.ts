// Checks an image from the manifest down: either what says where everything is, or every byte.
//
// It goes on after a chunk that is wrong, so that the report says how much is; what stands above the chunks must be
// right for that, and throws.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { badImage, wrongBytes } from "./content.ts";
import { type Batch, batchChunks, openCruncher } from "./cruncher.ts";
import { PAGE_BYTES } from "./limits.ts";
import { type OpenedImage, openImageIn } from "./open-image.ts";
import { bytesOfGroup, type ChunkRecord, groupsOf, readGroupInto, recordsOf } from "./walk.ts";

export interface VerifyOptions {
  /** Only manifest, index, and that each pack is there and long enough. Default false: every byte. */
  readonly indexOnly?: boolean;
  /** SHA-256 that the manifest must have. */
  readonly digest?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
}

export interface VerifyProblem {
  /** Offset in the flat space, where it concerns a chunk. */
  readonly offset?: number;
  readonly code: string;
  readonly message: string;
}

export interface VerifyReport {
  readonly right: boolean;
  /** LIMIT: the first 100 that were found, by offset. */
  readonly problems: readonly VerifyProblem[];
  readonly problemCount: number;
  readonly chunks: number;
  readonly contentBytes: number;
  readonly storedBytes: number;
  readonly packs: number;
  readonly workingSets: number;
  readonly attachments: number;
  readonly ms: number;
}

const PROBLEMS_MAX = 100;

export async function verifyImage(
  store: ObjectStore,
  name: string,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const image = await openImageIn(store, name, options);
  try {
    return await new Verification(image, options).run();
  } finally {
    await image.close();
  }
}

class Verification {
  readonly #image: OpenedImage;
  readonly #options: VerifyOptions;
  readonly #began = performance.now();
  readonly #problems: VerifyProblem[] = [];
  #problemCount = 0;
  #chunks = 0;
  #storedBytes = 0;
  #doneBytes = 0;
  readonly #packs = new Set<number>();

  constructor(image: OpenedImage, options: VerifyOptions) {
    this.#image = image;
    this.#options = options;
  }

  async run(): Promise<VerifyReport> {
    const { manifest, chunkBytes } = this.#image;
    const total = await this.#readIndex();
    if (this.#options.indexOnly) await this.#findOthers();
    else await this.#readOthers(total);
    return {
      right: this.#problemCount === 0,
      problems: this.#problems.toSorted(
        (a, b) => (a.offset ?? Number.POSITIVE_INFINITY) - (b.offset ?? Number.POSITIVE_INFINITY),
      ),
      problemCount: this.#problemCount,
      chunks: this.#chunks,
      contentBytes: this.#chunks * chunkBytes,
      storedBytes: this.#storedBytes,
      packs: this.#packs.size,
      workingSets: manifest.workingSets.length,
      attachments: manifest.attachments.length,
      ms: performance.now() - this.#began,
    };
  }

  async #readOthers(totalBytes: number): Promise<void> {
    const { attachments, workingSets } = this.#image.manifest;
    await this.#readChunks(totalBytes);
    for (const { name } of attachments) {
      await this.#attempt(undefined, () => this.#image.readAttachment(name, this.#options.signal));
    }
    for (const { name } of workingSets) await this.#attempt(undefined, () => this.#readSet(name));
  }

  /** That the packs of attachments and working sets are there, and whole tables. */
  async #findOthers(): Promise<void> {
    const { attachments, workingSets } = this.#image.manifest;
    for (const { pack } of [...attachments, ...workingSets]) {
      await this.#attempt(undefined, () => this.#image.packs.table(pack, this.#options.signal));
    }
  }

  /** Every index page, and the length of every pack. Answers how many bytes are stored. */
  async #readIndex(): Promise<number> {
    const { packs, index } = this.#image;
    const ends = new Map<number, number>();
    for await (const { record } of recordsOf(this.#image, this.#options.signal)) {
      this.#chunks++;
      this.#storedBytes += record.storedBytes;
      const end = record.offset + record.storedBytes;
      if (end > (ends.get(record.pack) ?? 0)) ends.set(record.pack, end);
    }
    for (const [pack, end] of ends) {
      this.#packs.add(pack);
      const name = index.root.packs.name(pack);
      await this.#attempt(undefined, async () => {
        const { byteLength } = await packs.table(name);
        if (end <= byteLength) return;
        throw badImage(`Pack ${name} has ${byteLength} bytes, ${end} are referred to`);
      });
    }
    return this.#storedBytes;
  }

  /** Reads here, and hashes and decompresses in as many threads as there are processors. */
  async #readChunks(totalBytes: number): Promise<void> {
    const { signal } = this.#options;
    const { chunkBytes } = this.#image;
    const cruncher = await openCruncher({ chunkBytes, level: undefined }, this.#chunks * chunkBytes);
    const chunks = batchChunks(chunkBytes);
    const limits = { chunks, bytes: chunks * chunkBytes };
    const working = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | undefined;
    try {
      for await (const group of groupsOf(recordsOf(this.#image, signal), limits)) {
        const batch = await cruncher.take();
        if (failure !== undefined) break;
        const work = this.#verifyGroup(batch, group, totalBytes)
          .catch((error: unknown) => {
            failure ??= { error };
          })
          .finally(() => {
            batch.release();
            working.delete(work);
          });
        working.add(work);
        // So that a signal and a progress bar get their turn.
        await new Promise(setImmediate);
      }
      await Promise.all(working);
      if (failure !== undefined) throw failure.error;
    } finally {
      await cruncher.close();
    }
  }

  async #verifyGroup(batch: Batch, group: readonly ChunkRecord[], totalBytes: number): Promise<void> {
    const { signal, onProgress } = this.#options;
    const { name } = this.#image;
    signal?.throwIfAborted();
    const wrong = await this.#attempt(group[0]!.chunk, async () => {
      await readGroupInto(this.#image, group, batch.storedRoom, signal);
      return await batch.verify(name, group);
    });
    for (const { chunk, code, message } of wrong ?? []) this.#note(chunk, code, message);
    this.#doneBytes += bytesOfGroup(group);
    onProgress?.({ doneBytes: this.#doneBytes, totalBytes });
  }

  async #readSet(name: string): Promise<void> {
    const chunk = new Uint8Array(this.#image.chunkBytes);
    let loaded = -1;
    for await (const { offset, bytes } of this.#image.readWorkingSet(name, this.#options.signal)) {
      // The same bytes twice in a store: they must be the same.
      for (let at = 0; at < bytes.byteLength; at += PAGE_BYTES) {
        const place = Math.floor((offset + at) / chunk.byteLength);
        if (place !== loaded) await this.#image.readChunk(place, chunk, this.#options.signal);
        loaded = place;
        const from = offset + at - place * chunk.byteLength;
        const page = bytes.subarray(at, at + PAGE_BYTES);
        if (Buffer.compare(page, chunk.subarray(from, from + PAGE_BYTES)) === 0) continue;
        throw wrongBytes(`Working set ${name} has another page at ${offset + at} than the image`);
      }
    }
  }

  /** Notes what a source did wrong and goes on; anything else is not for the report. */
  async #attempt<T>(chunk: number | undefined, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof MinorfaultError) || error.kind !== "source") throw error;
      this.#note(chunk, error.code, error.message);
      return undefined;
    }
  }

  #note(chunk: number | undefined, code: string, message: string): void {
    this.#problemCount++;
    const offset = chunk === undefined ? {} : { offset: chunk * this.#image.chunkBytes };
    if (this.#problems.length < PROBLEMS_MAX) this.#problems.push({ ...offset, code, message });
  }
}
