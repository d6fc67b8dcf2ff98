// The pager as its users see it: started with a userfaultfd and an image, it serves faults until it is closed.
//
// The serving is done by a thread of its own (pager-worker.ts), which waits in system calls and never comes back to
// an event loop; here is the handle to it. Whoever may wait for a page must not be the one who brings it, so neither
// this thread nor the pool of libuv has a part in it.

import { isMainThread, Worker } from "node:worker_threads";
import { PAGE_SIZE } from "../abi/memory.ts";
import { UFFDIO_ZEROPAGE_MODE } from "../abi/userfaultfd.ts";
import { hasBit, setBits, wordsFor } from "../base/bitmap.ts";
import { MinorfaultError } from "../base/errors.ts";
import type { Range } from "../base/range.ts";
import { close, duplicate, local } from "../linux/index.ts";
import { Ioctls } from "../uffd/ioctls.ts";
import { checkImage, checkPagerOptions } from "./check-options.ts";
import { CONTROL, CONTROL_WORDS, FLUSH_STEPS, type RegionOrder, type WorkOrder } from "./control.ts";
import { COUNTER, makeCounters, readStatistics } from "./counters.ts";
import { type PreparedImage, prepareImage } from "./image.ts";
import { FILL_BYTES_MAX } from "./installer.ts";
import { isProcessGone } from "./liveness.ts";
import type {
  FlushStep,
  InstallOptions,
  Pager,
  PagerEnd,
  PagerOptions,
  PagerRegion,
  PagerStatistics,
  PlacementReport,
  RepairReport,
  ReplayReport,
  Residency,
  WriteBits,
} from "./options.ts";
import { TOUCHER_WORDS } from "./self-test.ts";
import { makeTrace, readTrace, type Trace, type TraceMemory } from "./trace.ts";
import { WorkerLink } from "./worker-link.ts";

const FAULT_AROUND_PAGES = 16;
/** How often to look whether the guest still lives. */
const GUEST_MS = 250;
const PROGRESS_MS = 50;
const TWO_32 = 2 ** 32;

/** What the first self-test of this process has found: it holds for the next pagers too. */
let tested: PlacementReport | undefined;

/** Starts serving the faults of a userfaultfd; resolves when the pager's thread is about to wait for the first one. */
export async function startPager(options: PagerOptions): Promise<Pager> {
  checkPagerOptions(options);
  const image = await prepareImage(options);
  try {
    checkImage(options.regions, image.place.byteLength);
    const pager = new WorkerPager(options, image);
    await pager.ready;
    return pager;
  } catch (error) {
    await image.close();
    throw error;
  } finally {
    image.started();
  }
}

class WorkerPager implements Pager {
  readonly ready: Promise<void>;
  readonly ended: Promise<PagerEnd>;
  readonly #link: WorkerLink;
  readonly #counters = makeCounters();
  readonly #regions: readonly RegionOrder[];
  readonly #installs = new Map<number, () => void>();
  readonly #flushes = new Map<number, () => void>();
  readonly replayed: Promise<ReplayReport | undefined>;
  readonly #trace: TraceMemory | undefined;
  readonly #repairs = new Map<number, (report: RepairReport | undefined) => void>();
  #placement: PlacementReport | undefined;
  #installId = 0;
  #flushId = 0;
  #repairId = 0;
  #keepsAlive = true;
  #waiting = 0;
  #isEnded = false;
  #isGuestGone = false;

