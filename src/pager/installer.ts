// Installs pages of a region from the source or as zeros, and books what was done.
//
// The two who fill go through here: the resolver for the page of a fault, and whoever installs pages that
// nobody waits for yet (neighbours, everything).

import { ERRNO, errnoName } from "../abi/errno.ts";
import { clearBits, hasBit, nextClear, nextSet, setBits } from "../base/bitmap.ts";
import { hex, MinorfaultError } from "../base/errors.ts";
import { COUNTER, type Counters } from "./counters.ts";
import type { Evictor } from "./evictor.ts";
import type { Filler } from "./filler.ts";
import { addressOfPage, type Part } from "./regions.ts";
import { type AddressableSource, AWAY } from "./source.ts";

/** LIMIT: bytes of one fill. A longer one would keep others out of the guest's mapping for too long. */
export const FILL_BYTES_MAX: number = 2 * 1024 * 1024;

/** What `fill` answers in the place of an errno when the source threw. */
export const THREW = -1;

export interface InstallerOptions {
  readonly filler: Filler;
  readonly source: AddressableSource;
  readonly counters: Counters;
  /** Address of as many zeros as the largest page has bytes, for memory that does not take ZEROPAGE. */
  readonly zeros?: number | undefined;
  readonly evictor?: Evictor | undefined;
  /** The guest has ended. */
  readonly onGone?: (() => void) | undefined;
  readonly onError: (error: MinorfaultError) => void;
}

export class Installer {
  /** The last `install` was put off by the system: read what it has to say, and go on. */
  isPutOff = false;
  /** The last `install` came to bytes that have to be fetched first. */
  isAway = false;
  #isGuestGone = false;
  readonly #options: InstallerOptions;
  #thrown: unknown;

  constructor(options: InstallerOptions) {
    this.#options = options;
  }

  /** The guest has ended: a fill has answered ESRCH. */
  get isGuestGone(): boolean {
    return this.#isGuestGone;
  }

  guestIsGone(): void {
    if (this.#isGuestGone) return;
    this.#isGuestGone = true;
    this.#options.onGone?.();
  }

  /**
   * Fills pages of one kind in one call, and books what was done (the filler knows how far it came). Answers 0, the
   * errno, THREW, or AWAY.
   */
  fill(part: Part, first: number, until: number, isZero: boolean): number {
    const { region } = part;
    const { filler, zeros } = this.#options;
    const target = addressOfPage(part, first);
    const byteLength = (until - first) * region.pageSize;
    let errno: number;
    this.#options.evictor?.makeRoom(byteLength);
    // What the filler did last is not what this fill did, should the source throw.
    filler.errno = 0;
    filler.bytesDone = 0;
    const isSwapped = region.writes?.isSwapped(first) ?? false;
    if (!isZero || isSwapped) {
      const offset = region.imageOffset + first * region.pageSize;
      const source = isSwapped ? region.writes!.swapAddress + offset : this.#addressOf(offset, byteLength);
      if (source < 0) return source;
      errno = filler.copy(target, source, byteLength);
    } else if ((region.takesZeropage && !this.#isPoisoned(part, first, until)) || !zeros) {
      errno = filler.zero(target, byteLength);
    } else {
      errno = filler.copy(target, zeros, byteLength);
    }
    this.book(part, first, isZero);
    return errno;
  }

  /** Books how far the last fill came, which began at page `first`. */
  book(part: Part, first: number, isZero: boolean): void {
    const { counters, filler } = this.#options;
    const { bytesDone } = filler;
    if (bytesDone > 0) {
      this.bookPlaced(part, first, first + bytesDone / part.region.pageSize);
      if (isZero) counters[COUNTER.BYTES_ZEROED]! += bytesDone;
    }
    if (filler.errno !== 0 && filler.isPutOff) counters[COUNTER.RETRIES]! += 1;
  }

  /**
   * Installs the missing pages of [first, until), at most `bytesMax` at once. Answers the page up to which all
   * is done: `until`, or less when the system puts it off or bytes are away. Pages that can't be brought are reported and left missing.
   */
  install(part: Part, first: number, until: number, bytesMax: number = FILL_BYTES_MAX): number {
    const { region } = part;
    const { filler } = this.#options;
    const pagesMax = Math.max(1, Math.floor(Math.min(bytesMax, FILL_BYTES_MAX) / region.pageSize));
    let longest = pagesMax;
    this.isPutOff = false;
    this.isAway = false;
    for (let page = first; ; ) {
      page = nextClear(region.resident, page, until);
      if (page >= until) return until;
      const isZero = region.hasZeros && hasBit(region.zero, page);
      const runUntil = this.#runUntil(part, page, Math.min(until, page + longest), isZero);
      const errno = this.fill(part, page, runUntil, isZero);
      if (errno === 0) {
        page = runUntil;
        longest = pagesMax;
      } else if (filler.bytesDone > 0) {
        page += filler.bytesDone / region.pageSize;
      } else if (filler.isPutOff) {
        this.isPutOff = true;
        return page;
      } else if (errno === AWAY) {
        this.isAway = true;
        return page;
      } else if (errno === ERRNO.ESRCH) {
        this.guestIsGone();
        return until;
      } else if (errno === ERRNO.EEXIST) {
        setBits(region.resident, page, page + 1);
      } else if (runUntil - page > 1) {
        longest = Math.max(1, (runUntil - page) >> 1);
      } else {
        if (errno !== ERRNO.ENOENT) this.reportFailure(errno, part, page);
        page += 1;
        longest = pagesMax;
      }
    }
  }

  /**
   * Copies pages [first, until) from `address`, those that are missing and are still the image's: bytes that somebody
   * brings unasked. Wakes nobody: whoever calls it looks after the faults that it has met.
   */
  place(part: Part, first: number, until: number, address: number): void {
    const { filler } = this.#options;
    this.isPutOff = false;
    // A message of a page that may be evicted says nothing of whether it is there.
    filler.wakes = part.region.isEvictable;
    try {
      this.#place(part, first, until, address);
    } finally {
      filler.wakes = true;
    }
  }

  #place(part: Part, first: number, until: number, address: number): void {
    const { region } = part;
    const { filler, evictor } = this.#options;
    for (let page = first; ; ) {
      page = nextClear(region.resident, page, until);
      if (page >= until) return;
      if (this.#isOthers(part, page)) {
        page++;
        continue;
      }
      let runUntil = nextSet(region.resident, page, until);
      if (region.hasZeros) runUntil = nextSet(region.zero, page, runUntil);
      if (region.writes !== undefined) runUntil = nextSet(region.writes.bits.swapped, page, runUntil);
      const byteLength = (runUntil - page) * region.pageSize;
      evictor?.makeRoom(byteLength);
      const errno = filler.copy(
        addressOfPage(part, page),
        address + (page - first) * region.pageSize,
        byteLength,
      );
      this.book(part, page, false);
      page += filler.bytesDone / region.pageSize;
      if (errno === 0 || filler.bytesDone > 0) continue;
      if (filler.isPutOff) {
        this.isPutOff = true;
        return;
      }
      if (errno === ERRNO.ESRCH) {
        this.guestIsGone();
        return;
      }
      // There already, or its mapping is gone: faults tell the rest.
      if (errno === ERRNO.EEXIST) setBits(region.resident, page, page + 1);
      page++;
    }
  }

  /** Whether these pages are all missing and the image's, so that `place` would copy them as they are, in one go. */
  isUntouched({ region }: Part, first: number, until: number): boolean {
    if (region.isEvictable || region.isProtected) return false;
    if (region.hasZeros && nextSet(region.zero, first, until) < until) return false;
    return nextSet(region.resident, first, until) >= until;
  }

  /** Books pages that have their bytes now, whoever has copied them. */
  bookPlaced({ region }: Part, first: number, until: number): void {
    setBits(region.resident, first, until);
    if (region.poisoned !== undefined) clearBits(region.poisoned, first, until);
    this.#options.counters[COUNTER.BYTES_INSTALLED]! += (until - first) * region.pageSize;
  }

  /** The page's content is not the image's any more. */
  #isOthers({ region }: Part, page: number): boolean {
    return (region.hasZeros && hasBit(region.zero, page)) || (region.writes?.isSwapped(page) ?? false);
  }

