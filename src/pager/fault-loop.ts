// The loop: reads what a userfaultfd has to say, and brings the pages.
//
//   pump ── read ──▶ message ── fault, the usual case ──▶ prepare ──▶ turn: fill, and read the next message
//    ▲                  │                                               │ the fill failed
//    │                  ├── event ──▶ the regions follow                ▼
//    │                  └── fault, any other ────────────────────▶ resolve: whatever it takes
//    └──────────────────────────────────────────────────────────────────┘
//
// The usual case allocates nothing and computes in doubles. It books the fault before the fill, because `turn` may
// wait for a long time after it, and takes it back if the fill fails.
//
// What runs here never touches memory that it pages and waits for nothing but the userfaultfd. Every fault ends in
// exactly one of copied, zeroed, continued, poisoned, woken (src/pager/resolver.ts).

import { UFFD_MSG_SIZE } from "../abi/message.ts";
import { UFFD_EVENT, UFFDIO } from "../abi/userfaultfd.ts";
import { clearBits, hasBit, setBits } from "../base/bitmap.ts";
import { COUNTER, type Counters, recordLatency } from "./counters.ts";
import { Evictor, type EvictorOptions } from "./evictor.ts";
import { Filler } from "./filler.ts";
import { HugeAhead, type HugePages } from "./huge-ahead.ts";
import { Installer, type InstallerOptions } from "./installer.ts";
import { isProcessGone } from "./liveness.ts";
import { clipToKind, clipToPiece, planRun, planSwap } from "./plan.ts";
import { type FaultPort, WORD } from "./port.ts";
import { addressOfPage, type Part, pageAt, type RegionMap, untilPage } from "./regions.ts";
import { Resolver, type ResolverOptions } from "./resolver.ts";
import type { Tracer } from "./trace.ts";
import type { FlushStep } from "./writes.ts";

const TWO_32 = 2 ** 32;

export interface FaultLoopOptions
  extends Omit<ResolverOptions, "filler" | "installer">,
    Omit<InstallerOptions, "filler" | "evictor"> {
  readonly port: FaultPort;
  /** A child was forked: its userfaultfd, ours to close, and its memory as it was then. */
  readonly onFork: (fd: number, regions: RegionMap) => void;
  /** Installs pages write-protected. */
  readonly protects?: boolean;
  /** Keeps the resident pages below this. */
  readonly budget?: Pick<EvictorOptions, "caller" | "budgetBytes" | "swapFd"> | undefined;
  /** The content of these addresses is gone, or they are: what waits there for bytes has to look again. */
  readonly onChange?: ((resolver: Resolver, start: number, until: number) => void) | undefined;
  /** Fetches the bytes from a page on, for sources that are AWAY: see `FetchClient.fetchFrom`. */
  readonly fetchFrom?: ((part: Part, page: number, until: number) => number | undefined) | undefined;
  /** What outlives this pager, where something has to. */
  readonly state?: LoopState | undefined;
  /** Brings huge pages ahead of guests that go through their memory in order. */
  readonly hugePages?: HugePages | undefined;
  /** Records what is touched. */
  readonly tracer?: Tracer | undefined;
  /** A pause before a fault after which `pump` returns when it has served it. Default 1 ms. */
  readonly pauseMs?: number;
}

/** Notes for a successor (src/pager/state.ts). Both are called when the event in the port has been dealt with. */
export interface LoopState {
  acknowledge(): void;
  /** Parts of the memory have moved, or are gone. */
  commit(parts: readonly Part[]): void;
}

export class FaultLoop {
  readonly port: FaultPort;
  readonly regions: RegionMap;
  readonly resolver: Resolver;
  readonly installer: Installer;
  readonly counters: Counters;
  readonly fetchFrom: FaultLoopOptions["fetchFrom"];
  readonly #words: Int32Array;
  readonly #filler: Filler;
  readonly #evictor: Evictor | undefined;
  readonly #ahead: HugeAhead | undefined;
  readonly #options: FaultLoopOptions;
  readonly #nanosecondsPerTick: number;
  readonly #pauseTicks: number;

