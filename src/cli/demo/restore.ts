// One restore: a fresh guest, filled before or while it runs, and what that cost.
//
//   0 ─────────── first byte ─────────── random 2 % ─────────── everything ─── checked
//   [copy all]    guest touches page 0   residency map          SHA-256 of every page,
//   eager only                           is taken here          read from outside
//
// The clock starts when the guest's memory is empty and its pager waits. Until the first byte it is ours; after it,
// the guest's own, so looking at the residency in between costs nothing.

import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import { PAGE_SIZE } from "../../abi/memory.ts";
import type { PlacementReport } from "../../pager/index.ts";
import type { DemoHost, PagedGuest, Walk } from "./guest.ts";
import { CHUNK_PAGES, HASH_BYTES, hashPage, type Image } from "./image.ts";

/** Long enough for background work to end, short enough for the processor not to fall asleep deeply. */
const SETTLE_MS = 20;

export interface RestorePlan {
  readonly name: "eager" | "page-by-page" | "fault-around";
  readonly eager: boolean;
  /** Pages that the pager installs around a missing one. */
  readonly faultAroundPages: number;
}

/** The pages that every restore touches. */
export interface Tour {
  /** Touched after the first byte, in this order. */
  readonly sample: Uint32Array;
  /** Touched last: all of them, in ascending order. */
  readonly all: Uint32Array;
}

/** Microseconds that single accesses took, as the guest's clock saw them. */
export interface Latency {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface RestoreResult {
  readonly name: RestorePlan["name"];
  readonly faultAroundPages: number;
  /** Milliseconds from the start of the restore until the guest had read its first byte. */
  readonly firstByteMs: number;
  /** ... until it had touched the random sample. */
  readonly sampleMs: number;
  /** ... until it had touched every page. */
  readonly allMs: number;
  readonly faults: number;
  /** Of these, before the sample was touched. */
  readonly faultsUntilSample: number;
  /** Bytes moved: copied into the guest's memory. */
  readonly bytesMoved: number;
  readonly bytesMovedUntilSample: number;
  /** Bytes known to be zero, for which nothing was moved. */
  readonly bytesZeroed: number;
  /** Accesses that faulted; undefined when none did. */
  readonly faultUs: Latency | undefined;
  /** Accesses to pages that were there. */
  readonly residentUs: Latency | undefined;
  /**
   * How accesses that faulted were told from others: "residency", known page by page and equal in number to the
   * faults that the pager counted; "slowest", that many slowest accesses, where the two numbers differ.
   */
  readonly faultsToldBy: "residency" | "slowest";
  /** Pages there after the sample, one byte a page. */
  readonly residentAfterSample: Uint8Array;
  /** Pages whose SHA-256 was not the image's. */
  readonly wrongPages: number;
  /** Whether the words that the guest itself read were the image's. */
  readonly guestReadRight: boolean;
  readonly placement: PlacementReport | undefined;
}

export type RestoreStep = "start" | "copy" | "first byte" | "sample" | "all" | "check";

export interface RestoreObserver {
  /** The guest that is about to be filled; it may be looked at until the next one comes. */
  onGuest(guest: PagedGuest): void;
  onStep(step: RestoreStep, pageCount: number): void;
  onProgress(pagesDone: number): void;
}

export async function restore(
  plan: RestorePlan,
  tour: Tour,
  image: Image,
  host: DemoHost,
  observer: RestoreObserver,
  signal: AbortSignal,
): Promise<RestoreResult> {
  observer.onStep("start", 0);
  const guest = await host.open(image, plan.faultAroundPages);
  const onProgress = (done: number) => observer.onProgress(done);
  try {
    signal.throwIfAborted();
    observer.onGuest(guest);
    const accesses = new AccessLog(image.pageCount, plan.faultAroundPages);
    const first = Uint32Array.of(0);
    // The runtime's own threads (compilers, collectors) still work on what came before.
    await delay(SETTLE_MS, undefined, { signal });

    const began = performance.now();
    if (plan.eager) {
      observer.onStep("copy", image.pageCount);
      await guest.installAll(signal, onProgress);
      accesses.everythingIsThere();
    }
    observer.onStep("first byte", 1);
    const firstWalk = await guest.walk(first, signal);
    const firstByteMs = performance.now() - began;
    accesses.note(first, firstWalk);

    observer.onStep("sample", tour.sample.length);
    const sampleWalk = await guest.walk(tour.sample, signal, onProgress);
    accesses.note(tour.sample, sampleWalk);
    const untilSample = guest.counters();
    const residentAfterSample = guest.residentPages();

    observer.onStep("all", tour.all.length);
    const allWalk = await guest.walk(tour.all, signal, onProgress);
    accesses.note(tour.all, allWalk);
    const { faults, bytesCopied, bytesZeroed } = guest.counters();

    observer.onStep("check", image.pageCount);
    const wrongPages = await countWrongPages(guest, image, signal, onProgress);
    const sampleMs = firstByteMs + sampleWalk.durationUs / 1000;
    return {
      name: plan.name,
      faultAroundPages: plan.faultAroundPages,
      firstByteMs,
      sampleMs,
      allMs: sampleMs + allWalk.durationUs / 1000,
      faults,
      faultsUntilSample: untilSample.faults,
      bytesMoved: bytesCopied,
      bytesMovedUntilSample: untilSample.bytesCopied,
      bytesZeroed,
      ...accesses.summary(faults),
      residentAfterSample,
      wrongPages,
      guestReadRight:
        firstWalk.sum === guest.expectedSum(first, image) &&
        sampleWalk.sum === guest.expectedSum(tour.sample, image) &&
        allWalk.sum === guest.expectedSum(tour.all, image),
      placement: guest.placement,
    };
  } finally {
    await guest.close();
  }
}

/** Hashes the guest's whole memory and compares it with the image, page by page. */
async function countWrongPages(
  guest: PagedGuest,
  image: Image,
  signal: AbortSignal,
  onProgress: (pagesDone: number) => void,
): Promise<number> {
  const chunk = Buffer.alloc(CHUNK_PAGES * PAGE_SIZE);
  let wrong = 0;
  for (let first = 0; first < image.pageCount; first += CHUNK_PAGES) {
    signal.throwIfAborted();
    const count = Math.min(CHUNK_PAGES, image.pageCount - first);
    guest.readMemory(first * PAGE_SIZE, chunk.subarray(0, count * PAGE_SIZE));
    for (let index = 0; index < count; index++) {
      const hash = hashPage(chunk.subarray(index * PAGE_SIZE, (index + 1) * PAGE_SIZE));
      const at = (first + index) * HASH_BYTES;
      if (!hash.equals(image.hashes.subarray(at, at + HASH_BYTES))) wrong++;
    }
    onProgress(first + count);
    await nextTurn();
  }
  return wrong;
}

/** Tells accesses that faulted from those that did not, by following which pages are there. */
class AccessLog {
  readonly #resident: Uint8Array;
  readonly #faultAroundPages: number;
  readonly #faulted: number[] = [];
  readonly #others: number[] = [];

