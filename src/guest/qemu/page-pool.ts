// Threads that read, verify and decompress pages, for as many readers of images as there are. What they make lies in
// shared memory.
//
//   main   ── range, slot ──▶  worker: read chunks, check hashes, decompress, look for zeros, make records in the slot
//          ◀── done ─────────          the slot is main's until it gives it back

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { MinorfaultError } from "../../base/errors.ts";
import { type ErrorNote, errorOf } from "../../pager/notes.ts";
import type { PageContent, PageRange } from "./page-content.ts";
import type { PageReader } from "./page-reader.ts";
import { RECORD_BYTES } from "./page-records.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** LIMIT: threads; the destination needs processors as well. */
const THREADS_MAX = 8;
/** LIMIT: pieces a thread and reader: one that is made, one that waits, one that is being written. */
const SLOTS_PER_THREAD = 3;

export interface PoolImage {
  readonly url: string;
  /** SHA-256 of the manifest: all threads read the same image. */
  readonly digest: string;
}

/** A reader begins, asks, and ends. */
export type PoolMessage = PoolStart | PoolRequest | PoolEnd;

export interface PoolStart {
  readonly kind: "start";
  readonly reader: number;
  readonly image: PoolImage;
  readonly slots: readonly SharedArrayBuffer[];
  readonly pagesMax: number;
}

export interface PoolRequest {
  readonly kind: "read";
  readonly reader: number;
  readonly slot: number;
  readonly range: PageRange;
  /** The first page of their block: records of them are made; otherwise they are pages. */
  readonly blockFirst: number | undefined;
}

export interface PoolEnd {
  readonly kind: "end";
  readonly reader: number;
}

export interface PoolReply {
  readonly reader: number;
  readonly slot: number;
  readonly error?: ErrorNote;
}

export function poolThreads(): number {
  return Math.min(THREADS_MAX, Math.max(1, availableParallelism() - 1));
}

export interface SlotViews {
  readonly bytes: Uint8Array;
  readonly zeros: Uint8Array;
}

/** The parts of a slot: pages or records of them, and a byte for each that says whether it is zeros. */
export function slotViews(memory: SharedArrayBuffer, pagesMax: number): SlotViews {
  const bytes = new Uint8Array(memory, 0, pagesMax * RECORD_BYTES);
  return { bytes, zeros: new Uint8Array(memory, bytes.byteLength) };
}

export class PagePool {
  readonly #workers: Worker[];
  readonly #readers = new Map<number, PooledReader>();
  #nextReader = 0;
  #failure: unknown;

  /** Starts the threads, which takes them longer than anything else: best before the image is known. */
  constructor(threads: number = poolThreads()) {
    this.#workers = Array.from({ length: threads }, () => {
      const worker = new Worker(new URL("./page-worker.js", import.meta.url), { execArgv: [] });
      worker.on("message", (reply: PoolReply) => this.#readers.get(reply.reader)?.answer(reply));
      worker.on("error", (error) => this.#fail(error));
      return worker;
    });
  }

  /** Reads an image. `pagesMax`: of one range. */
  open(image: PoolImage, pagesMax: number): PageReader {
    const reader = this.#nextReader++;
    const count = this.#workers.length * SLOTS_PER_THREAD;
    const slots = Array.from({ length: count }, () => new SharedArrayBuffer(pagesMax * (RECORD_BYTES + 1)));
    const views = slots.map((memory) => slotViews(memory, pagesMax));
    const opened = new PooledReader(reader, this.#workers, views, () => this.#readers.delete(reader));
    if (this.#failure !== undefined) opened.fail(this.#failure);
    this.#readers.set(reader, opened);
    const start: PoolStart = { kind: "start", reader, image, slots, pagesMax };
    for (const worker of this.#workers) worker.postMessage(start);
    return opened;
  }

  async close(): Promise<void> {
    this.#fail(new MinorfaultError("ERR_CLOSED", "The threads that read pages have been ended"));
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    for (const reader of this.#readers.values()) reader.fail(error);
  }
}

type Settle = { readonly resolve: () => void; readonly reject: (error: unknown) => void };

class PooledReader implements PageReader {
  readonly #reader: number;
  readonly #workers: readonly Worker[];
  readonly #views: readonly SlotViews[];
  readonly #free: number[];
  readonly #waiting: ((slot: number) => void)[] = [];
  readonly #asked = new Map<number, Settle>();
  readonly #forget: () => void;
  #failure: unknown;

  constructor(reader: number, workers: readonly Worker[], views: readonly SlotViews[], forget: () => void) {
    this.#reader = reader;
    this.#workers = workers;
    this.#views = views;
    this.#free = views.map((_, slot) => slot);
    this.#forget = forget;
  }

  async read(range: PageRange, signal: AbortSignal, blockFirst?: number): Promise<PageContent> {
    const slot = this.#free.shift() ?? (await new Promise<number>((resolve) => this.#waiting.push(resolve)));
    try {
      signal.throwIfAborted();
      if (this.#failure !== undefined) throw this.#failure;
      await this.#ask({ kind: "read", reader: this.#reader, slot, range, blockFirst });
      const stride = blockFirst === undefined ? PAGE_BYTES : RECORD_BYTES;
      return { ...range, ...this.#views[slot]!, stride, release: () => this.#give(slot) };
    } catch (error) {
      this.#give(slot);
      throw error;
    }
  }

  async close(): Promise<void> {
    this.fail(new MinorfaultError("ERR_CLOSED", "The reader of pages has been closed"));
    const end: PoolEnd = { kind: "end", reader: this.#reader };
    for (const worker of this.#workers) worker.postMessage(end);
    this.#forget();
  }

  answer({ slot, error }: PoolReply): void {
    const settle = this.#asked.get(slot);
    this.#asked.delete(slot);
    if (error === undefined) settle?.resolve();
    else settle?.reject(errorOf(error));
  }

  /** Whoever waits, or comes later, gets this error. */
  fail(error: unknown): void {
    this.#failure ??= error;
    for (const { reject } of this.#asked.values()) reject(error);
    this.#asked.clear();
  }

  #ask(request: PoolRequest): Promise<void> {
    const { slot } = request;
    return new Promise((resolve, reject) => {
      this.#asked.set(slot, { resolve, reject });
      this.#workers[slot % this.#workers.length]!.postMessage(request);
    });
  }

  #give(slot: number): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(slot);
    else next(slot);
  }
}
