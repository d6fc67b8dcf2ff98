// Brings what comes next to a guest that goes through its memory in order: whole huge pages, moved instead of copied.
//
//   file ──pread──▶ [ huge page of ours ] ──UFFDIO_MOVE──▶ the guest's: one entry of its page table for 512 pages
//
//   faults   ▲           ▲                       ▲
//   memory   │ copied    │ copied │ moved        │ copied │ moved │ moved │ moved │ ...
//
// A copy has to find and map every small page. But an entry of the page table that has been faulted on holds a table of
// small pages already: so the window of the fault itself is copied, and those behind it are moved, before the guest
// goes on and meets them. How many depends on how long it has gone in order.
//
// It works where the guest's memory is this process's own. The first refusal ends it: then all is copied. So it does
// where fresh huge pages turn out to be dear, as in a virtual machine whose host has yet to find the memory for them.

import { HUGE_PAGE_SIZE, MADV, MAP, PROT } from "../abi/memory.ts";
import { nextSet, setBits } from "../base/bitmap.ts";
import { roundUp } from "../base/range.ts";
import { close, duplicate, local, madvise, mmap, munmap } from "../linux/index.ts";
import { COUNTER, type Counters } from "./counters.ts";
import type { Filler } from "./filler.ts";
import { addressOfPage, type Part, untilPage } from "./regions.ts";

/** LIMIT: huge pages that are brought ahead of one fault: some two milliseconds in which the guest waits. */
const AHEAD_MAX = 8;
/** What moving a huge page takes at most where it is worth it: about what copying it takes on a busy machine. */
const WORTH_MS = 1;
/** LIMIT: huge pages in a row that may take longer. */
const DEAR_MAX = 3;

/** A file with an image's bytes, and memory for a huge page of them. */
export class HugePages {
  readonly address: number;
  readonly #fd: number;
  readonly #mapping: number;

  /** `fd`: of the file; it stays the caller's. */
  constructor(fd: number) {
    this.#fd = duplicate(local, fd);
    const flags = MAP.PRIVATE | MAP.ANONYMOUS;
    this.#mapping = mmap(local, 2 * HUGE_PAGE_SIZE, { protection: PROT.READ | PROT.WRITE, flags });
    this.address = roundUp(this.#mapping, HUGE_PAGE_SIZE);
    // What a child of fork(2) has as well can't be moved.
    madvise(local, this.address, HUGE_PAGE_SIZE, MADV.DONTFORK);
    // A kernel without huge pages refuses: small ones are moved then, which is as fast as a copy.
    local.call("madvise", this.address, HUGE_PAGE_SIZE, MADV.HUGEPAGE);
  }

  /** Puts the file's bytes from `offset` on to `address`; false where there are not as many. */
  fill(offset: number): boolean {
    return local.call("pread64", this.#fd, this.address, HUGE_PAGE_SIZE, offset) === HUGE_PAGE_SIZE;
  }

  close(): void {
    munmap(local, this.#mapping, 2 * HUGE_PAGE_SIZE);
    close(local, this.#fd);
  }
}

export class HugeAhead {
  readonly #pages: HugePages;
  readonly #filler: Filler;
  readonly #counters: Counters;
  #isRefused = false;
  /** The page where a guest that goes on in order faults next, and how often it has done so. */
  #expected = -1;
  #streak = 0;
  /** Huge pages in a row that were not worth it. */
  #dear = 0;

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
    if (this.#isRefused) return until;
    const isNext = first === this.#expected;
    this.#expected = until;
    this.#streak = isNext ? this.#streak + 1 : 0;
    if (!isNext) return until;
    let page = until;
    for (let count = Math.min(AHEAD_MAX, 2 ** this.#streak); count > 0 && this.#move(part, page); count--) {
      page += HUGE_PAGE_SIZE / part.region.pageSize;
    }
    this.#expected = page;
    return page;
  }

  /** Moves the huge page that begins with a page of a part; false when that can't be. */
  #move(part: Part, page: number): boolean {
    const { region } = part;
    const until = page + HUGE_PAGE_SIZE / region.pageSize;
    const target = addressOfPage(part, page);
    if (target % HUGE_PAGE_SIZE !== 0 || until > untilPage(part)) return false;
    if (nextSet(region.resident, page, until) < until) return false;
    if (region.hasZeros && nextSet(region.zero, page, until) < until) return false;
    const begin = performance.now();
    if (!this.#pages.fill(region.imageOffset + page * region.pageSize)) return false;
    const errno = this.#filler.move(target, this.#pages.address, HUGE_PAGE_SIZE);
    const { bytesDone } = this.#filler;
    if (bytesDone > 0) {
      setBits(region.resident, page, page + bytesDone / region.pageSize);
      this.#counters[COUNTER.BYTES_INSTALLED]! += bytesDone;
    }
    // Whatever it is: copying, which is to come, knows what to do about it.
    if (errno !== 0 && !this.#filler.isPutOff) this.#isRefused = true;
    this.#dear = performance.now() - begin > WORTH_MS ? this.#dear + 1 : 0;
    if (this.#dear > DEAR_MAX) this.#isRefused = true;
    return errno === 0;
  }
}
