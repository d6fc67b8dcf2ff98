// What a pager is told and what it answers: the types that users of `startPager` see.
//
// Addresses are the guest's unless it says otherwise; an image is a piece of memory or a file that holds what
// the guest's memory should contain.

import type { MinorfaultError } from "../base/errors.ts";
import type { Range } from "../base/range.ts";
import type { PagerSource } from "./fetch/options.ts";
import type { Trace } from "./trace.ts";
import type { FlushStep, WriteBits } from "./writes.ts";

export type { FetchOptions, PagerSource, SourceDescriptor } from "./fetch/options.ts";
export { mergeTraces, type Touch, type Trace } from "./trace.ts";
export type { FlushStep, WriteBits } from "./writes.ts";

/** A registered range of the guest's memory, and where its content begins in the image. */
export interface PagerRegion {
  /** Guest address, a multiple of the page size. */
  readonly start: number;
  readonly byteLength: number;
  /** Bytes from the beginning of the image. */
  readonly imageOffset: number;
  /** Bytes: 4096 (default), or 2 MiB for hugetlb memory. */
  readonly pageSize?: number;
}

/** Where the bytes are: a file to be mapped, a descriptor of this process to be mapped, or memory of this process. */
export type PagerImage =
  | { readonly path: string }
  | { readonly descriptor: number; readonly byteLength: number }
  | { readonly address: number; readonly byteLength: number };

/**
 * Where the pager's thread waits for faults:
 * `same-cpu` beside the faulting thread; `spin` on another CPU, awake while faults come; `block` on another CPU,
 * asleep between faults; `auto` whichever of them a short self-test finds to be the fastest.
 */
export type PlacementChoice = "auto" | "same-cpu" | "spin" | "block";
export type PlacementMode = Exclude<PlacementChoice, "auto">;

export type WriteMode = "ignore" | "protect" | "track";

/** The thread whose faults are served, for placement; fault messages that name one (THREAD_ID) go before. */
export interface PagerGuest {
  readonly pid: number;
  /** Default: the process's first thread. */
  readonly tid?: number;
}

export interface PlanOptions {
  /** Pages to install around a missing one, aligned: a power of two from 1 (page by page) to 512. Default 16. */
  readonly faultAroundPages?: number;
  /**
   * Lets the window follow the faults: runs widen it, up to 2 MiB (256 KiB where many guests have one thread); faults at
   * random narrow it. Default: for sources, unless `faultAroundPages` says how wide it is. Of what has to be verified or
   * comes from far away whole units are installed all the same, and what a run of faults announces is fetched ahead.
   */
  readonly adaptive?: boolean;
}

export interface PagerOptions {
  /**
   * The userfaultfd, a descriptor of this process; the pager works on a duplicate of it, which it closes.
   * It becomes non-blocking, for all its duplicates.
   */
  readonly descriptor: number;
  /** At least one; they do not overlap. They are registered already. */
  readonly regions: readonly PagerRegion[];
  /** Where the bytes are at hand. Either this or `source`. */
  readonly image?: PagerImage;
  /** Where the bytes have to be fetched: an image of a store, or a raw file or object. Either this or `image`. */
  readonly source?: PagerSource;
  /** What the source must be, as `WarmSource.content` says it; another is ERR_SOURCE_CHANGED. */
  readonly content?: string;
  /** One bit a 4 KiB page of the image, lowest bit first: set where the page is known to be all zero. */
  readonly zeroPages?: Uint32Array;
  readonly plan?: PlanOptions;
  /** Default "auto". */
  readonly placement?: PlacementChoice;
  readonly guest?: PagerGuest;
  /**
   * The memory is this process's own, and its userfaultfd has no events: pages may be moved there, from memory of the
   * pager's. Default: they are copied.
   */
  readonly isOwnMemory?: true;
  /** Bytes that may be resident: before more is installed, pages are evicted. Only where the guest is this process. */
  readonly budgetBytes?: number;
  /**
   * What to do about writes: `ignore` them (default); `protect`: install every page write-protected, for an owner who
   * finds the written ones himself (WP_ASYNC); `track`: protect, take each first write's fault, and keep a bit of it.
   */
  readonly writes?: WriteMode;
  /** Where written pages go that are evicted (with `track`): a file, used at the image's offsets. Ours is a duplicate. */
  readonly swapDescriptor?: number;
  /** Records first touches, page by page, for a working set: nothing is installed that was not touched. Default false. */
  readonly trace?: boolean;
  /**
   * This userfaultfd was served by a pager that has died for certain (its process has been waited for, or its pidfd says
   * so): nothing is known to be resident. The message that it died over is taken up, everybody who waits is woken,
   * and pages that are there already are left as they are. What a guest has dropped stays zeros if it has EVENT_REMOVE;
   * without, nobody can tell, and the image's bytes come back.
   */
  readonly adopt?: true;
  /**
   * A file of `pagerStateBytes` bytes in memory (memfd), which outlives the pager: what a successor has to know. Whoever
   * may have to `adopt` keeps a duplicate. Ours is mapped; the descriptor stays the caller's. A userfaultfd with EVENT_FORK
   * is refused: a child's descriptor comes with a message, and would die with the pager that has read it.
   */
  readonly stateDescriptor?: number;
  /**
   * Told of pages that could not be served (ERR_HANDLER_FAILED ...); the pager goes on. LIMIT: 64 at once, then 8 a second;
   * the message says how many were left out. Default: a warning.
   */
  readonly onError?: (error: MinorfaultError) => void;
  /**
   * Such errors are also a line on standard error, written by the pager's own thread before the page is poisoned: where the
   * owner's thread touches the memory itself, `onError` comes too late. Default false.
   */
  readonly says?: boolean;
}