  constructor(options: PagerOptions, image: PreparedImage) {
    const { placement: asked = "auto", guest, plan, onError } = options;
    const { writes = "ignore", budgetBytes = 0, swapDescriptor } = options;
    const tracks = writes === "track";
    this.#regions = options.regions.map((region) => regionOrder(region, options.zeroPages, tracks));
    const watch = this.#watch(options.descriptor);
    const known = asked === "auto" ? tested : { asked, mode: asked, why: "asked for" };
    this.#trace = options.trace ? makeTrace() : undefined;
    let replayed: (report: ReplayReport | undefined) => void = () => undefined;
    this.replayed = new Promise((resolve) => {
      replayed = resolve;
    });
    if (!("fetch" in image.place) || image.place.fetch.replaying === undefined) replayed(undefined);
    const order: WorkOrder = {
      fd: duplicate(local, options.descriptor),
      regions: this.#regions,
      windowPages: options.trace ? 1 : (plan?.faultAroundPages ?? FAULT_AROUND_PAGES),
      isAdaptive: plan?.adaptive === true && !options.trace,
      trace: this.#trace,
      image: image.place,
      control: new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4)),
      counters: this.#counters,
      placement: known,
      guestPid: guest?.pid ?? 0,
      tid: guest?.tid ?? guest?.pid ?? 0,
      toucher: known === undefined ? startToucher() : undefined,
      isNested: !isMainThread,
      budgetBytes,
      writes,
      swapFd: swapDescriptor === undefined ? -1 : duplicate(local, swapDescriptor),
      swapBytes: Math.max(...options.regions.map((region) => region.imageOffset + region.byteLength)),
    };
    const listener = {
      onError: onError ?? ((error: MinorfaultError) => process.emitWarning(error)),
      onInstalled: (id: number) => this.#installs.get(id)?.(),
      onFlushed: (id: number) => this.#flushes.get(id)?.(),
      onReplayed: (report: ReplayReport) => replayed(report),
      onRepaired: (id: number, report: RepairReport) => this.#repairs.get(id)?.(report),
    };
    this.#link = new WorkerLink(order, listener, image.transfer);
    this.ready = this.#link.ready.then((placement) => {
      this.#placement = placement;
      if (placement.selfTest !== undefined) tested = placement;
    });
    this.ended = this.#link.ended.then(async (end) => {
      this.#isEnded = true;
      watch.stop();
      for (const settle of this.#installs.values()) settle();
      for (const settle of this.#flushes.values()) settle();
      for (const settle of this.#repairs.values()) settle(undefined);
      replayed(undefined);
      await image.close();
      return end.reason === "closed" && this.#isGuestGone ? { reason: "guest-gone" } : end;
    });
  }

  get placement(): PlacementReport {
    if (this.#placement === undefined) throw new MinorfaultError("ERR_BUG", "The pager does not serve yet");
    return this.#placement;
  }

  get threadId(): number {
    return this.#link.threadId;
  }

  statistics(): PagerStatistics {
    return readStatistics(this.#counters);
  }

  residency(): readonly Residency[] {
    return this.#regions.map(({ start, pageSize, pageCount, resident }) => ({
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
    const id = ++this.#installId;
    const report = (): void =>
      onProgress?.({
        bytesDone: this.#counters[COUNTER.BULK_DONE]!,
        bytesTotal: this.#counters[COUNTER.BULK_TOTAL]!,
      });
    const progress = onProgress === undefined ? undefined : setInterval(report, PROGRESS_MS);
    const abort = (): void => this.#installs.get(id)?.();
    signal?.addEventListener("abort", abort);
    try {
      await this.#awaitAnswer((resolve) => {
        this.#installs.set(id, resolve);
        this.#link.order(CONTROL.BULK_PIECE, pieceBytes);
        this.#orderAddress(CONTROL.BULK_START, range?.start ?? 0);
        this.#orderAddress(CONTROL.BULK_UNTIL, range?.until ?? 0);
        this.#link.request(CONTROL.BULK, id);
      });
    } finally {
      this.#installs.delete(id);
      clearInterval(progress);
      signal?.removeEventListener("abort", abort);
    }
    if (signal?.aborted) {
      if (!this.#isEnded) this.#link.request(CONTROL.BULK, 0);
      signal.throwIfAborted();
    }
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager ended before all was installed");
    report();
  }

  writes(): readonly WriteBits[] {
    return this.#regions.flatMap(({ writes }) => (writes === undefined ? [] : [writes]));
  }

  async flush(step: FlushStep): Promise<void> {
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager has ended");
    const id = ++this.#flushId;
    await this.#awaitAnswer((resolve) => {
      this.#flushes.set(id, resolve);
      this.#link.order(CONTROL.FLUSH_STEP, FLUSH_STEPS.indexOf(step));
      this.#link.request(CONTROL.FLUSH, id);
    });
    this.#flushes.delete(id);
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager ended during a flush");
  }

  keepAlive(on: boolean): void {
    this.#keepsAlive = on;
    this.#link.keepAlive(on || this.#waiting > 0);
  }

  /** Whoever waits for an answer of the thread keeps the process alive. */
  async #awaitAnswer(begin: (resolve: () => void) => void): Promise<void> {
    this.#waiting++;
    this.#link.keepAlive(true);
    try {
      await new Promise<void>(begin);
    } finally {
      this.#waiting--;
      this.keepAlive(this.#keepsAlive);
    }
  }

  async close(): Promise<void> {
    this.keepAlive(true);
    if (!this.#isEnded) this.#link.request(CONTROL.STOP, 1);
    await this.ended;
  }

  trace(): Trace {
    return this.#trace === undefined ? { touches: [], dropped: 0 } : readTrace(this.#trace);
  }

  async repair(range?: Range): Promise<RepairReport> {
    if (this.#isEnded) throw new MinorfaultError("ERR_CLOSED", "This pager has ended");
    if (this.#repairs.size > 0) throw new MinorfaultError("ERR_BUSY", "This pager is repairing already");
    const id = ++this.#repairId;
    const report = await new Promise<RepairReport | undefined>((resolve) => {
      this.#repairs.set(id, resolve);
      this.#orderAddress(CONTROL.REPAIR_START, range?.start ?? 0);
      this.#orderAddress(CONTROL.REPAIR_UNTIL, range?.until ?? Number.MAX_SAFE_INTEGER);
      this.#link.request(CONTROL.REPAIR, id);
    });
    this.#repairs.delete(id);
    if (report === undefined) throw new MinorfaultError("ERR_CLOSED", "This pager ended during a repair");
    return report;
  }

  #orderAddress(word: number, address: number): void {
    this.#link.order(word, (address % TWO_32) | 0);
    this.#link.order(word + 1, address / TWO_32);
  }

  /** Looks now and then whether the guest has ended. */
  #watch(descriptor: number): { stop(): void } {
    const fd = duplicate(local, descriptor);
    const ioctls = new Ioctls(local, fd);
    const timer = setInterval(() => {
      const { DONTWAKE } = UFFDIO_ZEROPAGE_MODE;
      if (!isProcessGone((start, byteLength) => ioctls.zeropage(start, byteLength, DONTWAKE).errno)) return;
      clearInterval(timer);
      this.#isGuestGone = true;
      this.#link.request(CONTROL.STOP, 1);
    }, GUEST_MS);
    timer.unref();
    return {
      stop() {
        clearInterval(timer);
        close(local, fd);
      },
    };
  }
}

