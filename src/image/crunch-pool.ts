// Batches in memory that is shared with worker threads: chunks go there and come back without being copied.
//
//   one batch   ┌ chunks ┬ stored chunks ┬ hashes ┬ checks, lengths, zeros … ┐   slots: as many as keep all threads busy
//                 main ──▶  ◀── worker     ◀── worker ─────────────         while main writes a pack

import { Worker } from "node:worker_threads";
import { MinorfaultError } from "../base/errors.ts";
import { ENCODINGS } from "./content.ts";
import {
  type Batch,
  batchChunks,
  type Cruncher,
  type CruncherOptions,
  type StoredChunk,
  type WrongChunk,
} from "./cruncher.ts";
import { HASH_BYTES } from "./limits.ts";
import type { ChunkRecord } from "./walk.ts";

/**
 * LIMIT: batches for each thread. Writing a pack of 32 MiB takes main as long as some of them; with many more, threads
 * have less to wait for, and lose as much by what their processors have no longer at hand.
 */
const BATCHES_PER_THREAD = 8;

/** How long threads that have nothing to do stay: to start one takes 40 ms of a processor, and its first work as long again. */
const IDLE_MS = 15_000;

/** Where the parts of a batch lie in its shared memory. */
export interface BatchLayout {
  readonly chunkBytes: number;
  readonly capacity: number;
  readonly level: number | undefined;
}

export interface BatchViews {
  readonly bytes: Uint8Array;
  readonly stored: Uint8Array;
  readonly hashes: Uint8Array;
  readonly checks: Uint8Array;
  readonly zeros: Uint8Array;
  readonly noise: Uint8Array;
  /** Stored bytes a chunk; 0 where it is stored as it is. */
  readonly lengths: Uint32Array;
}

export type CrunchRequest =
  | { readonly op: "hash"; readonly slot: number; readonly chunks: number; readonly compress: boolean }
  | { readonly op: "compress"; readonly slot: number; readonly wanted: readonly number[] }
  /** Hashes, checks, lengths (of what is stored) and encodings (in the place of zeros) have been filled in. */
  | {
      readonly op: "verify";
      readonly slot: number;
      readonly image: string;
      readonly chunks: readonly number[];
    };

export interface CrunchReply {
  readonly slot: number;
  readonly error?: string;
  readonly wrong?: readonly WrongChunk[];
}

export interface CrunchStart {
  readonly layout: BatchLayout;
  readonly memory: readonly SharedArrayBuffer[];
}

export function batchViews(memory: SharedArrayBuffer, { chunkBytes, capacity }: BatchLayout): BatchViews {
  const content = capacity * chunkBytes;
  const hashes = 2 * content;
  const checks = hashes + capacity * HASH_BYTES;
  const lengths = checks + capacity * HASH_BYTES;
  const zeros = lengths + capacity * 4;
  return {
    bytes: new Uint8Array(memory, 0, content),
    stored: new Uint8Array(memory, content, content),
    hashes: new Uint8Array(memory, hashes, capacity * HASH_BYTES),
    checks: new Uint8Array(memory, checks, capacity * HASH_BYTES),
    lengths: new Uint32Array(memory, lengths, capacity),
    zeros: new Uint8Array(memory, zeros, capacity),
    noise: new Uint8Array(memory, zeros + capacity, capacity),
  };
}

export function batchBytes({ chunkBytes, capacity }: BatchLayout): number {
  return capacity * (2 * chunkBytes + 2 * HASH_BYTES + 4 + 2);
}

/** LIMIT: one pool without work. */
let idle: CrunchPool | undefined;

export class CrunchPool implements Cruncher {
  readonly isShared = true;
  readonly #options: CruncherOptions;
  readonly #workers: Worker[];
  /** What each thread has been asked and has not answered. */
  readonly #asked: Uint32Array;
  readonly #free: SharedBatch[] = [];
  readonly #waiting: ((batch: SharedBatch) => void)[] = [];
  #failure: Error | undefined;
  readonly #batches: SharedBatch[];
  #ending: NodeJS.Timeout | undefined;