  /** Tells the owner that a page could not be filled: `errno` is what `fill` answered. */
  reportFailure(errno: number, part: Part, page: number): void {
    const address = addressOfPage(part, page);
    const cause =
      errno === THREW
        ? this.#thrown
        : new MinorfaultError("ERR_SYSCALL", `The fill at ${hex(address)} failed with ${errnoName(errno)}`, {
            errno,
            operation: "UFFDIO_COPY",
            address,
          });
    this.reportLoss(part, page, cause);
  }

  /** Tells the owner that a page can't be brought, and why. */
  reportLoss(part: Part, page: number, cause: unknown): void {
    const address = addressOfPage(part, page);
    this.#options.onError(
      new MinorfaultError("ERR_HANDLER_FAILED", `The page at ${hex(address)} could not be brought`, {
        cause,
        address,
        byteLength: part.region.pageSize,
      }),
    );
  }

  /** The end of the missing pages of one kind that begin at `page`. */
  #runUntil(part: Part, page: number, until: number, isZero: boolean): number {
    const { region } = part;
    let missingUntil = nextSet(region.resident, page, until);
    const { source } = this.#options;
    if (source.reach !== undefined) {
      const pages = Math.max(
        1,
        Math.floor(source.reach(region.imageOffset + page * region.pageSize) / region.pageSize),
      );
      missingUntil = Math.min(missingUntil, page + pages);
    }
    if (region.writes !== undefined) {
      const { swapped } = region.writes.bits;
      const next = region.writes.isSwapped(page) ? nextClear : nextSet;
      missingUntil = next(swapped, page, missingUntil);
    }
    if (!region.hasZeros) return missingUntil;
    return isZero ? nextClear(region.zero, page, missingUntil) : nextSet(region.zero, page, missingUntil);
  }

  /** ZEROPAGE does not take the place of poison, a copy does. */
  #isPoisoned({ region: { poisoned } }: Part, first: number, until: number): boolean {
    return poisoned !== undefined && nextSet(poisoned, first, until) < until;
  }

  #addressOf(offset: number, byteLength: number): number {
    try {
      return this.#options.source.addressOf(offset, byteLength);
    } catch (cause) {
      this.#thrown = cause;
      return -1;
    }
  }
}