/** A region with its bitmaps, in memory that both threads see. */
function regionOrder(region: PagerRegion, zeroPages: Uint32Array | undefined, tracks: boolean): RegionOrder {
  const { start, byteLength, imageOffset, pageSize = PAGE_SIZE } = region;
  const pageCount = byteLength / pageSize;
  const bitmap = (): Uint32Array => new Uint32Array(new SharedArrayBuffer(wordsFor(pageCount) * 4));
  const zero = bitmap();
  let hasZeros = false;
  // A bit of the image stands for 4 KiB: it tells nothing of a huge page, or of content that is not aligned to it.
  if (zeroPages !== undefined && pageSize === PAGE_SIZE && imageOffset % PAGE_SIZE === 0) {
    const first = imageOffset / PAGE_SIZE;
    for (let page = 0; page < pageCount && first + page < zeroPages.length * 32; page++) {
      if (!hasBit(zeroPages, first + page)) continue;
      setBits(zero, page, page + 1);
      hasZeros = true;
    }
  }
  const writes = tracks ? { written: bitmap(), swapped: bitmap(), flushing: bitmap() } : undefined;
  return { start, pageSize, pageCount, imageOffset, resident: bitmap(), zero, hasZeros, writes };
}

/** The second thread of the self-test; it ends when it is dismissed. */
function startToucher(): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(TOUCHER_WORDS * 4));
  const worker = new Worker(new URL("./toucher-worker.js", import.meta.url), {
    workerData: words,
    execArgv: [],
  });
  worker.unref();
  // Its failure shows as a self-test that does not end, which has a deadline.
  worker.on("error", () => undefined);
  return words;
}
