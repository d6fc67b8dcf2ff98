// Brings what comes next to a guest that goes through its memory in order: whole huge pages, moved instead of copied.
//
//   file ──read──▶ [ huge pages of ours ] ──UFFDIO_MOVE──▶ the guest's: one entry of its page table for 512 pages
//
//   faults   ▲        ▲                ▲
//   memory   │ copied │ copied │ moved │ moved │ moved │ moved │ moved ...
//
// A copy has to find and map every small page. What is moved behind the window of a fault, before the guest goes on
// and meets it, is mapped at once: how much depends on how long it has gone in order. As much again is being read by
// then, by threads of the kernel, so that the guest's next fault finds it ready. Where a fault has been an entry of the
// page table holds a table of small pages, all missing: dropping "all" of them makes the kernel give it back (Linux
// 6.14), or else what is moved there is split, which is no worse than a copy.
//
// It works where the guest's memory is this process's own. The first refusal ends it: then all is copied. For a while so
// it is where huge pages turn out to be dear, as in a virtual machine whose host has yet to find the memory for them.

import { HUGE_PAGE_SIZE, MADV, MAP, PROT } from "../abi/memory.ts";
import { nextSet, setBits } from "../base/bitmap.ts";
import { roundUp } from "../base/range.ts";
import { close, duplicate, local, madvise, mmap, munmap, ReadRing } from "../linux/index.ts";
import { COUNTER, type Counters } from "./counters.ts";
import type { Filler } from "./filler.ts";
import { addressOfPage, type Part, untilPage } from "./regions.ts";

/** LIMIT: huge pages that are brought ahead of one fault: some two milliseconds in which the guest waits. */
const AHEAD_MAX = 8;
/** LIMIT: huge pages that are being read, or are there and not moved yet: a fault's own, and those ahead of it. */
const ASKED_MAX = AHEAD_MAX + 1;
/** A fault's own is moved after those ahead of it. */
const SLOTS = 2 * ASKED_MAX;
/** What bringing a huge page takes at most where it is worth it: about what copying it takes on a busy machine. */
const WORTH_MS = 1;
/** LIMIT: huge pages in a row that may take longer. Then so many faults are served by copies alone. */
const DEAR_MAX = 3;
const REST_FAULTS = 64;

/** A file with an image's bytes, and slots of memory for a huge page of them each. */
export class HugePages {
  readonly #fd: number;
  readonly #mapping: number;
  readonly #first: number;
  readonly #ring: ReadRing | undefined;

