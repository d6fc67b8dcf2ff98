// One guest's pager as its owner has it: orders go to the thread that serves it, and what comes back settles promises.
//
// The serving is done by a thread of its own (pager-worker.ts), which waits in system calls and never comes back to
// an event loop. Whoever may wait for a page must not be the one who brings it, so neither the owner's thread nor the
// pool of libuv has a part in it.

import { PAGE_SIZE } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import type { Range } from "../base/range.ts";
import type { GuestMessage, GuestOrder, SeatOrder } from "./control.ts";
import { COUNTER, readStatistics } from "./counters.ts";
import { FILL_BYTES_MAX } from "./installer.ts";
import { errorOf } from "./notes.ts";
import type {
  FlushStep,
  InstallOptions,
  Pager,
  PagerEnd,
  PagerStatistics,
  PlacementReport,
  RepairReport,
  ReplayReport,
  Residency,
  WriteBits,
} from "./options.ts";
import { readTrace, type Trace } from "./trace.ts";

const PROGRESS_MS = 50;
/** All addresses. */
const EVERYTHING: Range = { start: 0, until: Number.MAX_SAFE_INTEGER };

/** A `kind` of order without the guest's number, which the handle knows. */
type Unaddressed = SeatOrder extends infer Order
  ? Order extends SeatOrder
    ? Omit<Order, "guest">
    : never
  : never;

export interface HandleOptions {
  readonly order: GuestOrder;
  readonly onError: ((error: MinorfaultError) => void) | undefined;
  /** The thread that serves it. */
  readonly threadId: () => number;
  readonly placement: () => PlacementReport | undefined;
  readonly send: (order: SeatOrder) => void;
  /** It wants the process to stay, or does not any more. */
  readonly onKeepAlive: () => void;
  /** What has to be given back before it has ended. */
  readonly release: () => Promise<void>;
}

/** A promise and how to settle it. */
class Deferred<T> {
  readonly promise: Promise<T>;
  resolve!: (value: T) => void;
  reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }
}

export class PagerHandle implements Pager {
  readonly ended: Promise<PagerEnd>;
  readonly replayed: Promise<ReplayReport | undefined>;
  readonly #options: HandleOptions;
  readonly #ready = new Deferred<void>();
  readonly #end = new Deferred<PagerEnd>();
  readonly #replay = new Deferred<ReplayReport | undefined>();
  readonly #installs = new Map<number, () => void>();
  readonly #flushes = new Map<number, () => void>();
  readonly #repairs = new Map<number, (report: RepairReport | undefined) => void>();
  /** The last number that was given to an order. */
  #lastId = 0;
  #keepsAlive = true;
  #waiting = 0;
  #isEnded = false;
  #isGuestGone = false;

