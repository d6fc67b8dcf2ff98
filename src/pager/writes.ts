// What a pager keeps of pages that the guest has written, where it was asked to: one bit a page in memory that the
// owner sees too.
//
//   fetched, protected ── first write ──▶ written ── evicted ──▶ swapped ── touched ──▶ fetched from the swap file
//        ▲                                   │                      │
//        │                                   └────── flush ─────────┤
//        └──────────────────────── flushed ─────────────────────────┘
//
// A page is installed write-protected; its first write is a fault, and that is how we know. While a flush runs,
// `flushing` marks what it is about to make durable; a write takes the page out of it again.

import { clearBits, hasBit, nextClear, nextSet, setBits } from "../base/bitmap.ts";

export interface WriteBits {
  /** Written since it was fetched, or since the last flush began: the bytes are in memory only. */
  readonly written: Uint32Array;
  /** The bytes are in the swap file, not in the image. */
  readonly swapped: Uint32Array;
  readonly flushing: Uint32Array;
}

/** What a flush asks of the pager: to begin, and to say how it ended. */
export type FlushStep = "begin" | "done" | "failed";

export class Writes {
  readonly bits: WriteBits;
  /** Where the swap file is mapped, as long as the image; 0: there is none. */
  readonly swapAddress: number;

  constructor(bits: WriteBits, swapAddress: number) {
    this.bits = bits;
    this.swapAddress = swapAddress;
  }

  isSwapped(page: number): boolean {
    return hasBit(this.bits.swapped, page);
  }

  /** The guest is about to write a page that is there. */
  write(page: number): void {
    setBits(this.bits.written, page, page + 1);
    clearBits(this.bits.flushing, page, page + 1);
  }

  /** Whether the page's bytes are nowhere but in memory. */
  mustSave(page: number): boolean {
    return hasBit(this.bits.written, page) || hasBit(this.bits.flushing, page);
  }

  /** The bytes of [first, until) are in the swap file now. */
  saved(first: number, until: number): void {
    setBits(this.bits.swapped, first, until);
    clearBits(this.bits.written, first, until);
  }

  /** Begins a flush of everything that differs from the image; `protect` is called for runs of written pages. */
  beginFlush(pageCount: number, protect: (first: number, until: number) => void): void {
    const { written, swapped, flushing } = this.bits;
    for (let page = nextSet(written, 0, pageCount); page < pageCount; ) {
      const until = nextClear(written, page, pageCount);
      protect(page, until);
      page = nextSet(written, until, pageCount);
    }
    for (let word = 0; word < flushing.length; word++) flushing[word]! |= written[word]! | swapped[word]!;
    written.fill(0);
  }

  /** What is still marked as flushing is in the image now; or it is not, and stays written. */
  endFlush(isDone: boolean): void {
    const { written, swapped, flushing } = this.bits;
    for (let word = 0; word < flushing.length; word++) {
      if (isDone) swapped[word]! &= ~flushing[word]!;
      else written[word]! |= flushing[word]! & ~swapped[word]!;
    }
    flushing.fill(0);
  }
}
