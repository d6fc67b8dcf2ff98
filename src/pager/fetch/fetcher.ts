// The source of a pager whose bytes have to be fetched: knows what is staged, parks the faults that have to wait, and does
// what the machine decides.
//
//   fault ──▶ resolver ── addressOf: AWAY ──▶ park ──▶ machine ── fetch ──▶ link ──▶ the thread that fetches
//               ▲                                        ▲                             │ into a slot
//               └───────── resume: addressOf ◀── serve ──┴───────── collect ◀── link ◀─┘
//
// Fetched bytes are installed by the thread that reads the events of the guest, and by no other: whatever a guest
// discards is told to us before its pages are gone, and a fill is refused until we have read that. A second thread that
// installs would need to be told in turn, and in the meantime bring back what had been discarded.

import { hasBit } from "../../base/bitmap.ts";
import { hex, MinorfaultError } from "../../base/errors.ts";
import type { FaultLoop } from "../fault-loop.ts";
import { type Part, type Region, untilPage } from "../regions.ts";
import type { Fault, Parked, Resolver } from "../resolver.ts";
import { type AddressableSource, AWAY } from "../source.ts";
import type { DirectReader } from "./direct.ts";
import type { FetchEnd, FetchLink, FetchNews, ReplayEnd } from "./link.ts";
import { type Action, FetchMachine, type MachineOptions, RANK, type Rank } from "./machine.ts";
import { Pattern } from "./pattern.ts";
import { ReplayInstaller } from "./replay.ts";

/** Units that are brought along with a run of faults, at most: 2 MiB in units of 64 KiB. */
const WIDTH_MAX = 32;
/** Units that a bulk has fetched ahead of what it installs. */
const BULK_UNITS = 32;
/** LIMIT: failures that are kept until somebody asks. */
const FAILED_MAX = 1024;

export interface FetcherOptions extends MachineOptions {
  /** Bytes of the image. */
  readonly byteLength: number;
  /** Where slot 0 is, in the memory of who installs; the others follow. */
  readonly staging: number;
  readonly link: FetchLink;
  /** One bit a unit that is known to be zeros; both threads set bits, atomically. */
  readonly holes: Uint32Array;
  /** Whether all of a unit is installed when it has come, not only what the plan says. */
  readonly installsWhole: boolean;
  /** Milliseconds. */
  readonly now: () => number;
  readonly onError: (error: MinorfaultError) => void;
  /** Called before a fault is given up whose deadline has passed. */
  readonly onExpired?: (() => void) | undefined;
  /** Where bytes can be read at the fault itself. */
  readonly direct?: DirectReader | undefined;
  /** The replay of a working set has ended; so many bytes were installed. */
  readonly onReplayed?: (end: ReplayEnd, bytesInstalled: number) => void;
}

interface Waiting {
  readonly resolver: Resolver;
  readonly fault: Fault;
}

/** A unit's pages in one region's part. */
interface Piece {
  readonly loop: FaultLoop;
  readonly part: Part;
  readonly first: number;
  readonly until: number;
}

export class Fetcher implements AddressableSource {
  readonly byteLength: number;
  readonly unitBytes: number;
  readonly machine: FetchMachine;
  readonly #options: FetcherOptions;
  readonly #waiting = new Map<number, Waiting>();
  readonly #loops = new Set<FaultLoop>();
  /** Pieces whose installing was put off by the system; by what they are of. */
  #putOff: Piece[] = [];
  #lastWaiter = 0;
  /** The unit that was read directly last, -1: none. */
  #directUnit = -1;
  /** Units that failed although nobody waited for them, until somebody asks. */
  readonly #failed = new Map<number, MinorfaultError>();
  #lastEnd: FetchEnd | undefined;
  readonly #replay: ReplayInstaller;
  #replayEnd: ReplayEnd | undefined;
  readonly #patterns = new WeakMap<Region, Pattern>();

  constructor(options: FetcherOptions) {
    this.#options = options;
    this.byteLength = options.byteLength;
    this.unitBytes = options.unitBytes;
    this.machine = new FetchMachine(options);
    const { staging, slots, unitBytes, link } = options;
    const free = (slot: number): void => link.send({ kind: "free", slot });
    this.#replay = new ReplayInstaller(staging + slots * unitBytes, free);
  }

  /** A loop whose regions are served from here. */
  add(loop: FaultLoop): void {
    this.#loops.add(loop);
  }

  /** A loop whose guest has ended. */
  remove(loop: FaultLoop): void {
    this.#loops.delete(loop);
    for (const [waiter, { resolver }] of this.#waiting) {
      if (resolver === loop.resolver) this.#withdraw(waiter);
    }
    this.#putOff = this.#putOff.filter((piece) => piece.loop !== loop);
  }

  reach(offset: number): number {
    return this.unitBytes - (offset % this.unitBytes);
  }