  constructor(options: HandleOptions) {
    this.#options = options;
    this.replayed = this.#replay.promise;
    const { image } = options.order;
    if (!("source" in image) || image.replay === undefined) this.#replay.resolve(undefined);
    this.ended = this.#end.promise.then(async (end) => {
      await options.release();
      return end.reason === "closed" && this.#isGuestGone ? { reason: "guest-gone" } : end;
    });
    this.#ready.promise.catch(() => undefined);
  }

  /** Resolves when the guest is being served; rejects with what is against that. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get placement(): PlacementReport {
    const placement = this.#options.placement();
    if (placement === undefined) throw new MinorfaultError("ERR_BUG", "The pager does not serve yet");
    return placement;
  }

  get threadId(): number {
    return this.#options.threadId();
  }

  /** Whether the process is to stay on its account. */
  get wantsAlive(): boolean {
    return !this.#isEnded && (this.#keepsAlive || this.#waiting > 0);
  }

  hear(message: GuestMessage): void {
    switch (message.kind) {
      case "ready":
        this.#ready.resolve();
        return;
      case "error":
        this.#report(errorOf(message.error));
        return;
      case "installed":
        this.#installs.get(message.id)?.();
        return;
      case "flushed":
        this.#flushes.get(message.id)?.();
        return;
      case "repaired":
        this.#repairs.get(message.id)?.(message.report);
        return;
      case "replayed": {
        const { error, ...report } = message.report;
        this.#replay.resolve(error === undefined ? report : { ...report, error: errorOf(error) });
        return;
      }
      case "ended": {
        const { end } = message;
        this.end(end.reason === "failed" ? { ...end, error: errorOf(end.error) } : end);
        return;
      }
      default:
        message satisfies never;
    }
  }

  /** It is over: whoever waits hears of it. */
  end(end: PagerEnd): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    const why = end.reason === "failed" ? end.error : undefined;
    this.#ready.reject(why ?? new MinorfaultError("ERR_CLOSED", "The pager ended before it served"));
    for (const settle of this.#installs.values()) settle();
    for (const settle of this.#flushes.values()) settle();
    for (const settle of this.#repairs.values()) settle(undefined);
    this.#replay.resolve(undefined);
    this.#end.resolve(end);
    this.#options.onKeepAlive();
  }

  /** The guest has ended: nobody is left to be served. */
  guestIsGone(): void {
    if (this.#isEnded) return;
    this.#isGuestGone = true;
    this.#send({ kind: "close" });
  }

  #report(error: MinorfaultError): void {
    const { onError } = this.#options;
    if (onError === undefined) process.emitWarning(error);
    else onError(error);
  }

  statistics(): PagerStatistics {
    return readStatistics(this.#options.order.counters);
  }

  residency(): readonly Residency[] {
    return this.#options.order.regions.map(({ start, pageSize, pageCount, resident }) => ({
      start,
      pageSize,
      pageCount,
      resident,
    }));
  }

  async installAll(options: InstallOptions = {}): Promise<void> {
    const { signal, onProgress, pieceBytes = FILL_BYTES_MAX, range } = options;
    signal?.throwIfAborted();
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager has ended");
    if (this.#installs.size > 0) {
      throw new MinorfaultError("ERR_BUSY", "This pager is installing everything already");
    }
    if (!Number.isSafeInteger(pieceBytes) || pieceBytes < PAGE_SIZE || pieceBytes > FILL_BYTES_MAX) {
      throw new MinorfaultError(
        "ERR_OUT_OF_RANGE",
        `pieceBytes must lie between ${PAGE_SIZE} and ${FILL_BYTES_MAX}`,
      );
    }
    const id = ++this.#lastId;
    const { counters } = this.#options.order;
    const report = (): void =>
      onProgress?.({
        bytesDone: counters[COUNTER.BULK_DONE]!,
        bytesTotal: counters[COUNTER.BULK_TOTAL]!,
      });
    const progress = onProgress === undefined ? undefined : setInterval(report, PROGRESS_MS);
    const abort = (): void => this.#installs.get(id)?.();
    signal?.addEventListener("abort", abort);
    try {
      await this.#awaitAnswer((resolve) => {
        this.#installs.set(id, resolve);
        this.#send({ kind: "bulk", id, pieceBytes, range });
      });
    } finally {
      this.#installs.delete(id);
      clearInterval(progress);
      signal?.removeEventListener("abort", abort);
    }
    if (signal?.aborted) {
      if (!this.#isEnded) this.#send({ kind: "bulk", id: 0, pieceBytes, range });
      signal.throwIfAborted();
    }
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager ended before all was installed");
    report();
  }

  writes(): readonly WriteBits[] {
    return this.#options.order.regions.flatMap(({ writes }) => (writes === undefined ? [] : [writes]));
  }

  async flush(step: FlushStep): Promise<void> {
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager has ended");
    const id = ++this.#lastId;
    await this.#awaitAnswer((resolve) => {
      this.#flushes.set(id, resolve);
      this.#send({ kind: "flush", id, step });
    });
    this.#flushes.delete(id);
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager ended during a flush");
  }

  keepAlive(on: boolean): void {
    this.#keepsAlive = on;
    this.#options.onKeepAlive();
  }

  /** Whoever waits for an answer of the thread keeps the process alive. */
  async #awaitAnswer(begin: (resolve: () => void) => void): Promise<void> {
    this.#waiting++;
    this.#options.onKeepAlive();
    try {
      await new Promise<void>(begin);
    } finally {
      this.#waiting--;
      this.#options.onKeepAlive();
    }
  }

  async close(): Promise<void> {
    this.keepAlive(true);
    if (!this.#isEnded) this.#send({ kind: "close" });
    await this.ended;
  }

  trace(): Trace {
    const { trace } = this.#options.order;
    return trace === undefined ? { touches: [], dropped: 0 } : readTrace(trace);
  }

  async repair(range?: Range): Promise<RepairReport> {
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager has ended");
    if (this.#repairs.size > 0) throw new MinorfaultError("ERR_BUSY", "This pager is repairing already");
    const id = ++this.#lastId;
    const report = await new Promise<RepairReport | undefined>((resolve) => {
      this.#repairs.set(id, resolve);
      this.#send({ kind: "repair", id, range: range ?? EVERYTHING });
    });
    this.#repairs.delete(id);
    if (report === undefined) throw new MinorfaultError("ERR_CLOSED", "This pager ended during a repair");
    return report;
  }

  #send(order: Unaddressed): void {
    this.#options.send({ ...order, guest: this.#options.order.guest } as SeatOrder);
  }
}
