// Keeps the resident pages of a guest below a budget: before something is installed, as much is evicted.
//
//      evicted already        hand              installed lately
//   ┌────────────────────────┬──▼──────────────────────────────┐
//   │ · · · · · · · · · · ·  │ ■ ■ ■ · ■ ■ ■ ■ ■ ■ ■ · · ■ ■   │
//   └────────────────────────┴─────────────────────────────────┘
//                              └─ run: MADV_DONTNEED
//
// The hand goes round over the addresses: for a guest that walks, that is first in, first out. A page that the guest has
// written (src/pager/writes.ts) is protected, written to the swap file, and only then dropped; without a swap
// file it stays and counts. A thread that faults meanwhile waits for its message to be read, by us, afterwards.
//
// This runs in the thread that installs, so nothing is installed between the look at a page and its end. Whoever installs
// elsewhere would have to ask here first. The memory is this process's own: the guest's thread is one of our process,
// and its userfaultfd must not have EVENT_REMOVE, for we would wait for ourselves.

import { errnoName } from "../abi/errno.ts";
import { MADV } from "../abi/memory.ts";
import type { Caller } from "../abi/system.ts";
import { clearBits, nextClear, nextSet } from "../base/bitmap.ts";
import { MinorfaultError } from "../base/errors.ts";
import { COUNTER, type Counters } from "./counters.ts";
import type { Filler } from "./filler.ts";
import { addressOfPage, type Part, type RegionMap, untilPage } from "./regions.ts";

/** LIMIT: bytes evicted at once, at most; and at least, unless the budget is very small. */
const RUN_BYTES_MAX = 2 * 1024 * 1024;
const RUN_BYTES_MIN = 64 * 1024;
/** LIMIT: a budget below this would evict what the same instruction needs. */
export const BUDGET_BYTES_MIN: number = 4 * 1024 * 1024;

export interface EvictorOptions {
  /** Makes madvise and pwrite in the guest's process, which is ours. */
  readonly caller: Caller;
  readonly regions: RegionMap;
  readonly counters: Counters;
  readonly filler: Filler;
  /** Bytes that may be resident. */
  readonly budgetBytes: number;
  /** Descriptor of the swap file, -1: none. */
  readonly swapFd: number;
  readonly onError: (error: MinorfaultError) => void;
}

export class Evictor {
  readonly #options: EvictorOptions;
  readonly #runBytes: number;
  #part = 0;
  #page = -1;
  #isReported = false;

  constructor(options: EvictorOptions) {
    this.#options = options;
    this.#runBytes = Math.min(RUN_BYTES_MAX, Math.max(RUN_BYTES_MIN, options.budgetBytes / 16));
  }

  get residentBytes(): number {
    const { counters } = this.#options;
    return counters[COUNTER.BYTES_INSTALLED]! - counters[COUNTER.BYTES_EVICTED]!;
  }

  /** Evicts until so many bytes more are within the budget. */
  makeRoom(byteLength: number): void {
    const { budgetBytes } = this.#options;
    // Twice round: whatever can be evicted has been met by then.
    let turns = 0;
    while (this.residentBytes + byteLength > budgetBytes) {
      if (!this.#step() && ++turns > 2) {
        this.#report(`What can't be evicted exceeds the budget of ${budgetBytes} bytes: pages were written`);
        return;
      }
    }
  }

  /** Evicts the next run at the hand; false when the hand has come round without any. */
  #step(): boolean {
    const { parts } = this.#options.regions;
    const part = parts[this.#part];
    if (part === undefined) {
      this.#part = 0;
      this.#page = -1;
      return false;
    }
    const { region } = part;
    const partUntil = untilPage(part);
    const from = this.#page < part.firstPage ? part.firstPage : this.#page;
    const first = nextSet(region.resident, from, partUntil);
    if (first >= partUntil) {
      this.#part++;
      this.#page = -1;
      return true;
    }
    const pagesMax = Math.max(1, Math.floor(this.#runBytes / region.pageSize));
    const until = nextClear(region.resident, first, Math.min(partUntil, first + pagesMax));
    this.#page = until;
    this.#evict(part, first, until);
    return true;
  }

  #evict(part: Part, first: number, until: number): void {
    const { writes } = part.region;
    if (writes === undefined) {
      this.#drop(part, first, until);
      return;
    }
    for (let page = first; page < until; ) {
      const mustSave = writes.mustSave(page);
      let next = page + 1;
      while (next < until && writes.mustSave(next) === mustSave) next++;
      if (!mustSave || this.#save(part, page, next)) this.#drop(part, page, next);
      page = next;
    }
  }

  /** Puts the bytes of written pages into the swap file; false when there is none, or it takes no more. */
  #save(part: Part, first: number, until: number): boolean {
    const { region } = part;
    const { caller, filler, swapFd } = this.#options;
    if (swapFd < 0) return false;
    const address = addressOfPage(part, first);
    const byteLength = (until - first) * region.pageSize;
    // From here on nobody writes: whoever tries waits until we read his message.
    if (filler.protect(address, byteLength) !== 0) return false;
    const offset = region.imageOffset + first * region.pageSize;
    for (let done = 0; done < byteLength; ) {
      const count = caller.call("pwrite64", swapFd, address + done, byteLength - done, offset + done);
      if (count <= 0) {
        this.#report(
          `Writing to the swap file failed with ${errnoName(count)}: written pages stay in memory`,
        );
        return false;
      }
      done += count;
    }
    region.writes?.saved(first, until);
    this.#options.counters[COUNTER.BYTES_SWAPPED]! += byteLength;
    return true;
  }

  #drop(part: Part, first: number, until: number): void {
    const { caller, counters } = this.#options;
    const { region } = part;
    const byteLength = (until - first) * region.pageSize;
    if (caller.call("madvise", addressOfPage(part, first), byteLength, MADV.DONTNEED) < 0) return;
    clearBits(region.resident, first, until);
    counters[COUNTER.BYTES_EVICTED]! += byteLength;
  }

  /** Once: the owner knows then that the budget does not hold. */
  #report(message: string): void {
    if (this.#isReported) return;
    this.#isReported = true;
    this.#options.onError(new MinorfaultError("ERR_LIMIT", message));
  }
}
