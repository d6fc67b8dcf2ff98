// What a lazy memory is asked for and what it answers: the types that users of `open` see.

import type { MinorfaultError } from "../../base/errors.ts";
import type { AddressRangeHandle } from "../../linux/index.ts";
import type {
  FetchOptions,
  PlacementChoice,
  PlanOptions,
  RepairReport,
  ReplayReport,
  Trace,
} from "../../pager/index.ts";

/**
 * `read`: a write ends the process with SIGSEGV, as in any read-only mapping. `private`: writes stay in this memory and
 * end with it. `write-back`: writes stay in memory until `flush` makes them part of the content, all or nothing.
 */
export type MemoryMode = "read" | "private" | "write-back";

/**
 * `auto`: the kernel's own mapping for a local file that is only read, else pages served by a pager.
 * `kernel`: a pager behind Linux's userfaultfd. `mmap`: the kernel's own mapping, or an error.
 * `software`: works everywhere: all is loaded at once, because nothing stops JavaScript at a missing page of an
 * ordinary ArrayBuffer. PagedMemory (minorfault/software) loads lazily without a kernel, through methods.
 */
export type MemoryImplementation = "auto" | "kernel" | "mmap" | "software";

export interface OpenMemoryOptions {
  /** Default "read". */
  readonly mode?: MemoryMode;
  /** Bytes that may be resident, such as "512MiB": at least 4 MiB. Pages are evicted to stay below. Default: no limit. */
  readonly budget?: number | string;
  /**
   * Where the pager runs: in a `thread` of this process (default), or in a `process` of its own, which may crash without
   * harm: another one takes over. That has no budget.
   */
  readonly pager?: "thread" | "process";
  /**
   * The socket of a page server (`minorfault serve`) that has the same image: it serves, beside its other guests, and
   * survives its own crash. For modes "read" and "private", without budget and trace.
   */
  readonly server?: string;
  /** Where the pager's thread waits. Default "auto". */
  readonly placement?: PlacementChoice;
  /** Default: a window that follows the faults, unless there is a budget: runs in order widen it up to 2 MiB. */
  readonly plan?: PlanOptions;
  /** Records which pages are touched first, and when, for a working set; nothing else is brought. Default false. */
  readonly trace?: boolean;
  /** For content that has to be fetched: how long a fault may wait, which working set is replayed (default: the first). */
  readonly fetch?: FetchOptions;
  /** Default "auto". */
  readonly implementation?: MemoryImplementation;
  /** Where written pages go that are evicted: a folder, for a file without a name. Default: that of the system. */
  readonly swapFolder?: string;
  /**
   * Told of pages that could not be served, and of a budget that can't be kept: too late where its own thread is the one that
   * touched such a page (SIGBUS). Default: a line on standard error, which comes before.
   */
  readonly onError?: (error: MinorfaultError) => void;
}

export interface MemoryRegion {
  readonly name: string;
  readonly offset: number;
  readonly byteLength: number;
  /** Where it was in the memory that it was taken from; 0 for a plain file. */
  readonly guestAddress: number;
}

export interface ResidentPages {
  readonly pages: number;
  readonly pagesTotal: number;
  readonly bytes: number;
}

export interface FlushReport {
  /** Bytes that were made durable, whole pages. */
  readonly bytesWritten: number;
  readonly ranges: number;
  /** What belonged to an image and could not be kept, where there is such a thing: a working set that is damaged. */
  readonly dropped?: readonly string[];
}

export interface MemoryStatistics {
  readonly faults: number;
  readonly bytesInstalled: number;
  readonly bytesEvicted: number;
  readonly bytesSwapped: number;
  readonly poisoned: number;
  readonly latencyUs: { readonly p50: number; readonly p99: number; readonly max: number };
}

/** What `attach` in another thread needs: can be posted there, or be its workerData. */
export interface MemoryHandle {
  readonly kind: "minorfault-memory";
  readonly name: string;
  readonly byteLength: number;
  readonly range: AddressRangeHandle;
}

/** A lazy memory seen from another thread: the same bytes, served by the same pager. */
export interface AttachedMemory {
  readonly byteLength: number;
  /** @throws ERR_OUT_OF_RANGE beyond what this Node's ArrayBuffers can have: take windows. */
  readonly buffer: ArrayBuffer;
  /** A part of the memory as a buffer of its own. */
  window(offset: number, byteLength: number): ArrayBuffer;
}

export interface LazyMemory extends AttachedMemory {
  /** The file or image. */
  readonly name: string;
  readonly mode: MemoryMode;
  /** How pages come: by our pager, by the kernel's own mapping, or all of them before `open` resolved. */
  readonly how: "userfaultfd" | "mmap" | "eager";
  /** One sentence: why it is this one. */
  readonly why: string;
  /**
   * System calls on missing pages fail with EFAULT: this process may only have a userfaultfd of the kind
   * USER_MODE_ONLY. Use `prefetch` or `read` before handing the memory to files, sockets or compression.
   */
  readonly isUserModeOnly: boolean;
  readonly regions: readonly MemoryRegion[];
  /** What is in memory now. */
  resident(): ResidentPages;
  /** Brings a range, without a wait for this thread. With a budget, at most half of it at once (ERR_LIMIT). */
  prefetch(offset?: number, byteLength?: number, options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** A copy of a range on the JavaScript heap: good for everything, whatever the kernel may do with this memory. */
  read(offset: number, byteLength: number, options?: { readonly signal?: AbortSignal }): Promise<Uint8Array>;
  /**
   * Asks once more for pages that could not be brought and were poisoned, when their source is well again. Whoever
   * touches one before it is brought still gets SIGBUS.
   */
  repair(offset?: number, byteLength?: number): Promise<RepairReport>;
  /** `write-back`: what was written before is durable when this resolves; after a crash all of it is, or nothing. */
  flush(): Promise<FlushReport>;
  statistics(): MemoryStatistics;
  /** With `trace: true`: the pages that have been touched, in order. `storeWorkingSet` makes a working set of it. */
  trace(): Trace;
  /** How the replay of the image's working set ended; undefined where there is none. Never rejects. */
  readonly replayed: Promise<ReplayReport | undefined>;
  /** For other threads of this process. */
  share(): MemoryHandle;
  /**
   * Flushes (`write-back`, unless told not to), and ends. From then on every view of it, in every thread, reads zeros;
   * the addresses are given back when the last view has been collected. Safe to call twice.
   */
  close(options?: { readonly flush?: boolean }): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