  // What `prepare` has decided for the fault in the port.
  readonly #run = { first: 0, until: 0 };
  #part: Part;
  #page = 0;
  #bytes = 0;
  #isZero = false;
  /** The run ends before the window does, because what follows is of the other kind (zeros or bytes). */
  #isClipped = false;

  constructor(options: FaultLoopOptions) {
    this.#options = options;
    this.port = options.port;
    this.regions = options.regions;
    this.#words = options.port.words;
    this.counters = options.counters;
    this.fetchFrom = options.fetchFrom;
    this.#filler = new Filler(options.port, options.protects);
    const filler = this.#filler;
    const { budget } = options;
    this.#evictor = budget && new Evictor({ ...options, ...budget, filler });
    // Each of these objects is written out: what comes of a spread has another hidden class for each guest, and with each of
    // them all code is thrown away that has been compiled for it.
    const { regions, source, counters, zeros, now, onError, onGone, onPutOff, park } = options;
    const { deferralMsMax } = options;
    this.#ahead = options.hugePages && new HugeAhead(options.hugePages, filler, options.counters);
    const evictor = this.#evictor;
    this.installer = new Installer({ filler, source, counters, zeros, evictor, onGone, onError });
    const { installer } = this;
    this.resolver = new Resolver({
      filler,
      installer,
      source,
      regions,
      counters,
      now,
      deferralMsMax,
      onError,
      onPutOff,
      park,
    });
    this.#nanosecondsPerTick = options.port.nanosecondsPerTick;
    this.#pauseTicks = ((options.pauseMs ?? 1) * 1e6) / this.#nanosecondsPerTick;
    this.#part = options.regions.parts[0]!;
  }

  /** The thread that raised the last fault, 0 when the messages do not tell. */
  get lastThreadId(): number {
    return this.#words[WORD.MESSAGE + 6]!;
  }

  /** The last message was no fault: who serves may have to look around (a child to serve) before it waits again. */
  #hasNews = false;