  /** The one that has nothing to do, if it is for the same, or a new one. */
  static open(options: CruncherOptions, threads: number): CrunchPool {
    const pool = idle;
    if (pool === undefined || !pool.#isFor(options)) return new CrunchPool(options, threads);
    idle = undefined;
    clearTimeout(pool.#ending);
    for (const worker of pool.#workers) worker.ref();
    return pool;
  }

  private constructor(options: CruncherOptions, threads: number) {
    this.#options = options;
    const layout = { ...options, capacity: batchChunks(options.chunkBytes) };
    const count = threads * BATCHES_PER_THREAD;
    const memory = Array.from({ length: count }, () => new SharedArrayBuffer(batchBytes(layout)));
    const start: CrunchStart = { layout, memory };
    this.#workers = Array.from({ length: threads }, (_, thread) => {
      const worker = new Worker(new URL("./crunch-worker.js", import.meta.url), { workerData: start });
      worker.on("message", (reply: CrunchReply) => {
        this.#asked[thread]!--;
        this.#batches[reply.slot]?.answer(reply);
      });
      worker.on("error", (error) => this.#fail(error));
      return worker;
    });
    this.#asked = new Uint32Array(threads);
    const ask = (request: CrunchRequest) => this.#ask(request);
    this.#batches = memory.map(
      (shared, slot) =>
        new SharedBatch(slot, layout, batchViews(shared, layout), ask, () => this.#give(slot)),
    );
    this.#free.push(...this.#batches);
  }

  async take(): Promise<Batch> {
    if (this.#failure !== undefined) throw this.#failure;
    // The one that was used last: a processor may still have it at hand, and memory that nobody needs is not touched.
    const batch = this.#free.pop();
    return batch ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Its threads end after a while without work, and at once where something went wrong. To be called once. */
  async close(): Promise<void> {
    const isWhole = this.#failure === undefined && this.#free.length === this.#batches.length;
    if (!isWhole || idle !== undefined) {
      await this.#end();
      return;
    }
    idle = this;
    for (const worker of this.#workers) worker.unref();
    this.#ending = setTimeout(() => {
      idle = undefined;
      void this.#end();
    }, IDLE_MS).unref();
  }

  #isFor({ chunkBytes, level }: CruncherOptions): boolean {
    const { chunkBytes: mine, level: myLevel } = this.#options;
    return this.#failure === undefined && mine === chunkBytes && myLevel === level;
  }

  async #end(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** Asks the thread that has least to do. */
  #ask(request: CrunchRequest): void {
    const thread = this.#asked.indexOf(Math.min(...this.#asked));
    this.#asked[thread]!++;
    this.#workers[thread]!.postMessage(request);
  }

  #give(slot: number): void {
    const batch = this.#batches[slot]!;
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#free.push(batch);
    else waiting(batch);
  }

  #fail(error: Error): void {
    this.#failure = error;
    for (const batch of this.#batches) batch.answer({ slot: 0, error: error.message });
  }
}

class SharedBatch implements Batch {
  readonly capacity: number;
  readonly bytes: Uint8Array;
  readonly hashes: Uint8Array;
  readonly zeros: Uint8Array;
  readonly storedRoom: Uint8Array;
  readonly release: () => void;
  readonly #slot: number;
  readonly #views: BatchViews;
  readonly #chunkBytes: number;
  readonly #level: number | undefined;
  readonly #post: (request: CrunchRequest) => void;
  #isCompressed = false;
  #answer: ((reply: CrunchReply) => void) | undefined;

  constructor(
    slot: number,
    layout: BatchLayout,
    views: BatchViews,
    post: (request: CrunchRequest) => void,
    release: () => void,
  ) {
    this.capacity = layout.capacity;
    this.bytes = views.bytes;
    this.hashes = views.hashes;
    this.zeros = views.zeros;
    this.storedRoom = views.stored;
    this.release = release;
    this.#slot = slot;
    this.#views = views;
    this.#chunkBytes = layout.chunkBytes;
    this.#level = layout.level;
    this.#post = post;
  }

  async hash(chunks: number, areNew: boolean): Promise<void> {
    this.#isCompressed = areNew && this.#level !== undefined;
    await this.#ask({ op: "hash", slot: this.#slot, chunks, compress: this.#isCompressed });
  }

  async compress(wanted: readonly number[]): Promise<void> {
    if (wanted.length === 0 || this.#level === undefined || this.#isCompressed) return;
    await this.#ask({ op: "compress", slot: this.#slot, wanted });
  }

  stored(chunk: number): StoredChunk {
    const { stored, lengths, checks, hashes } = this.#views;
    const hashRange = [chunk * HASH_BYTES, (chunk + 1) * HASH_BYTES] as const;
    const at = chunk * this.#chunkBytes;
    const length = this.#level === undefined ? 0 : lengths[chunk]!;
    return length > 0
      ? { bytes: stored.subarray(at, at + length), check: checks.subarray(...hashRange), encoding: "zstd" }
      : {
          bytes: this.bytes.subarray(at, at + this.#chunkBytes),
          check: hashes.subarray(...hashRange),
          encoding: "raw",
        };
  }

  async verify(image: string, records: readonly ChunkRecord[]): Promise<readonly WrongChunk[]> {
    const { hashes, checks, lengths, zeros } = this.#views;
    for (const [index, { record }] of records.entries()) {
      hashes.set(record.hash, index * HASH_BYTES);
      checks.set(record.check, index * HASH_BYTES);
      lengths[index] = record.storedBytes;
      zeros[index] = ENCODINGS.indexOf(record.encoding);
    }
    const chunks = records.map(({ chunk }) => chunk);
    const { wrong = [] } = await this.#ask({ op: "verify", slot: this.#slot, image, chunks });
    return wrong;
  }

  answer(reply: CrunchReply): void {
    const answer = this.#answer;
    this.#answer = undefined;
    answer?.(reply);
  }

  #ask(request: CrunchRequest): Promise<CrunchReply> {
    return new Promise((resolve, reject) => {
      this.#answer = (reply) => {
        const { error } = reply;
        if (error === undefined) resolve(reply);
        else reject(new MinorfaultError("ERR_BUG", `A thread that hashes failed: ${error}`));
      };
      this.#post(request);
    });
  }
}
