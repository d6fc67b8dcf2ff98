// A pager in a process of its own, as its owner sees it: what a lazy memory needs of `Pager`, over a keeper's thread.

import { fstatSync } from "node:fs";
import { MessageChannel, receiveMessageOnPort, Worker } from "node:worker_threads";
import { PAGE_SIZE } from "../../../abi/memory.ts";
import { setBits, wordsFor } from "../../../base/bitmap.ts";
import { MinorfaultError } from "../../../base/errors.ts";
import type { Range } from "../../../base/range.ts";
import { close, local, open } from "../../../linux/index.ts";
import type {
  InstallOptions,
  Pager,
  PagerEnd,
  PagerOptions,
  PagerStatistics,
  RepairReport,
  ReplayReport,
  Residency,
  Trace,
} from "../../../pager/index.ts";
import { presentPages } from "../present-pages.ts";
import { errorOf, plainError, replayOf } from "./plain-error.ts";
import type { KeeperNote, KeeperOrder, KeeperStart, PagerStart, TraceRequest } from "./protocol.ts";

/** What a paged region uses of a pager; both kinds have it. */
export type RegionPager = Pick<
  Pager,
  | "close"
  | "ended"
  | "flush"
  | "installAll"
  | "keepAlive"
  | "repair"
  | "replayed"
  | "residency"
  | "statistics"
  | "trace"
  | "writes"
>;

/** Of a pager that has said nothing yet. */
export const NO_STATISTICS: PagerStatistics = {
  faults: 0,
  outcomes: { copied: 0, zeroed: 0, continued: 0, poisoned: 0, woken: 0 },
  bytesInstalled: 0,
  bytesZeroed: 0,
  bytesReplayed: 0,
  bytesEvicted: 0,
  bytesSwapped: 0,
  events: 0,
  retries: 0,
  waiting: 0,
  away: { read: 0, fetched: 0, joined: 0, ahead: 0, aheadMet: 0 },
  latencyUs: { p50: 0, p99: 0, max: 0 },
  latencyCounts: new Float64Array(0),
  latencySumUs: 0,
};

/** LIMIT: how long an owner waits for its trace: a process that has died is followed by another one within it. */
const TRACE_MS = 5000;

/** What the process is to serve, and from what. */
export interface ChildPagerOptions extends Omit<PagerStart, "fileBytes" | "pid" | "source"> {
  readonly content: Pick<PagerOptions, "image" | "source">;
  /** Stays the caller's, and open while the pager lives. */
  readonly uffd: number;
  readonly onError: (error: MinorfaultError) => void;
}

/** Starts the process; resolves when it serves. */
export async function startChildPager(options: ChildPagerOptions): Promise<RegionPager> {
  const { content, uffd, onError, ...rest } = options;
  const { image, source } = content;
  const path = image !== undefined && "path" in image ? image.path : undefined;
  const file = path === undefined ? -1 : open(local, path);
  const start: PagerStart = {
    ...rest,
    pid: process.pid,
    ...(file < 0 ? {} : { fileBytes: fstatSync(file).size }),
    ...(source === undefined ? {} : { source }),
  };
  const isPinned = file >= 0 || (source !== undefined && "digest" in source && source.digest !== undefined);
  const pager = new ChildPager({ start, uffd, file, isPinned }, onError);
  if (file >= 0) pager.ended.then(() => close(local, file));
  await pager.ready;
  return pager;
}

class ChildPager implements RegionPager {
  readonly ready: Promise<void>;
  readonly ended: Promise<PagerEnd>;
  readonly replayed: Promise<ReplayReport | undefined>;
  readonly #worker: Worker;
  readonly #start: PagerStart;
  /** Orders that have not been carried out. */
  readonly #orders = new Map<number, (error?: MinorfaultError) => void>();
  #statistics = NO_STATISTICS;
  #repaired: RepairReport = { repaired: 0, lost: 0 };
  #orderId = 0;
  #keepsAlive = true;
  #isEnded = false;