  /**
   * Reads and serves messages until there is none, a read is interrupted, a fault is put off, an event has come, a
   * pause has ended, there is something ahead to install, or `messagesMax` have been served. Answers what ended it: a negative errno of read(2), or 0. Waits inside if
   * the descriptor is blocking.
   */
  pump(messagesMax: number): number {
    const { port } = this;
    const words = this.#words;
    const { source } = this.#options;
    let left = messagesMax;
    this.#hasNews = false;
    port.read();
    while (words[WORD.READ_RESULT] === UFFD_MSG_SIZE) {
      left--;
      const readAt = words[WORD.READ_STAMP + 1]! * TWO_32 + (words[WORD.READ_STAMP]! >>> 0);
      if (this.#prepare()) {
        const goesOn = left > 0 && !this.#isClipped;
        if (goesOn) port.turn();
        else port.fill();
        if (words[WORD.FILL_RESULT] === 0) {
          const filledAt = words[WORD.FILL_STAMP + 1]! * TWO_32 + (words[WORD.FILL_STAMP]! >>> 0);
          recordLatency(this.counters, (filledAt - readAt) * this.#nanosecondsPerTick);
          if (goesOn) {
            const nextAt = words[WORD.READ_STAMP + 1]! * TWO_32 + (words[WORD.READ_STAMP]! >>> 0);
            if (nextAt - filledAt > this.#pauseTicks || source.hasAhead === true) left = 1;
            continue;
          }
          if (this.#isClipped) this.#fillRest();
        } else {
          this.#afterFailure();
        }
      } else {
        this.#other();
      }
      if (left <= 0 || this.#hasNews || this.resolver.isWaiting || source.hasAhead === true) return 0;
      port.read();
    }
    return words[WORD.READ_RESULT]!;
  }

  /** Serves the usual fault up to its fill, which then stands in the port; false when the message is anything else. */
  #prepare(): boolean {
    const words = this.#words;
    // A missing page: an event PAGEFAULT without the flags MINOR and WP.
    if ((words[WORD.MESSAGE]! & 0xff) !== UFFD_EVENT.PAGEFAULT || words[WORD.MESSAGE + 2]! > 1) return false;
    const address = words[WORD.MESSAGE + 5]! * TWO_32 + (words[WORD.MESSAGE + 4]! >>> 0);
    const part = this.regions.find(address);
    if (part === undefined) return false;
    const { region } = part;
    const page = pageAt(part, address);
    if (hasBit(region.resident, page)) return false;

    const run = this.#run;
    planRun(page, part.firstPage, untilPage(part), region.windowPages, region.resident, run);
    clipToPiece(page, region, this.#options.source, run);
    this.#isZero = false;
    this.#isClipped = false;
    if (region.hasZeros) {
      const pages = run.until - run.first;
      this.#isZero = hasBit(region.zero, page);
      clipToKind(page, this.#isZero, region.zero, run);
      this.#isClipped = run.until - run.first < pages;
      if (this.#isZero && !region.takesZeropage) return false;
    }
    const isSwapped = region.writes !== undefined && planSwap(page, region.writes, run);
    const target = addressOfPage(part, run.first);
    this.#bytes = (run.until - run.first) * region.pageSize;
    this.#part = part;
    this.#page = page;
    this.#evictor?.makeRoom(this.#bytes);
    const broughtUntil = this.#ahead?.bring(part, run.first, run.until) ?? run.until;
    const moved = this.#ahead?.source ?? -1;
    if (moved >= 0) {
      this.#filler.stageMove(target, moved, this.#bytes);
    } else if (this.#isZero && !isSwapped) {
      this.#filler.stageRange(UFFDIO.ZEROPAGE, target, this.#bytes);
    } else {
      const offset = region.imageOffset + run.first * region.pageSize;
      const source = isSwapped ? region.writes!.swapAddress + offset : this.#addressOf(offset);
      if (source < 0) return false;
      this.#filler.stageCopy(target, source, this.#bytes);
    }
    this.#book(1);
    this.#options.tracer?.record(
      region.imageOffset + page * region.pageSize,
      (words[WORD.MESSAGE + 2]! & 1) !== 0,
      this.#options.now(),
    );
    setBits(region.resident, run.first, run.until);
    region.served(page, run.first, broughtUntil);
    return true;
  }

  /** Where the bytes are, or -1 when the source throws: `resolve` will meet the same error and deal with it. */
  #addressOf(offset: number): number {
    try {
      return this.#options.source.addressOf(offset, this.#bytes);
    } catch {
      return -1;
    }
  }

  /** Counts the fault in the port as served (1), or takes that back (-1). */
  #book(sign: number): void {
    const counters = this.counters;
    counters[COUNTER.FAULTS]! += sign;
    counters[COUNTER.BYTES_INSTALLED]! += sign * this.#bytes;
    if (this.#isZero) {
      counters[COUNTER.ZEROED]! += sign;
      counters[COUNTER.BYTES_ZEROED]! += sign * this.#bytes;
    } else {
      counters[COUNTER.COPIED]! += sign;
    }
  }

  /** The fill in the port has failed: takes the fault off the books, keeps what was done, and resolves the rest. */
  #afterFailure(): void {
    const part = this.#part;
    const { region } = part;
    const { first, until } = this.#run;
    clearBits(region.resident, first, until);
    this.#book(-1);
    this.#filler.takeFailure();
    this.#ahead?.failed();
    this.installer.book(part, first, this.#isZero);
    if (this.#page < first + this.#filler.bytesDone / region.pageSize) {
      this.counters[COUNTER.FAULTS]! += 1;
      this.counters[this.#isZero ? COUNTER.ZEROED : COUNTER.COPIED]! += 1;
    } else {
      this.#resolve();
    }
  }

  /** The window's pages of the other kind, now that the guest runs again. */
  #fillRest(): void {
    const part = this.#part;
    const { windowPages } = part.region;
    const windowFirst = this.#run.first & -windowPages;
    const first = Math.max(windowFirst, part.firstPage);
    this.installer.install(part, first, Math.min(windowFirst + windowPages, untilPage(part)));
  }

  #resolve(): void {
    const words = this.#words;
    const address = words[WORD.MESSAGE + 5]! * TWO_32 + (words[WORD.MESSAGE + 4]! >>> 0);
    this.counters[COUNTER.FAULTS]! += 1;
    const flags = words[WORD.MESSAGE + 2]!;
    if (this.#options.tracer !== undefined) this.#trace(this.#options.tracer, address, flags);
    this.resolver.resolve(address, flags);
  }

  #trace(tracer: Tracer, address: number, flags: number): void {
    const part = this.regions.find(address);
    if (part === undefined || flags > 1) return;
    const { imageOffset, pageSize } = part.region;
    tracer.record(imageOffset + pageAt(part, address) * pageSize, flags === 1, this.#options.now());
  }

  /** A message that is not the usual fault. */
  #other(): void {
    const words = this.#words;
    const event = words[WORD.MESSAGE]! & 0xff;
    if (event === UFFD_EVENT.PAGEFAULT) {
      this.#resolve();
      return;
    }
    this.#hasNews = true;
    this.counters[COUNTER.EVENTS]! += 1;
    const word = (index: number): number => words[index + 1]! * TWO_32 + (words[index]! >>> 0);
    const first = word(WORD.MESSAGE + 2);
    const second = word(WORD.MESSAGE + 4);
    const { state } = this.#options;
    if (event === UFFD_EVENT.REMOVE) {
      this.regions.remove(first, second);
      state?.acknowledge();
      this.#options.onChange?.(this.resolver, first, second);
    } else if (event === UFFD_EVENT.UNMAP) {
      this.regions.unmap(first, second);
      // Who waits there is not woken by the unmapping itself, and must see that nothing is there any more.
      this.#filler.wake(first, second - first);
      state?.commit(this.regions.parts);
      this.#options.onChange?.(this.resolver, first, second);
    } else if (event === UFFD_EVENT.REMAP) {
      const byteLength = word(WORD.MESSAGE + 6);
      this.regions.remap(first, second, byteLength);
      this.#filler.wake(first, byteLength);
      // And whoever faulted at the new place before we knew of it: a pager that has died since may have read that.
      this.#filler.wake(second, byteLength);
      state?.commit(this.regions.parts);
      this.#options.onChange?.(this.resolver, first, first + byteLength);
      this.#options.onChange?.(this.resolver, second, second + byteLength);
    } else if (event === UFFD_EVENT.FORK) {
      this.#options.onFork(words[WORD.MESSAGE + 2]!, this.regions.fork());
    }
  }

  /** A step of a flush, in every region whose writes are tracked. */
  flush(step: FlushStep): void {
    for (const part of this.regions.parts) {
      const { region } = part;
      if (step === "begin") {
        region.writes?.beginFlush(region.pageCount, (first, until) => {
          this.#filler.protect(addressOfPage(part, first), (until - first) * region.pageSize);
        });
      } else {
        region.writes?.endFlush(step === "done");
      }
    }
  }

  /** Looks whether the guest still lives, and remembers if it does not. */
  checkGuest(): void {
    if (isProcessGone((start, byteLength) => this.#filler.zero(start, byteLength))) {
      this.installer.guestIsGone();
    }
  }

  /** Makes every thread that waits in any of the regions look again. */
  wakeAll(): void {
    for (const { start, until } of this.regions.parts) this.#filler.wake(start, until - start);
  }
}
