// Resolves a fault when the usual way did not do, with every answer that the system has for a fill.
//
//   EEXIST   somebody was faster: if it is the fault's own page wake it, else plan again without that page
//   EAGAIN   with bytes done: go on behind them. With none: an event waits to be read first, so put the fault off
//   ENOENT   a run that leaves its mapping: try a shorter one. The page alone: it is gone, so wake who waits for it
//   ESRCH    the process is gone
//   ENOMEM   put off, like EAGAIN
//   EFAULT   the source's memory can't be read: poison. The same when the source throws
//   AWAY     the bytes have to be fetched: the fault is parked (src/pager/fetch) and comes back by resume, lose or defer
//
// A fault that is put off waits in a list until the loop has read everything; there is no limit to tries, because a
// storm of events can ask for tens of thousands, but a deadline. A page that can't be brought is poisoned: its threads
// get SIGBUS instead of waiting for ever, and the owner gets the error.

import { ERRNO } from "../abi/errno.ts";
import { PAGE_SIZE } from "../abi/memory.ts";
import { hasBit, setBits } from "../base/bitmap.ts";
import { hex, MinorfaultError } from "../base/errors.ts";
import { roundDown } from "../base/range.ts";
import { COUNTER, type Counters, recordLatency } from "./counters.ts";
import type { Filler } from "./filler.ts";
import type { Installer } from "./installer.ts";
import { clipToKind, clipToPiece, planRun, planSwap } from "./plan.ts";
import { addressOfPage, type Part, pageAt, type RegionMap, untilPage } from "./regions.ts";
import { type AddressableSource, AWAY } from "./source.ts";

export interface ResolverOptions {
  readonly filler: Filler;
  readonly installer: Installer;
  readonly source: AddressableSource;
  readonly regions: RegionMap;
  readonly counters: Counters;
  /** Milliseconds. */
  readonly now: () => number;
  /** How long a fault may be put off. Default 10 s. */
  readonly deferralMsMax?: number | undefined;
  readonly onError: (error: MinorfaultError) => void;
  /** A fault has been put off: `retry` when everything has been read. */
  readonly onPutOff?: (() => void) | undefined;
  /** For sources that are AWAY. */
  readonly park?: ((resolver: Resolver, fault: Fault, part: Part, page: number) => Parked) | undefined;
}

/** "parked": the fault comes back later. "again": the region knows more of the page now. */
export type Parked = "parked" | "again";

const FLAG = { WP: 2, MINOR: 4 } as const;
const DEFERRAL_MS_MAX = 10_000;

export interface Fault {
  readonly address: number;
  readonly flags: number;
  readonly startedMs: number;
  /** Its page can't be brought and is to be poisoned, whatever the source says later. */
  readonly isLost: boolean;
}

type Outcome = "COPIED" | "ZEROED" | "CONTINUED" | "POISONED" | "WOKEN";

export class Resolver {
  readonly #options: ResolverOptions;
  readonly #filler: Filler;
  readonly #run = { first: 0, until: 0 };
  #deferred: Fault[] = [];

  constructor(options: ResolverOptions) {
    this.#options = options;
    this.#filler = options.filler;
  }

  /** How many faults have been put off. */
  get deferred(): number {
    return this.#deferred.length;
  }

  /** Whether faults have been put off: `retry` them when everything has been read. */
  get isWaiting(): boolean {
    return this.#deferred.length > 0;
  }

  /** Serves the fault at an address, or puts it off. */
  resolve(address: number, flags: number): void {
    this.#serve({ address, flags, startedMs: this.#options.now(), isLost: false });
  }

  /** Serves a fault that was parked: what it waited for is there. */
  resume(fault: Fault): void {
    this.#serve(fault);
  }

  /** Ends a fault that was parked: its page is there, and whoever has brought it woke nobody. */
  wake(fault: Fault): void {
    const part = this.#options.regions.find(fault.address);
    if (part === undefined) this.#serve(fault);
    else this.#book(fault, this.#wake(part, pageAt(part, fault.address)));
  }