/** How a fault ended: always exactly one of these. */
export interface FaultOutcomes {
  readonly copied: number;
  readonly zeroed: number;
  readonly continued: number;
  readonly poisoned: number;
  /** Page present already or gone meanwhile: the thread was told to look again. */
  readonly woken: number;
}

/** Faults by how the bytes came that were not at hand; and what was asked for ahead. */
export interface AwayCounts {
  /** Read at the fault itself. */
  readonly read: number;
  /** Fetched for this fault. */
  readonly fetched: number;
  /** On their way already: for another guest, for a neighbour, or ahead. */
  readonly joined: number;
  /** Units that were asked for ahead of the guest: some are there before it comes, and no fault tells of them. */
  readonly ahead: number;
  /** Faults that found such a unit on its way. */
  readonly aheadMet: number;
}

export interface PagerStatistics {
  /** Fault messages read. */
  readonly faults: number;
  readonly outcomes: FaultOutcomes;
  /** Bytes installed, neighbours and bulk included. */
  readonly bytesInstalled: number;
  /** Of these, bytes that were known to be zero and were not copied. */
  readonly bytesZeroed: number;
  /** Dropped again to stay within the budget. */
  readonly bytesEvicted: number;
  /** Of these, bytes that were written to the swap file first. */
  readonly bytesSwapped: number;
  /** Installed ahead of the guest, from a working set. */
  readonly bytesReplayed: number;
  /** Messages other than faults. */
  readonly events: number;
  /** Fills that the kernel put off (EAGAIN). */
  readonly retries: number;
  /** Faults that wait for their bytes now. */
  readonly waiting: number;
  /** Of the faults, those whose bytes were not at hand, where they have to be fetched. */
  readonly away: AwayCounts;
  /** From the read of a message until its page was installed, as the pager sees it; microseconds. */
  readonly latencyUs: { readonly p50: number; readonly p99: number; readonly max: number };
  /** Faults by how long they took: the buckets of src/base/histogram.ts, nanoseconds. */
  readonly latencyCounts: Float64Array;
  /** Of all of them together. */
  readonly latencySumUs: number;
}

export interface PlacementReport {
  readonly asked: PlacementChoice;
  readonly mode: PlacementMode;
  /** One sentence. */
  readonly why: string;
  /** Median microseconds a fault in the self-test, if one was made in this process. */
  readonly selfTest?: {
    readonly durationMs: number;
    readonly medianUs: Readonly<Partial<Record<PlacementMode, number>>>;
  };
}

/** Which pages of a region are there. The words live: they change while the pager works. */
export interface Residency {
  readonly start: number;
  readonly pageSize: number;
  readonly pageCount: number;
  /** One bit a page, lowest bit first. */
  readonly resident: Uint32Array;
}