  constructor(pageCount: number, faultAroundPages: number) {
    this.#resident = new Uint8Array(pageCount);
    this.#faultAroundPages = faultAroundPages;
  }

  everythingIsThere(): void {
    this.#resident.fill(1);
  }

  note(pages: Uint32Array, walk: Walk): void {
    for (const [index, page] of pages.entries()) {
      const time = walk.accessUs[index] ?? 0;
      if (this.#resident[page] === 1) {
        this.#others.push(time);
        continue;
      }
      this.#faulted.push(time);
      const start = page - (page % this.#faultAroundPages);
      this.#resident.fill(1, start, start + this.#faultAroundPages);
    }
  }

  /** `faults`: how many the pager counted. */
  summary(faults: number): Pick<RestoreResult, "faultUs" | "residentUs" | "faultsToldBy"> {
    if (this.#faulted.length === faults) {
      return {
        faultUs: latency(this.#faulted),
        residentUs: latency(this.#others),
        faultsToldBy: "residency",
      };
    }
    const slowestFirst = [...this.#faulted, ...this.#others].sort((a, b) => b - a);
    return {
      faultUs: latency(slowestFirst.slice(0, faults)),
      residentUs: latency(slowestFirst.slice(faults)),
      faultsToldBy: "slowest",
    };
  }
}

function latency(times: readonly number[]): Latency | undefined {
  if (times.length === 0) return undefined;
  const sorted = Float64Array.from(times).sort();
  const quantile = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
  return { count: sorted.length, p50: quantile(0.5), p99: quantile(0.99), max: quantile(1) };
}