  addressOf(offset: number, byteLength: number): number {
    const { unitBytes } = this;
    const unit = Math.floor(offset / unitBytes);
    const within = offset - unit * unitBytes;
    if (within + byteLength > unitBytes) {
      throw new MinorfaultError("ERR_BUG", `${byteLength} bytes at ${offset} do not lie in one unit`);
    }
    if (unit === this.#directUnit) return this.#options.direct!.address + within;
    const slot = this.machine.slotOf(unit);
    return slot < 0 ? AWAY : this.#options.staging + slot * unitBytes + within;
  }

  /** Keeps a fault until the bytes of its page are there. */
  readonly park = (resolver: Resolver, fault: Fault, part: Part, page: number): Parked => {
    const unit = this.#unitOf(part, page);
    if (hasBit(this.#options.holes, unit)) {
      knowZeros(part, unit, this.unitBytes);
      return "again";
    }
    if (this.#readDirectly(unit)) {
      if (hasBit(this.#options.holes, unit)) knowZeros(part, unit, this.unitBytes);
      else if (this.#options.installsWhole) this.#goAhead(part, unit);
      return "again";
    }
    const waiter = ++this.#lastWaiter;
    this.#waiting.set(waiter, { resolver, fault });
    this.machine.need(waiter, unit, fault.startedMs, this.#options.now());
    this.#perform();
    if (this.#options.installsWhole) this.#goAhead(part, unit);
    return "parked";
  };

  /** Reads a unit at once, unless it is on its way already. */
  #readDirectly(unit: number): boolean {
    const { direct, holes } = this.#options;
    if (direct === undefined || this.machine.isKnown(unit)) return false;
    this.#directUnit = -1;
    const result = direct.read(unit);
    if (result === "bytes") this.#directUnit = unit;
    if (result === "zero") Atomics.or(holes, unit >>> 5, 1 << (unit & 31));
    return result !== undefined;
  }

  /** Fetches what this fault lets us expect. */
  #goAhead(part: Part, unit: number): void {
    const { region } = part;
    let pattern = this.#patterns.get(region);
    if (pattern === undefined) {
      pattern = new Pattern({ widthMax: WIDTH_MAX });
      this.#patterns.set(region, pattern);
    }
    const { stride, count } = pattern.fault(unit);
    for (let index = 1; index <= count; index++) {
      const next = unit + stride * index;
      const page = (next * this.unitBytes - region.imageOffset) / region.pageSize;
      if (page < part.firstPage || page >= untilPage(part)) return;
      if (!hasBit(region.resident, Math.floor(page)) && !this.want(next, RANK.AHEAD)) return;
    }
  }

  /** The guest's memory has changed there: who waits looks again. */
  readonly change = (resolver: Resolver, start: number, until: number): void => {
    for (const [waiter, waiting] of this.#waiting) {
      const { address } = waiting.fault;
      if (waiting.resolver !== resolver || address < start || address >= until) continue;
      this.#withdraw(waiter);
      resolver.defer(waiting.fault);
    }
  };

  /** Fetches what nobody waits for yet. Answers false when no more is taken at present. */
  want(unit: number, rank: Exclude<Rank, 0>): boolean {
    if (hasBit(this.#options.holes, unit) || this.#failed.has(unit)) return true;
    const isTaken = this.machine.want(unit, rank, this.#options.now());
    this.#perform();
    return isTaken;
  }

  /**
   * Fetches the bytes from a page on, for whoever installs everything. Answers the page where to go on, undefined while
   * they are on their way: this page where the image turns out to have a hole, a later one behind what can't be brought.
   */
  fetchFrom(part: Part, page: number, until: number): number | undefined {
    const { imageOffset, pageSize } = part.region;
    const unit = this.#unitOf(part, page);
    const unitUntil = Math.min(until, Math.floor(((unit + 1) * this.unitBytes - imageOffset) / pageSize));
    if (hasBit(this.#options.holes, unit)) {
      knowZeros(part, unit, this.unitBytes);
      return page;
    }
    const failure = this.#failed.get(unit);
    if (failure !== undefined) {
      this.#failed.delete(unit);
      const message = `${this.unitBytes} bytes of the image at ${unit * this.unitBytes} could not be fetched`;
      this.#options.onError(new MinorfaultError("ERR_HANDLER_FAILED", message, { cause: failure }));
      return unitUntil;
    }
    const last = this.#unitOf(part, until - 1);
    for (let next = unit; next <= Math.min(last, unit + BULK_UNITS); next++) {
      if (!this.want(next, RANK.BACKGROUND)) break;
    }
    return undefined;
  }

  /** Takes in what has been fetched, and lets deadlines pass. */
  collect(): void {
    const { link, now } = this.#options;
    if (this.#putOff.length > 0) this.#installAgain();
    if (this.#replay.isPutOff) this.#replay.install();
    for (let news = link.receive(); news !== undefined; news = link.receive()) this.#hear(news);
    if (this.#replayEnd !== undefined && !this.#replay.isPutOff) {
      this.#options.onReplayed?.(this.#replayEnd, this.#replay.bytesInstalled);
      this.#replayEnd = undefined;
    }
    if (this.machine.nextTickMs(now()) <= now()) {
      this.machine.tick(now());
      this.#perform();
    }
  }

  /** Whether something that has been fetched could not be installed yet. */
  get isPutOff(): boolean {
    return this.#putOff.length > 0 || this.#replay.isPutOff;
  }

  /** Milliseconds until `collect` has something to do by itself; Infinity when it has not. */
  get dueMs(): number {
    const now = this.#options.now();
    return Math.max(0, this.machine.nextTickMs(now) - now);
  }

  #hear(news: FetchNews): void {
    if (news.kind === "piece") {
      this.#replay.take(news, [...this.#loops]);
    } else if (news.kind === "replayed") {
      this.#replayEnd = news;
    } else {
      this.#lastEnd = news;
      this.machine.ended(news.ticket, news.result, this.#options.now());
      this.#perform();
    }
  }

  #perform(): void {
    for (let actions = this.machine.takeActions(); actions.length > 0; actions = this.machine.takeActions()) {
      for (const action of actions) this.#do(action);
    }
  }

  #do(action: Action): void {
    switch (action.kind) {
      case "fetch":
      case "cancel":
        this.#options.link.send(action);
        return;
      case "serve":
        this.#serve(action.unit, this.#takeWaiters(action.waiters));
        return;
      case "zero":
        this.#zero(action.unit, this.#takeWaiters(action.waiters));
        return;
      case "refuse":
        this.#refuse(action.unit, this.#takeWaiters(action.waiters));
        return;
      case "expire": {
        const [waiting] = this.#takeWaiters([action.waiter]);
        this.#options.onExpired?.();
        waiting?.resolver.lose(waiting.fault, this.#overdue(waiting.fault));
        return;
      }
      case "overdue": {
        const waiting = this.#waiting.get(action.waiter);
        if (waiting !== undefined) this.#options.onError(this.#overdue(waiting.fault));
        return;
      }
      default:
        action satisfies never;
    }
  }

  #serve(unit: number, waiters: readonly Waiting[]): void {
    this.#failed.delete(unit);
    for (const { resolver, fault } of waiters) resolver.resume(fault);
    if (!this.#options.installsWhole && waiters.length > 0) return;
    for (const piece of this.#pieces(unit)) {
      const wasAsked = waiters.some(({ resolver }) => resolver === piece.loop.resolver);
      if (wasAsked || waiters.length === 0) this.#install(piece);
    }
  }

  #zero(unit: number, waiters: readonly Waiting[]): void {
    for (const { part } of this.#pieces(unit)) knowZeros(part, unit, this.unitBytes);
    for (const { resolver, fault } of waiters) resolver.resume(fault);
  }

  #refuse(unit: number, waiters: readonly Waiting[]): void {
    const cause = this.#lastEnd?.error ?? new MinorfaultError("ERR_BUG", "A fetch failed without a reason");
    if (waiters.length === 0 && this.#failed.size < FAILED_MAX) this.#failed.set(unit, cause);
    for (const { resolver, fault } of waiters) resolver.lose(fault, cause);
  }

  #overdue(fault: Fault): MinorfaultError {
    const { deadlineMs } = this.#options;
    const message = `The bytes for the fault at ${hex(fault.address)} did not come within ${deadlineMs} ms`;
    return new MinorfaultError("ERR_DEADLINE", message, { address: fault.address });
  }

  #install(piece: Piece): void {
    const { loop, part, first, until } = piece;
    const page = loop.installer.install(part, first, until);
    if (loop.installer.isPutOff) this.#putOff.push({ ...piece, first: page });
  }

  #installAgain(): void {
    const pieces = this.#putOff;
    this.#putOff = [];
    for (const piece of pieces) {
      // Moved or gone meanwhile: a fault will bring what is still needed.
      if (piece.loop.regions.parts.includes(piece.part)) this.#install(piece);
    }
  }

  /** Where a unit's pages are. */
  *#pieces(unit: number): Generator<Piece> {
    const start = unit * this.unitBytes;
    for (const loop of this.#loops) {
      for (const part of loop.regions.parts) {
        const { imageOffset, pageSize } = part.region;
        const from = Math.floor((start - imageOffset) / pageSize);
        const first = Math.max(part.firstPage, from);
        const until = Math.min(untilPage(part), from + this.unitBytes / pageSize);
        if (first < until) yield { loop, part, first, until };
      }
    }
  }

  #takeWaiters(waiters: readonly number[]): Waiting[] {
    return waiters.flatMap((waiter) => {
      const waiting = this.#waiting.get(waiter);
      this.#waiting.delete(waiter);
      return waiting === undefined ? [] : [waiting];
    });
  }

  #withdraw(waiter: number): void {
    this.#waiting.delete(waiter);
    this.machine.withdraw(waiter, this.#options.now());
    this.#perform();
  }

  #unitOf(part: Part, page: number): number {
    return Math.floor((part.region.imageOffset + page * part.region.pageSize) / this.unitBytes);
  }
}

/** The pages of a unit that is a hole read as zeros, in the region of this part. */
function knowZeros({ region }: Part, unit: number, unitBytes: number): void {
  const { imageOffset, pageSize, pageCount } = region;
  const first = Math.floor((unit * unitBytes - imageOffset) / pageSize);
  region.knowZeros(Math.max(0, first), Math.min(pageCount, first + unitBytes / pageSize));
}