  /** `fd`: of the file; it stays the caller's. */
  constructor(fd: number) {
    const flags = MAP.PRIVATE | MAP.ANONYMOUS;
    const byteLength = SLOTS * HUGE_PAGE_SIZE;
    this.#mapping = mmap(local, byteLength + HUGE_PAGE_SIZE, { protection: PROT.READ | PROT.WRITE, flags });
    this.#first = roundUp(this.#mapping, HUGE_PAGE_SIZE);
    this.#fd = duplicate(local, fd);
    // What a child of fork(2) has as well can't be moved.
    madvise(local, this.#first, byteLength, MADV.DONTFORK);
    // A kernel without huge pages refuses: small ones are moved then, which is as fast as a copy.
    local.call("madvise", this.#first, byteLength, MADV.HUGEPAGE);
    this.#ring = ReadRing.open(SLOTS);
  }

  addressOf(slot: number): number {
    return this.#first + slot * HUGE_PAGE_SIZE;
  }

  /** Begins to read the file's bytes from `offset` on into a slot, where the system does that beside us. */
  ask(slot: number, offset: number): void {
    const ring = this.#ring;
    if (ring === undefined) return;
    // Asked for in vain.
    if (ring.isBegun(slot)) ring.finish(slot);
    ring.begin(slot, this.#fd, this.addressOf(slot), HUGE_PAGE_SIZE, offset);
  }

  /** Waits for what a slot was asked to read; false where the file has not as many bytes. */
  take(slot: number, offset: number): boolean {
    if (this.#ring?.finish(slot) === HUGE_PAGE_SIZE) return true;
    return local.call("pread64", this.#fd, this.addressOf(slot), HUGE_PAGE_SIZE, offset) === HUGE_PAGE_SIZE;
  }

  /** Drops the table of small pages, none of which is there, that stands where a huge page is to be moved. */
  makeRoom(address: number): void {
    local.call("madvise", address, HUGE_PAGE_SIZE, MADV.DONTNEED);
  }

  close(): void {
    this.#ring?.close();
    munmap(local, this.#mapping, (SLOTS + 1) * HUGE_PAGE_SIZE);
    close(local, this.#fd);
  }
}

export class HugeAhead {
  /** Where the bytes of the fault's own window lie, to be moved there, after `bring`; -1: they are to be copied. */
  source = -1;
  readonly #pages: HugePages;
  readonly #filler: Filler;
  readonly #counters: Counters;
  #isRefused = false;
  /** A move has succeeded: the memory is this process's. */
  #hasMoved = false;
  /** The page where a guest that goes on in order faults next, and how often it has done so. */
  #expected = -1;
  #streak = 0;
  /** Huge pages in a row that were not worth it; faults that go without any. */
  #dear = 0;
  #rest = 0;
  #part: Part | undefined;
  /** The huge pages that begin with pages from one up to another have been asked for. */
  #head = -1;
  #tail = -1;

  constructor(pages: HugePages, filler: Filler, counters: Counters) {
    this.#pages = pages;
    this.#filler = filler;
    this.#counters = counters;
  }

  /**
   * [first, until) of a part are about to be installed for a fault: brings what comes next, if it seems to. Answers up to
   * which page.
   */
  bring(part: Part, first: number, until: number): number {
    this.source = -1;
    if (this.#isRefused) return until;
    if (this.#rest > 0) {
      this.#rest--;
      return until;
    }
    const isNext = first === this.#expected && part === this.#part;
    this.#streak = isNext ? this.#streak + 1 : 0;
    this.#part = part;
    if (!isNext) this.#head = this.#tail = -1;
    this.#expected = isNext ? this.#go(part, first, until) : until;
    return this.#expected;
  }

  /** What was to be moved from `source` could not be. */
  failed(): void {
    if (this.source >= 0 && !this.#filler.isPutOff) this.#isRefused = true;
  }

  /** Brings huge pages from `until` on, and looks for that of the fault; answers up to which page. */
  #go(part: Part, first: number, until: number): number {
    const step = HUGE_PAGE_SIZE / part.region.pageSize;
    const isAsked = first === this.#head && this.#head < this.#tail && until === first + step;
    if (isAsked) this.#head = until;
    else if (until !== this.#head) this.#head = this.#tail = until;
    const reach = Math.min(AHEAD_MAX, 2 ** this.#streak);
    const goal = until + reach * step;
    // And what is to be brought with the next fault.
    const end = goal + (1 + Math.min(AHEAD_MAX, 2 * reach)) * step;
    this.#ask(part, end);
    while (this.#head < goal && this.#head < this.#tail && this.#move(part)) this.#ask(part, end);
    if (isAsked && this.#hasMoved) this.source = this.#sourceOf(part, first);
    return this.#head;
  }

  /** Asks for huge pages up to a page, as many as there may be. */
  #ask(part: Part, end: number): void {
    const { region } = part;
    const step = HUGE_PAGE_SIZE / region.pageSize;
    const until = Math.min(end, this.#head + ASKED_MAX * step);
    for (; this.#tail < until && this.#isMovable(part, this.#tail); this.#tail += step) {
      this.#pages.ask(this.#slotOf(this.#tail, step), region.imageOffset + this.#tail * region.pageSize);
    }
  }

  /** The address of the huge page that was asked for, once its place has been made ready; -1: it can't be had. */
  #sourceOf(part: Part, page: number): number {
    const { region } = part;
    const slot = this.#slotOf(page, HUGE_PAGE_SIZE / region.pageSize);
    const isThere =
      this.#isMovable(part, page) && this.#pages.take(slot, region.imageOffset + page * region.pageSize);
    if (!isThere) return -1;
    this.#pages.makeRoom(addressOfPage(part, page));
    return this.#pages.addressOf(slot);
  }

  /** Whether the huge page that begins with a page of a part has nothing in it yet. */
  #isMovable(part: Part, page: number): boolean {
    const { region } = part;
    const until = page + HUGE_PAGE_SIZE / region.pageSize;
    if (addressOfPage(part, page) % HUGE_PAGE_SIZE !== 0 || until > untilPage(part)) return false;
    if (nextSet(region.resident, page, until) < until) return false;
    return !region.hasZeros || nextSet(region.zero, page, until) >= until;
  }

  /** Moves the huge page that was asked for first; false when that can't be. */
  #move(part: Part): boolean {
    const page = this.#head;
    // Its neighbours may have been brought since.
    if (!this.#isMovable(part, page)) return false;
    const { region } = part;
    const step = HUGE_PAGE_SIZE / region.pageSize;
    const slot = this.#slotOf(page, step);
    const begin = performance.now();
    if (!this.#pages.take(slot, region.imageOffset + page * region.pageSize)) return false;
    const errno = this.#filler.move(addressOfPage(part, page), this.#pages.addressOf(slot), HUGE_PAGE_SIZE);
    const { bytesDone } = this.#filler;
    if (bytesDone > 0) {
      setBits(region.resident, page, page + bytesDone / region.pageSize);
      this.#counters[COUNTER.BYTES_INSTALLED]! += bytesDone;
    }
    // Whatever it is: copying, which is to come, knows what to do about it.
    if (errno !== 0 && !this.#filler.isPutOff) this.#isRefused = true;
    this.#weigh(performance.now() - begin);
    if (errno !== 0) return false;
    this.#hasMoved = true;
    this.#head = page + step;
    return true;
  }

  /** Notes what a huge page has taken. */
  #weigh(ms: number): void {
    this.#dear = ms > WORTH_MS ? this.#dear + 1 : 0;
    if (this.#dear <= DEAR_MAX) return;
    this.#dear = 0;
    this.#rest = REST_FAULTS;
  }

  #slotOf(page: number, step: number): number {
    return Math.floor(page / step) % SLOTS;
  }
}
