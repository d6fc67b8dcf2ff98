// Threads that write files: whoever makes their content neither waits for the disk nor copies into the kernel.
//
//   main     begin ──▶ write ──▶ write ──▶ … ──▶ finish         content in shared memory is not copied on its way
//   thread   create    write, and the disk begins     fsync, rename, fsync of the folder
//
// Not libuv's threads, as nowhere in this folder: those may be standing in faults (durable-file.ts).

import { Worker } from "node:worker_threads";
import { type ErrorCode, MinorfaultError } from "../base/errors.ts";
import type { PutOptions, Upload } from "./object-store.ts";

/** How long the thread stays without work: to start one takes 40 ms of a processor. As long as those of crunch-pool.ts. */
const IDLE_MS = 15_000;

export type WriteRequest = { readonly id: number; readonly upload: number } & (
  | { readonly op: "begin"; readonly path: string }
  | { readonly op: "write"; readonly pieces: readonly Uint8Array[] }
  | { readonly op: "finish"; readonly path: string; readonly ifAbsent: boolean }
  | { readonly op: "discard" }
);

type WriteOrder = WriteRequest extends infer R ? (R extends WriteRequest ? Omit<R, "id"> : never) : never;

export interface WriteReply {
  readonly id: number;
  readonly error?: { readonly code: ErrorCode; readonly message: string };
}

interface Asked {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** LIMIT: threads. While one waits until a file is on the disk, the other one writes the next. */
const THREADS_MAX = 2;
const threads: WriteThread[] = [];

class WriteThread {
  readonly #worker = new Worker(new URL("./write-worker.js", import.meta.url), { execArgv: [] });
  readonly #asked = new Map<number, Asked>();
  #next = 0;
  #uploads = 0;
  #idle: NodeJS.Timeout | undefined;
  #failure: MinorfaultError | undefined;

  /** One that has nothing to do, or the one that has least. */
  static get(): WriteThread {
    const least = threads.reduce<WriteThread | undefined>(
      (a, b) => (a === undefined || b.#uploads < a.#uploads ? b : a),
      undefined,
    );
    if (least !== undefined && (least.#uploads === 0 || threads.length === THREADS_MAX)) return least;
    const thread = new WriteThread();
    threads.push(thread);
    return thread;
  }

  private constructor() {
    this.#worker.on("message", ({ id, error }: WriteReply) => {
      const asked = this.#asked.get(id);
      this.#asked.delete(id);
      if (error === undefined) asked?.resolve();
      else asked?.reject(new MinorfaultError(error.code, error.message));
    });
    this.#worker.on("error", (cause) => {
      this.#forget();
      this.#failure = new MinorfaultError("ERR_BUG", `The thread that writes files failed: ${cause.message}`);
      for (const { reject } of this.#asked.values()) reject(this.#failure);
      this.#asked.clear();
    });
    this.#worker.unref();
  }

  begin(): number {
    clearTimeout(this.#idle);
    if (this.#uploads++ === 0) this.#worker.ref();
    return this.#next++;
  }

  end(): void {
    if (--this.#uploads > 0) return;
    this.#worker.unref();
    this.#idle = setTimeout(() => {
      this.#forget();
      void this.#worker.terminate();
    }, IDLE_MS).unref();
  }

  async ask(order: WriteOrder): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject });
      this.#worker.postMessage({ ...order, id } as WriteRequest);
    });
  }

  #forget(): void {
    const index = threads.indexOf(this);
    if (index !== -1) threads.splice(index, 1);
  }
}

export class FolderUpload implements Upload {
  readonly #thread = WriteThread.get();
  readonly #upload = this.#thread.begin();
  readonly #place: (key: string) => string;
  readonly #begun: Promise<void>;
  #isOver = false;

  /** `path`: a file that there could be in the folder of the unfinished one; `place`: the path of a key. */
  constructor(path: string, place: (key: string) => string) {
    this.#place = place;
    this.#begun = this.#thread.ask({ op: "begin", upload: this.#upload, path });
    this.#begun.catch(() => {});
  }

  async write(pieces: readonly Uint8Array[]): Promise<void> {
    await this.#ask({ op: "write", upload: this.#upload, pieces: pieces.map(portable) });
  }

  async finish(key: string, { ifAbsent = false, signal }: PutOptions = {}): Promise<void> {
    try {
      signal?.throwIfAborted();
      await this.#ask({ op: "finish", upload: this.#upload, path: this.#place(key), ifAbsent });
      this.#end();
    } catch (error) {
      await this.discard();
      throw error;
    }
  }

  async discard(): Promise<void> {
    if (this.#isOver) return;
    await this.#thread.ask({ op: "discard", upload: this.#upload }).catch(() => {});
    this.#end();
  }

  /** What went wrong first is what is told. */
  async #ask(order: WriteOrder): Promise<void> {
    if (this.#isOver) throw new MinorfaultError("ERR_CLOSED", "The upload has ended");
    await Promise.all([this.#begun, this.#thread.ask(order)]);
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#thread.end();
  }
}

/** A message takes with it the whole buffer that a view is of, unless that is shared. */
function portable(piece: Uint8Array): Uint8Array {
  const { buffer, byteLength } = piece;
  return buffer instanceof SharedArrayBuffer || byteLength === buffer.byteLength
    ? piece
    : new Uint8Array(piece);
}
