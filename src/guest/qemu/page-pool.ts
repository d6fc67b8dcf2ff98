// Threads that read, verify and decompress pages, each with the image open for itself. What they make lies in shared
// memory.
//
//   main   ── range, slot ──▶  worker: read chunks, check hashes, decompress into the slot, look for zeros
//          ◀── done ─────────          the slot is main's until it gives it back

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { MinorfaultError } from "../../base/errors.ts";
import { type ErrorNote, errorOf } from "../../pager/notes.ts";
import type { PageContent, PageRange } from "./page-content.ts";
import type { PageReader } from "./page-reader.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** LIMIT: threads; the destination needs processors as well. */
const THREADS_MAX = 8;
/** LIMIT: pieces a thread: one that is made, one that waits, one that is being written. */
const SLOTS_PER_THREAD = 3;

export interface PoolImage {
  readonly url: string;
  /** SHA-256 of the manifest: all threads read the same image. */
  readonly digest: string;
}

export interface PoolStart {
  readonly image: PoolImage;
  readonly slots: readonly SharedArrayBuffer[];
  readonly pagesMax: number;
}

export interface PoolRequest {
  readonly slot: number;
  readonly range: PageRange;
}

export interface PoolReply {
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

/** The parts of a slot: pages, and a byte for each that says whether it is zeros. */
export function slotViews(memory: SharedArrayBuffer, pagesMax: number): SlotViews {
  const bytes = new Uint8Array(memory, 0, pagesMax * PAGE_BYTES);
  return { bytes, zeros: new Uint8Array(memory, bytes.byteLength) };
}

type Settle = { readonly resolve: () => void; readonly reject: (error: unknown) => void };

export class PagePool implements PageReader {
  readonly #workers: Worker[];
  readonly #views: readonly SlotViews[];
  readonly #free: number[];
  readonly #waiting: ((slot: number) => void)[] = [];
  readonly #asked = new Map<number, Settle>();
  #failure: unknown;

  /** `pagesMax`: of one range. */
  constructor(image: PoolImage, pagesMax: number, threads: number = poolThreads()) {
    const slots = Array.from(
      { length: threads * SLOTS_PER_THREAD },
      () => new SharedArrayBuffer(pagesMax * (PAGE_BYTES + 1)),
    );
    this.#views = slots.map((memory) => slotViews(memory, pagesMax));
    this.#free = slots.map((_, index) => index);
    const workerData: PoolStart = { image, slots, pagesMax };
    this.#workers = Array.from({ length: threads }, () => {
      const worker = new Worker(new URL("./page-worker.js", import.meta.url), { workerData, execArgv: [] });
      worker.on("message", (reply: PoolReply) => this.#answer(reply));
      worker.on("error", (error) => this.#fail(error));
      return worker;
    });
  }

  async read(range: PageRange, signal: AbortSignal): Promise<PageContent> {
    const slot = this.#free.shift() ?? (await new Promise<number>((resolve) => this.#waiting.push(resolve)));
    try {
      signal.throwIfAborted();
      if (this.#failure !== undefined) throw this.#failure;
      await this.#ask(slot, range);
      const { bytes, zeros } = this.#views[slot]!;
      const { first, count } = range;
      return { first, count, bytes, zeros, release: () => this.#give(slot) };
    } catch (error) {
      this.#give(slot);
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#fail(new MinorfaultError("ERR_CLOSED", "The threads that read pages have been ended"));
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #ask(slot: number, range: PageRange): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#asked.set(slot, { resolve, reject });
      const request: PoolRequest = { slot, range };
      this.#workers[slot % this.#workers.length]!.postMessage(request);
    });
  }

  #answer({ slot, error }: PoolReply): void {
    const settle = this.#asked.get(slot);
    this.#asked.delete(slot);
    if (error === undefined) settle?.resolve();
    else settle?.reject(errorOf(error));
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    for (const { reject } of this.#asked.values()) reject(error);
    this.#asked.clear();
  }

  #give(slot: number): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(slot);
    else next(slot);
  }
}
