// The contract: what every userfaultfd and every address space promises, whoever implements it.
//
// LAW 1  A count and an errno never share a variable: `FillResult` has both.
// LAW 2  What can be known to be wrong is refused before the system is asked: unaligned, NaN, closed, too large.
//        The error is typed. What only the system can know comes back as its errno.
// LAW 3  The answers of a fill that are part of the trade (EEXIST, EAGAIN, ENOENT, ESRCH ...) are results, not
//        exceptions: a pager branches on them once a fault. Everything else that fails throws ERR_SYSCALL with
//        errno, operation and address.
// LAW 4  A fill wakes the threads waiting in what it filled unless told not to; a fill that did nothing wakes nobody.
// LAW 5  Closing is final for this object, allowed twice, and wakes whoever waits once the last duplicate is closed.
// LAW 6  `read` never returns half a message, and each message is returned to exactly one reader.
//
// The suites in minorfault/testing hold every implementation to them. Semantics: Documentation/admin-guide/
// mm/userfaultfd.rst and ioctl_userfaultfd(2).

import type { UffdMessage } from "../abi/message.ts";

/** How far a fill came. `errno` 0: all of it. EAGAIN with bytes > 0: stopped after `bytes`, ask again from there. */
export interface FillResult {
  /** Bytes installed: a multiple of the page size, 0 when nothing was done. */
  readonly bytes: number;
  /** Positive errno, or 0. */
  readonly errno: number;
}

/** Memory that fills take their bytes from. It is never paged itself, and it is not on the JavaScript heap. */
export interface Staging {
  readonly address: number;
  readonly bytes: Uint8Array;
  close(): void;
}

export interface RegisterModes {
  readonly missing?: boolean;
  readonly writeProtect?: boolean;
  readonly minor?: boolean;
}

export interface FillOptions {
  /** Wake the threads that wait in the range. Default true. */
  readonly wake?: boolean;
  /** Install write-protected (COPY and CONTINUE). Default false. */
  readonly writeProtect?: boolean;
}

export interface Userfaultfd {
  readonly implementation: "kernel" | "software";
  /** All features that the system supports, as the handshake answered. */
  readonly features: bigint;
  /** The descriptor, in the process that made it. */
  readonly fd: number;

  /** Memory for `copy` to take from, `byteLength` bytes rounded up to whole pages. */
  staging(byteLength: number): Staging;

  /** Registers whole pages; answers the ioctls that work there. Throws ERR_SYSCALL (EBUSY: another userfaultfd has it). */
  register(start: number, byteLength: number, modes: RegisterModes): bigint;
  unregister(start: number, byteLength: number): void;

  /** UFFDIO_COPY of bytes at an address of the caller's memory, usually in a `Staging`. */
  copy(target: number, source: number, byteLength: number, options?: FillOptions): FillResult;
  zeropage(target: number, byteLength: number, options?: FillOptions): FillResult;
  /** UFFDIO_CONTINUE: maps what is in the page cache already. */
  continue(target: number, byteLength: number, options?: FillOptions): FillResult;
  poison(target: number, byteLength: number, options?: FillOptions): FillResult;
  /** UFFDIO_MOVE: takes the pages away from the source. Both in the memory of the calling process. */
  move(
    target: number,
    source: number,
    byteLength: number,
    options?: FillOptions & { readonly allowHoles?: boolean },
  ): FillResult;
  wake(start: number, byteLength: number): void;
  writeProtect(start: number, byteLength: number, on: boolean, options?: { readonly wake?: boolean }): void;

  /**
   * Takes waiting messages, at most `messagesMax` (default 64). With a non-blocking descriptor an empty
   * list when there is none; with a blocking one it waits for the first.
   */
  read(messagesMax?: number): UffdMessage[];
  /** Waits until a message may be there, at most so many milliseconds (-1: for ever, 0: just looks). */
  wait(timeoutMs: number): boolean;

  /** Another reference to the same context. */
  duplicate(): Userfaultfd;
  close(): void;
  [Symbol.dispose](): void;
}

export type MemoryKind =
  /** MAP_PRIVATE | MAP_ANONYMOUS */
  | "private"
  /** shared anonymous memory (shmem) */
  | "shared"
  /** private 2 MiB huge pages (hugetlb) */
  | "huge";

export interface Protection {
  readonly read?: boolean;
  readonly write?: boolean;
  readonly execute?: boolean;
}

/** What is known of one page without touching it. */
export interface PageState {
  readonly resident: boolean;
  readonly writeProtected: boolean;
}

/** Pages from start until `until` that have been written since they were last protected. */
export interface WrittenRange {
  readonly start: number;
  readonly until: number;
}

/** The memory of one process. Addresses are that process's. */
export interface AddressSpace {
  readonly implementation: "kernel" | "software";
  map(
    byteLength: number,
    options?: { readonly kind?: MemoryKind; readonly protection?: Protection; readonly at?: number },
  ): number;
  /** Waits, with EVENT_UNMAP, until the event has been read; so do `remap` and `discard` with theirs. */
  unmap(start: number, byteLength: number): Promise<void>;
  /** Moves or resizes; answers the new address. */
  remap(start: number, byteLength: number, newByteLength: number, to?: number): Promise<number>;
  protect(start: number, byteLength: number, protection: Protection): void;
  /** MADV_DONTNEED: the content is gone, the next touch is a fault again. */
  discard(start: number, byteLength: number): Promise<void>;
  pages(start: number, byteLength: number): PageState[];
  /** PAGEMAP_SCAN for written pages, protecting them again in the same step if asked (needs WP_ASYNC). */
  written(start: number, byteLength: number, options?: { readonly protect?: boolean }): WrittenRange[];
  /** Loads one byte by a thread of that process; waits while the page is being brought. Throws ERR_MEMORY_FAULT. */
  load(address: number, signal?: AbortSignal): Promise<number>;
  store(address: number, value: number, signal?: AbortSignal): Promise<void>;
  /** fork(2): the child's address space. */
  fork(signal?: AbortSignal): Promise<AddressSpace>;
}