export interface InstallProgress {
  /** Pages of all regions looked at so far, as bytes. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface InstallOptions {
  /** Stops the work; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: InstallProgress) => void;
  /** Only what lies at these addresses. Default: all regions. */
  readonly range?: Range;
  /** Bytes installed at once, at most and by default 2 MiB: less makes faults in between wait less. */
  readonly pieceBytes?: number;
}

/** Pages that were poisoned. */
export interface RepairReport {
  /** They have their bytes now. */
  readonly repaired: number;
  /** They are still poisoned; the errors were told. */
  readonly lost: number;
}

export interface ReplayReport {
  readonly workingSet: string;
  /** Installed, ahead of the guest. */
  readonly bytesInstalled: number;
  /** Since the pager served. */
  readonly ms: number;
  /** It ended early; faults are served as ever. */
  readonly error?: MinorfaultError;
}

/** Why a pager ended. */
export type PagerEnd =
  | { readonly reason: "closed" }
  | { readonly reason: "guest-gone" }
  | { readonly reason: "failed"; readonly error: MinorfaultError };

export interface Pager {
  readonly placement: PlacementReport;
  /** The thread that serves, as the system numbers it. */
  readonly threadId: number;
  /** Resolves when the pager has ended, for whatever reason; never rejects. */
  readonly ended: Promise<PagerEnd>;
  /** Live counters; reading them does not disturb the pager. */
  statistics(): PagerStatistics;
  /** One entry a region, in the order given. */
  residency(): readonly Residency[];
  /** Asks the source once more for pages that were poisoned, all of them or those at these addresses. */
  repair(range?: Range): Promise<RepairReport>;
  /** With `trace`: what has been touched so far, in order. */
  trace(): Trace;
  /** How the replay of the source's working set ended: undefined when there is none. Never rejects. */
  readonly replayed: Promise<ReplayReport | undefined>;
  /** With `writes: "track"`: one entry a region, live, in the order given; else none. */
  writes(): readonly WriteBits[];
  /** With `writes: "track"`: marks what a flush has to make durable, or says how that ended. One flush at a time. */
  flush(step: FlushStep): Promise<void>;
  /** Lets the process end although this pager serves (false), or not. Default: a pager keeps it alive. */
  keepAlive(on: boolean): void;
  /** Installs everything that is not there yet, in forked children too, piece by piece, faults first. One at a time. */
  installAll(options?: InstallOptions): Promise<void>;
  /**
   * Serves what has arrived, wakes every thread that waits, gives the descriptor back, and stops the thread.
   * Where this was the last descriptor, pages that were not installed read as zeros from now on.
   */
  close(): Promise<void>;
}

/** A source that is held open, ahead of its guests. */
export interface WarmSource {
  readonly byteLength: number;
  readonly workingSets: readonly string[];
  /** Names these very bytes, if the source says so: what is under the same name another time may be others. */
  readonly content: string | undefined;
  /**
   * Reads its working set (the one that `replay` names, else the first) and keeps it, verified, for guests that are yet to
   * come. LIMIT: 256 MiB for all sources of a host; what finds no room there is read anew for each guest.
   */
  keep(): void;
  /** Lets go of it; guests that use it keep it open, and who comes from now on opens it anew. */
  close(): Promise<void>;
}

export interface PagerHostOptions {
  /** Default "auto". */
  readonly placement?: PlacementChoice;
  /** LIMIT: guests at once; more are refused with ERR_LIMIT. Default 4096. */
  readonly guestsMax?: number;
}

/** One thread that serves many guests. */
export interface PagerHost {
  /**
   * As `startPager`, in this host's thread. Guests whose `source` is the same (and whose limits on fetching are) share the
   * thread that fetches for them, and what it has fetched. `placement` is the host's.
   */
  start(options: PagerOptions): Promise<Pager>;
  /** Opens a source ahead of its first guest. */
  warm(source: PagerSource): Promise<WarmSource>;
  /** Guests being served. */
  readonly guests: number;
  /** Closes every guest's pager, and ends the thread. */
  close(): Promise<void>;
}