  constructor(options: KeeperStart, onError: (error: MinorfaultError) => void) {
    this.#start = options.start;
    const program = new URL("./keeper-worker.js", import.meta.url);
    this.#worker = new Worker(program, { workerData: options, execArgv: [] });
    let serve: () => void;
    const serving = new Promise<void>((resolve) => {
      serve = resolve;
    });
    let end: PagerEnd = { reason: "closed" };
    let replay: (report: ReplayReport | undefined) => void;
    this.replayed = new Promise((resolve) => {
      replay = resolve;
    });
    this.#worker.on("message", (note: KeeperNote) => {
      if (note.kind === "ready") serve();
      else if (note.kind === "error") onError(errorOf(note.error));
      else if (note.kind === "statistics") this.#statistics = note.statistics;
      else if (note.kind === "installed") this.#settle(note.id, note.error && errorOf(note.error));
      else if (note.kind === "repaired") {
        this.#repaired = note.report ?? this.#repaired;
        this.#settle(note.id, note.error && errorOf(note.error));
      } else if (note.kind === "replayed") replay(note.report && replayOf(note.report));
      else if (note.kind === "restarted") onError(diedError(note.signal, note.code));
      else if (note.error !== undefined) end = { reason: "failed", error: errorOf(note.error) };
    });
    this.#worker.on("error", (error) => {
      end = { reason: "failed", error: errorOf(plainError(error)) };
    });
    this.ended = new Promise((resolve) => {
      this.#worker.on("exit", () => {
        this.#isEnded = true;
        const error = new MinorfaultError("ERR_CLOSED", "The pager ended before all was installed");
        for (const id of this.#orders.keys()) this.#settle(id, error);
        replay(undefined);
        resolve(end);
      });
    });
    const failed = this.ended.then((ended) => {
      if (ended.reason === "failed") throw ended.error;
      throw new MinorfaultError("ERR_CLOSED", "The pager ended before it served");
    });
    this.ready = Promise.race([serving, failed]);
    failed.catch(() => undefined);
  }

  keepAlive(on: boolean): void {
    this.#keepsAlive = on;
    if (on || this.#orders.size > 0) this.#worker.ref();
    else this.#worker.unref();
  }

  async installAll({ range, signal }: InstallOptions = {}): Promise<void> {
    signal?.throwIfAborted();
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager has ended");
    await this.#order("install", range);
    signal?.throwIfAborted();
  }

  async repair(range?: Range): Promise<RepairReport> {
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager has ended");
    this.#repaired = { repaired: 0, lost: 0 };
    await this.#order("repair", range);
    return this.#repaired;
  }

  /** Resolves when it has been carried out, by whichever process. */
  async #order(kind: "install" | "repair", range: Partial<Range> = {}): Promise<void> {
    const { address, byteLength } = this.#start;
    const { start = address, until = address + byteLength } = range;
    const id = ++this.#orderId;
    await new Promise<void>((resolve, reject) => {
      this.#orders.set(id, (error) => (error === undefined ? resolve() : reject(error)));
      this.#worker.ref();
      this.#tell({ kind, id, start, until });
    });
  }

  #settle(id: number, error: MinorfaultError | undefined): void {
    const settle = this.#orders.get(id);
    this.#orders.delete(id);
    this.keepAlive(this.#keepsAlive);
    settle?.(error);
  }

  /** As the process has last told: some hundredths of a second old. */
  statistics(): PagerStatistics {
    return this.#statistics;
  }

  /** What the page table says now. */
  residency(): readonly Residency[] {
    const { address, byteLength } = this.#start;
    const pageCount = byteLength / PAGE_SIZE;
    const resident = new Uint32Array(wordsFor(pageCount));
    presentPages(address, pageCount, (page) => setBits(resident, page, page + 1));
    return [{ start: address, pageSize: PAGE_SIZE, pageCount, resident }];
  }

  /** Everything that has been touched before the call: the keeper answers while this thread stands still. */
  trace(): Trace {
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager has ended");
    const { port1, port2 } = new MessageChannel();
    const isThere = new Int32Array(new SharedArrayBuffer(4));
    const request: TraceRequest = { kind: "await-trace", port: port2, isThere };
    try {
      this.#worker.postMessage(request, [port2]);
      Atomics.wait(isThere, 0, 0, TRACE_MS);
      const answer = receiveMessageOnPort(port1) as { message: Trace } | undefined;
      if (answer !== undefined) return answer.message;
      throw new MinorfaultError(
        "ERR_DEADLINE",
        `The pager's process did not tell its trace within ${TRACE_MS} ms`,
      );
    } finally {
      port1.close();
    }
  }

  writes(): readonly [] {
    return [];
  }

  async flush(): Promise<never> {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "A pager in a process of its own does not track writes");
  }

  async close(): Promise<void> {
    this.keepAlive(true);
    if (!this.#isEnded) this.#tell({ kind: "close" });
    await this.ended;
  }

  #tell(order: KeeperOrder): void {
    this.#worker.postMessage(order);
  }
}

function diedError(signal: string | null, code: number | null): MinorfaultError {
  const how = signal === null ? `with exit code ${code}` : `by ${signal}`;
  return new MinorfaultError(
    "ERR_HANDLER_FAILED",
    `The pager's process has ended ${how}; another one serves`,
    {
      hint: "Nothing is lost: threads that waited for pages are served by the new one",
    },
  );
}