  /** Puts a fault that was parked off until everything has been read: its page has changed. */
  defer(fault: Fault): void {
    this.#putOff(fault);
  }

  /** Ends a fault that was parked: its page can't be brought. */
  lose(fault: Fault, cause: MinorfaultError): void {
    const part = this.#options.regions.find(fault.address);
    if (part !== undefined) this.#options.installer.reportLoss(part, pageAt(part, fault.address), cause);
    this.#serve({ ...fault, isLost: true });
  }

  /** Tries what was put off again. */
  retry(): void {
    const faults = this.#deferred;
    this.#deferred = [];
    for (const fault of faults) this.#serve(fault);
  }

  #putOff(fault: Fault): void {
    this.#deferred.push(fault);
    this.#options.onPutOff?.();
  }

  #serve(fault: Fault): void {
    const { deferralMsMax = DEFERRAL_MS_MAX, now } = this.#options;
    let outcome = this.#attempt(fault);
    if (outcome === "PARKED") return;
    if (typeof outcome === "object") {
      if (now() - outcome.startedMs < deferralMsMax) {
        this.#putOff(outcome);
        return;
      }
      outcome = this.#giveUp(outcome);
    }
    this.#book(fault, outcome);
  }

  #book(fault: Fault, outcome: Outcome): void {
    const { counters, now } = this.#options;
    counters[COUNTER[outcome]]! += 1;
    recordLatency(counters, (now() - fault.startedMs) * 1e6);
  }

  /** What became of the fault, or what to try later. */
  #attempt(fault: Fault): Outcome | Fault | "PARKED" {
    const part = this.#options.regions.find(fault.address);
    if (part === undefined) return this.#outside(fault);
    // What the guest has discarded meanwhile is zeros, and nothing that could be lost.
    if (fault.isLost && !hasBit(part.region.zero, pageAt(part, fault.address)))
      return this.#poison(fault, part);
    if ((fault.flags & FLAG.WP) !== 0) return this.#unprotect(fault, part);
    if ((fault.flags & FLAG.MINOR) !== 0) return this.#continue(fault, part);
    return this.#missing(fault, part);
  }

  #missing(fault: Fault, part: Part): Outcome | Fault | "PARKED" {
    const { region } = part;
    const { installer } = this.#options;
    const filler = this.#filler;
    const page = pageAt(part, fault.address);
    const run = this.#run;
    let { windowPages } = region;
    for (;;) {
      const isZero = this.#planFor(part, page, windowPages);
      const errno = installer.fill(part, run.first, run.until, isZero);
      const done = run.first + filler.bytesDone / region.pageSize;
      if (page < done) {
        region.served(page, run.first, done);
        return isZero ? "ZEROED" : "COPIED";
      }
      if (errno === ERRNO.ESRCH) return this.#gone();
      if (filler.isPutOff) return fault;
      if (errno === AWAY && this.#options.park !== undefined) {
        if (this.#options.park(this, fault, part, page) === "parked") return "PARKED";
        continue;
      }
      if (errno === ERRNO.EAGAIN) continue;
      if (errno === ERRNO.EEXIST) {
        setBits(region.resident, run.first, run.first + 1);
        if (run.first === page) return this.#wake(part, page);
      } else if (run.until - run.first > 1) {
        // A run over the end of a mapping or of the source's memory: what matters is the page itself.
        windowPages = Math.max(1, windowPages >> 1);
      } else if (errno === ERRNO.ENOENT) {
        return this.#wake(part, page);
      } else {
        installer.reportFailure(errno, part, page);
        return this.#poison({ ...fault, isLost: true }, part);
      }
    }
  }

  /** Plans the run for a page into `#run`; answers whether it is one of zeros. */
  #planFor(part: Part, page: number, windowPages: number): boolean {
    const { region } = part;
    const run = this.#run;
    if (hasBit(region.resident, page)) {
      // It was there once. Either it is (a second thread's message) and the fill will say EEXIST, or the guest has
      // dropped it without an event, and then its content is zeros.
      run.first = page;
      run.until = page + 1;
      return !region.isEvictable;
    }
    planRun(page, part.firstPage, untilPage(part), windowPages, region.resident, run);
    clipToPiece(page, region, this.#options.source, run);
    if (region.writes !== undefined) planSwap(page, region.writes, run);
    if (!region.hasZeros) return false;
    const isZero = hasBit(region.zero, page);
    clipToKind(page, isZero, region.zero, run);
    return isZero;
  }

  /** A page that the page cache has, and the guest's page table has not. */
  #continue(fault: Fault, part: Part): Outcome | Fault {
    const { region } = part;
    const page = pageAt(part, fault.address);
    const errno = this.#filler.continue(addressOfPage(part, page), region.pageSize);
    if (errno === 0) {
      setBits(region.resident, page, page + 1);
      return "CONTINUED";
    }
    return this.#afterSingle(fault, part, errno);
  }

  /** A write to a protected page: it is noted where writes are tracked, and the guest goes on. */
  #unprotect(fault: Fault, part: Part): Outcome | Fault {
    const page = pageAt(part, fault.address);
    const { writes, resident } = part.region;
    // Evicted since: the thread has to find that out.
    if (writes !== undefined && !hasBit(resident, page)) return this.#wake(part, page);
    writes?.write(page);
    const errno = this.#filler.unprotect(addressOfPage(part, page), part.region.pageSize);
    return errno === 0 ? "WOKEN" : this.#afterSingle(fault, part, errno);
  }

  #afterSingle(fault: Fault, part: Part, errno: number): Outcome | Fault {
    const page = pageAt(part, fault.address);
    if (this.#filler.isPutOff) return fault;
    if (errno === ERRNO.ESRCH) return this.#gone();
    if (errno === ERRNO.EEXIST || errno === ERRNO.ENOENT) return this.#wake(part, page);
    this.#options.installer.reportFailure(errno, part, page);
    return this.#poison({ ...fault, isLost: true }, part);
  }

  /** An address that no region covers: stale after an unmap, or memory that nobody told the pager about. */
  #outside(fault: Fault): Outcome | Fault {
    const { address } = fault;
    const page = roundDown(address, PAGE_SIZE);
    const filler = this.#filler;
    const errno = filler.poison(page, PAGE_SIZE);
    if (filler.isPutOff) return fault;
    if (errno === ERRNO.ESRCH) return this.#gone();
    if (errno === 0) {
      const message = `A fault at ${hex(address)} lies in no region of this pager`;
      this.#options.onError(new MinorfaultError("ERR_OUT_OF_RANGE", message, { address }));
      return "POISONED";
    }
    filler.wake(page, PAGE_SIZE);
    return "WOKEN";
  }

  /** The page stays missing for us: once the guest discards the poison, its next fault asks the source again. */
  #poison(fault: Fault, part: Part): Outcome | Fault {
    const page = pageAt(part, fault.address);
    const errno = this.#filler.poison(addressOfPage(part, page), part.region.pageSize);
    if (errno === 0) {
      part.region.poison(page);
      return "POISONED";
    }
    if (this.#filler.isPutOff) return fault;
    if (errno === ERRNO.ESRCH) return this.#gone();
    return this.#wake(part, page);
  }

  #wake(part: Part, page: number): Outcome {
    this.#filler.wake(addressOfPage(part, page), part.region.pageSize);
    return "WOKEN";
  }

  #gone(): Outcome {
    this.#options.installer.guestIsGone();
    return "WOKEN";
  }

  /** The deadline has passed: the thread tries again from the start, and the owner knows. */
  #giveUp(fault: Fault): Outcome {
    const { address } = fault;
    const message = `The fault at ${hex(address)} was put off by the system until its deadline`;
    this.#options.onError(new MinorfaultError("ERR_DEADLINE", message, { address }));
    this.#filler.wake(roundDown(address, PAGE_SIZE), PAGE_SIZE);
    return "WOKEN";
  }
}
