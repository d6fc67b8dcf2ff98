// What the demo needs of a guest, whichever kind it is: fresh and empty memory, something that fills it, something
// that touches it and takes the time, and a way to read it from outside afterwards.

import type { PlacementReport } from "../../pager/index.ts";
import type { Image } from "./image.ts";

/** A virtual CPU of a KVM machine, a plain process, or memory that exists only in TypeScript. Best first. */
export const GUEST_KINDS = ["kvm", "process", "software"] as const;
export type GuestKind = (typeof GUEST_KINDS)[number];

/** What touching a list of pages came to. */
export interface Walk {
  /** Microseconds of each access as the guest's own clock saw it, in the order of the list. */
  readonly accessUs: Float64Array;
  /** Microseconds for all of them. */
  readonly durationUs: number;
  /** Sum of what the guest read from the pages, as `PagedGuest.expectedSum` adds it up. */
  readonly sum: number;
}

export interface PagingCounters {
  /** Faults that the pager was told of. */
  readonly faults: number;
  /** Bytes that were copied into the guest's memory. */
  readonly bytesCopied: number;
  /** Bytes that were known to be zero, so that nothing had to be copied. */
  readonly bytesZeroed: number;
}

export type OnProgress = (pagesDone: number) => void;

/** A guest with the pager that serves it. Its memory is empty until something is installed or touched. */
export interface PagedGuest {
  readonly placement: PlacementReport | undefined;
  /** Installs everything that is not there yet. */
  installAll(signal: AbortSignal, onProgress: OnProgress): Promise<void>;
  /** Lets the guest touch pages in this order, and resolves when it has. */
  walk(pages: Uint32Array, signal: AbortSignal, onProgress?: OnProgress): Promise<Walk>;
  /** What `Walk.sum` is if the guest reads the right words. */
  expectedSum(pages: Uint32Array, image: Image): number;
  counters(): PagingCounters;
  /** One bit a page, lowest bit first: set where the pager has brought it. Cheap, and changes while it works. */
  pagesBrought(): Uint32Array;
  /** One byte a page: 1 where the page is there, as the system that keeps the memory says. */
  residentPages(): Uint8Array;
  /** Reads the guest's memory from outside. */
  readMemory(offset: number, target: Uint8Array): void;
  /** Ends the guest and its pager; safe to call at any moment, and twice. */
  close(): Promise<void>;
}

/** Keeps the image's bytes and makes guests. */
export interface DemoHost {
  readonly kind: GuestKind;
  /** One line: what the guest is. */
  readonly guestText: string;
  /** One line: what the pager is. */
  readonly pagerText: string;
  /** Takes the image's bytes, in order. */
  write(offset: number, bytes: Uint8Array): void;
  /**
   * Touches as much memory as a guest will have and gives it back: on virtual machines memory is itself paged in by
   * the host when it is first touched, and the first restore would pay for all.
   */
  warmUp(signal: AbortSignal, onProgress: OnProgress): Promise<void>;
  /** A fresh guest, and a pager that installs so many pages around a missing one. */
  open(image: Image, faultAroundPages: number): Promise<PagedGuest>;
  /** Gives the image's memory back. */
  close(): void;
}

/** A kind of guest that this machine can't have, or that was not wanted, and why. */
export interface Refusal {
  readonly kind: GuestKind;
  readonly reason: string;
}
