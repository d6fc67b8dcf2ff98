// The source of guests whose bytes have to be fetched: knows what is staged, parks the faults that have to wait, and does
// what the machine decides. Any number of guests have one in common: what one of them waits for is fetched once.
//
//   fault ──▶ resolver ── addressOf: AWAY ──▶ park ──▶ machine ── fetch ──▶ link ──▶ the thread that fetches
//               ▲                                        ▲                             │ into a slot
//               └───────── resume: addressOf ◀── serve ──┴───────── collect ◀── link ◀─┘
//
// Fetched bytes are installed by the thread that reads the events of the guest, and by no other: whatever a guest
// discards is told to us before its pages are gone, and a fill is refused until we have read that. A second thread that
// installs would need to be told in turn, and in the meantime bring back what had been discarded.
//
// What nobody waits for (the rest of a unit, what lies ahead, a replay) is installed a slice at a time, so that
// the faults of all guests come in between.

import { PAGE_SIZE } from "../../abi/memory.ts";
import { hasBit } from "../../base/bitmap.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { takeDiskWait } from "../../source/disk-reads.ts";
import { COUNTER } from "../counters.ts";
import type { FaultLoop } from "../fault-loop.ts";
import type { Part } from "../regions.ts";
import type { Fault, Parked } from "../resolver.ts";
import { type AddressableSource, AWAY } from "../source.ts";
import { UnitsAhead, type UnitsAheadOptions } from "./ahead.ts";
import { BulkFetch } from "./bulk-fetch.ts";
import { type ClientOptions, FetchClient, type Fetching } from "./client.ts";
import type { DirectReader } from "./direct.ts";
import { DirectWindow, type FaultWindow } from "./direct-window.ts";
import type { FetchEnd, FetchNews } from "./link.ts";
import { type Action, FetchMachine, type MachineOptions, RANK, type Rank } from "./machine.ts";
import { PANE_UNITS, PANES, UNIT_STATE } from "./panes.ts";
import { Replays, type ReplaysOptions } from "./replays.ts";
import { Slices } from "./slices.ts";
import { knowZeros, pagesOf, unitOf } from "./unit-pages.ts";
import { VerifiedWindow, type VerifiedWindowOptions } from "./verified-window.ts";
import { Wanting } from "./wanting.ts";

/** How long a fault waits for a replay. */
const HOLD_MS = 3;
/** LIMIT: failures that are kept until somebody asks. */
const FAILED_MAX = 1024;

export interface FetcherOptions
  extends MachineOptions,
    Pick<VerifiedWindowOptions, "panes" | "ring">,
    Pick<UnitsAheadOptions, "await">,
    Pick<ReplaysOptions, "keptSlots" | "room" | "link" | "words" | "isAlone"> {
  /** The words of what is read ahead. */
  readonly ahead: Int32Array;
  /** Bytes of the image. */
  readonly byteLength: number;
  /** Where slot 0 is, in the memory of who installs; the others follow. */
  readonly staging: number;
  /** The same of the replay. */
  readonly replayStaging: number;
  /** One bit a unit that is known to be zeros; both threads set bits, atomically. */
  readonly holes: Uint32Array;
  /** Milliseconds. */
  readonly now: () => number;
  /** Where bytes can be read at the fault itself. */
  readonly direct?: DirectReader | undefined;
}

interface Waiting {
  readonly client: FetchClient;
  readonly fault: Fault;
}

export class Fetcher implements AddressableSource, Fetching {
  readonly byteLength: number;
  readonly unitBytes: number;
  readonly machine: FetchMachine;
  readonly #options: FetcherOptions;
  readonly #waiting = new Map<number, FetchClient>();
  readonly #clients = new Map<FaultLoop, FetchClient>();
  readonly #wanting = new Wanting<FetchClient>();
  readonly #slices: Slices;
  #lastWaiter = 0;
  readonly #direct: FaultWindow | undefined;
  readonly #ahead: UnitsAhead | undefined;
  /** Units that failed although nobody waited for them, until somebody asks. */
  readonly #failed = new Map<number, MinorfaultError>();
  #lastEnd: FetchEnd | undefined;
  readonly #bulk: BulkFetch;
  readonly replays: Replays;
  /** Faults that wait for the replay that is under way. */
  readonly #held = new Set<number>();

  constructor(options: FetcherOptions) {
    this.#options = options;
    this.byteLength = options.byteLength;
    this.unitBytes = options.unitBytes;
    this.machine = new FetchMachine(options);
    this.#slices = new Slices(options.unitBytes);
    const { replayStaging, link, direct } = options;
    const isWanted = (unit: number): boolean => this.#isWanted(unit);
    if (direct !== undefined && !direct.isPlain) {
      const { ahead: words, unitBytes } = options;
      const firstSlot = PANES * PANE_UNITS;
      this.#ahead = new UnitsAhead({ words, reader: direct, firstSlot, unitBytes, await: options.await });
    }
    const window = direct?.isPlain ? DirectWindow : VerifiedWindow;
    this.#direct = direct && new window({ ...options, reader: direct, isWanted, ahead: this.#ahead });
    const isAlone = (): boolean => this.#clients.size === 1 && options.isAlone();
    this.replays = new Replays({ ...options, staging: replayStaging, isAlone });
    const isUnlimited = options.backgroundRate === Number.POSITIVE_INFINITY;
    this.#bulk = new BulkFetch({
      ...options,
      isKnown: (each) => this.machine.isKnown(each),
      want: (client, each, rank) => this.want(client, each, rank),
      readDirectly: (part, page) => {
        const isRead = this.#readDirectly(part, page, false);
        // In order: nothing would be gained by reading in order beside it.
        takeDiskWait();
        return isRead;
      },
      helps: direct?.isPlain === false && isUnlimited,
      onWhole: () => {
        if (direct !== undefined && isUnlimited) link.send({ kind: "fill" });
      },
    });
  }

  /** An account for a loop that is to be: `add` it when it is. */
  client(options: ClientOptions): FetchClient {
    return new FetchClient(this, options);
  }

  /** A loop whose regions are served from here. */
  add(loop: FaultLoop, client: FetchClient): void {
    client.loop = loop;
    this.#clients.set(loop, client);
  }

  /** A loop whose guest has ended. */
  remove(loop: FaultLoop): void {
    const client = this.#clients.get(loop);
    if (client === undefined) return;
    this.#clients.delete(loop);
    for (const waiter of [...client.waiting.keys()]) this.#withdraw(client, waiter);
    this.#wanting.remove(client);
    this.#slices.remove(client);
    this.replays.remove(client);
  }

  /** Bytes of the narrowest window that is worth while where bytes are read at the fault; undefined where they are not. */
  get windowBytesMin(): number | undefined {
    return this.#direct && (this.#direct.isPlain ? PAGE_SIZE : this.unitBytes);
  }

  reach(offset: number): number {
    const unit = Math.floor(offset / this.unitBytes);
    const until = this.#direct?.has(unit) ? this.#direct.untilOf(unit) : this.machine.stagedUntil(unit);
    return Math.max(unit + 1, until) * this.unitBytes - offset;
  }

  reachBack(offset: number): number {
    const unit = Math.floor(offset / this.unitBytes);
    return offset - (this.#direct?.has(unit) ? this.#direct.firstOf(unit) : unit) * this.unitBytes;
  }

  addressOf(offset: number, byteLength: number): number {
    const { unitBytes } = this;
    const unit = Math.floor(offset / unitBytes);
    const within = offset - unit * unitBytes;
    if (byteLength > this.reach(offset)) {
      throw new MinorfaultError("ERR_BUG", `${byteLength} bytes at ${offset} do not lie in one piece`);
    }
    if (this.#direct?.has(unit)) return this.#direct.addressOf(unit) + within;
    const slot = this.machine.slotOf(unit);
    for (let at = unit + 1; at * unitBytes < offset + byteLength; at++) this.machine.slotOf(at);
    return slot < 0 ? AWAY : this.#options.staging + slot * unitBytes + within;
  }

  /** Keeps a fault until the bytes of its page are there. */
  park(client: FetchClient, fault: Fault, part: Part, page: number): Parked {
    const { installsWhole } = client.options;
    const unit = this.#unitOf(part, page);
    if (hasBit(this.#options.holes, unit)) {
      knowZeros(part, unit, this.unitBytes);
      return "again";
    }
    if (this.#hold(client, fault)) return "parked";
    const { counters } = client.options;
    // Who fills has other things to do than to wait for a disk.
    const waits = this.#bulk.isWhole && this.#direct?.isCached(unit) === false;
    if (!waits && this.#readDirectly(part, page, client.options.followsFaults)) {
      counters[COUNTER.READ_AT_FAULT]! += 1;
      if (hasBit(this.#options.holes, unit)) knowZeros(part, unit, this.unitBytes);
      else if (installsWhole && !client.options.followsFaults) this.#goAhead(client, part, unit);
      return "again";
    }
    counters[this.machine.isKnown(unit) ? COUNTER.JOINED : COUNTER.FETCHED]! += 1;
    if (this.#wanting.has(unit, client)) counters[COUNTER.AHEAD_MET]! += 1;
    const waiter = ++this.#lastWaiter;
    client.wait(waiter, fault);
    this.#waiting.set(waiter, client);
    this.machine.need(waiter, unit, fault.startedMs, this.#options.now(), client.options);
    this.#perform();
    if (installsWhole) this.#goAhead(client, part, unit);
    return "parked";
  }

  /**
   * Lets a fault wait a moment for a replay that is under way: it probably brings the page, and sooner than anybody who
   * has to fetch all that lies around it. Answers false when the moment is over.
   */
  #hold(client: FetchClient, fault: Fault): boolean {
    if (!this.replays.includes(client) || this.#options.now() - fault.startedMs >= HOLD_MS) return false;
    const waiter = ++this.#lastWaiter;
    client.wait(waiter, fault);
    this.#waiting.set(waiter, client);
    this.#held.add(waiter);
    return true;
  }

  /** Looks at faults that wait for a replay: whether their moment is over. */
  #lookAtHeld(): void {
    const now = this.#options.now();
    for (const waiter of [...this.#held]) {
      const client = this.#waiting.get(waiter)!;
      const fault = client.waiting.get(waiter)!;
      if (this.replays.includes(client) && now - fault.startedMs < HOLD_MS) continue;
      this.#withdraw(client, waiter);
      client.loop.resolver.resume(fault);
    }
  }

  /** Ends the faults whose pages a replay has brought: it wakes nobody. Of some the messages are still to be read. */
  #wakeReplayed(clients: Iterable<FetchClient>): void {
    for (const client of clients) {
      for (const [waiter, fault] of [...client.waiting]) {
        if (!client.hasPage(fault)) continue;
        this.#withdraw(client, waiter);
        client.loop.resolver.wake(fault);
      }
    }
  }

  /** Reads the unit of a page at once, and with it the others of its window, unless it is on its way already. */
  #readDirectly(part: Part, page: number, asks: boolean): boolean {
    const direct = this.#direct;
    const unit = this.#unitOf(part, page);
    if (direct === undefined || this.machine.isKnown(unit)) return false;
    // What has to be decoded would be there for none of the other guests.
    if (this.#clients.size > 1 && !direct.isPlain) return false;
    const result = direct.read(part, page, asks);
    if (result === "zero") this.#knowHole(unit);
    return result !== undefined;
  }

  #knowHole(unit: number): void {
    Atomics.or(this.#options.holes, unit >>> 5, 1 << (unit & 31));
  }

  /** Fetches what this fault lets us expect. */
  #goAhead(client: FetchClient, part: Part, unit: number): void {
    const ahead = this.#usableAhead;
    let isRung = true;
    for (const next of client.expected(part, unit, this.unitBytes)) {
      if (ahead === undefined) {
        if (!this.want(client, next, RANK.AHEAD)) break;
      } else {
        if (ahead.holds(next) || !this.#isWanted(next)) continue;
        if (!ahead.want(next)) break;
        this.#wanting.add(next, client);
        isRung = false;
      }
      client.options.counters[COUNTER.AHEAD]! += 1;
    }
    if (!isRung) this.#options.ring();
  }

  /** Where units are left to the other thread without a message; who installs everything asks for all of them by messages. */
  get #usableAhead(): UnitsAhead | undefined {
    return this.#clients.size === 1 && !this.#bulk.isWhole && this.#ahead?.isHeard ? this.#ahead : undefined;
  }

  /** Whether a unit may be read: it is no hole, and nobody fetches it. */
  #isWanted(unit: number): boolean {
    return !hasBit(this.#options.holes, unit) && !this.machine.isKnown(unit);
  }

  /** The guest's memory has changed there: who waits looks again. */
  change(client: FetchClient, start: number, until: number): void {
    for (const [waiter, fault] of [...client.waiting]) {
      const { address } = fault;
      if (address < start || address >= until) continue;
      this.#withdraw(client, waiter);
      client.loop.resolver.defer(fault);
    }
  }

  /** Fetches what a client does not wait for yet. Answers false when no more is taken at present. */
  want(client: FetchClient, unit: number, rank: Exclude<Rank, 0>): boolean {
    if (hasBit(this.#options.holes, unit) || this.#failed.has(unit)) return true;
    if (this.machine.isStaged(unit)) {
      this.#slices.install(client, unit);
      return true;
    }
    const isTaken = this.machine.want(unit, rank, this.#options.now());
    if (isTaken) this.#wanting.add(unit, client);
    this.#perform();
    return isTaken;
  }

  /** Installs what has been read ahead, as much as a slice takes. */
  #installAhead(ahead: UnitsAhead): void {
    const slices = this.#slices;
    for (let ended = ahead.nextEnded(); ended !== undefined; ended = ahead.nextEnded()) {
      if (slices.allowance <= 0 || slices.isPutOff) return;
      const { unit, state } = ended;
      if (state === UNIT_STATE.ZERO) this.#zero(unit, []);
      for (const client of this.#wanting.take(unit)) {
        if (state === UNIT_STATE.THERE) slices.install(client, unit);
      }
      ahead.free(unit);
    }
  }

  /** See `FetchClient.fetchFrom`. */
  fetchFrom(client: FetchClient, part: Part, page: number, until: number): number | undefined {
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
      client.options.onError(new MinorfaultError("ERR_HANDLER_FAILED", message, { cause: failure }));
      return unitUntil;
    }
    const last = this.#unitOf(part, until - 1);
    return this.#bulk.goOn(client, part, unit, last) ? page : undefined;
  }

  /** Takes in what has been fetched, installs a slice of it, and lets deadlines pass. */
  collect(): void {
    const { link, now } = this.#options;
    const slices = this.#slices;
    slices.begin();
    if (this.#ahead !== undefined) this.#installAhead(this.#ahead);
    // No more than can be installed: the slot of a unit that has been heard of may be taken for the next one.
    while (slices.allowance > 0) {
      const news = link.receive(Math.ceil(slices.allowance / this.unitBytes));
      if (news === undefined) break;
      this.#hear(news);
    }
    if (this.replays.isUnderWay) this.#installReplays();
    if (this.#held.size > 0) this.#lookAtHeld();
    if (this.machine.nextTickMs(now()) <= now()) {
      this.machine.tick(now());
      this.#perform();
    }
  }

  /** Whether `collect` has something to install that is there. */
  get isBusy(): boolean {
    return this.#slices.isBusy || this.hasAhead || this.replays.isBusy;
  }

  get hasAhead(): boolean {
    return this.#ahead?.nextEnded() !== undefined;
  }

  /** Whether the system has put off what the last `collect` wanted to install. */
  get isPutOff(): boolean {
    return this.#slices.isPutOff;
  }

  /** Milliseconds until `collect` has something to do by itself; Infinity when it has not. */
  get dueMs(): number {
    const now = this.#options.now();
    const dueMs = Math.max(0, this.machine.nextTickMs(now) - now);
    return this.#held.size > 0 ? Math.min(dueMs, HOLD_MS) : dueMs;
  }

  #hear(news: FetchNews): void {
    if (news.kind !== "end") {
      this.replays.hear(news);
      return;
    }
    this.#lastEnd = news;
    this.machine.ended(news.ticket, news.result, this.#options.now(), news.count);
    this.#perform();
  }

  #installReplays(): void {
    const clients = [...this.replays.clients()];
    const bytes = this.replays.install(this.#slices.allowance);
    this.#slices.spend(bytes, this.replays.isPutOff);
    this.#wakeReplayed(clients);
    this.replays.settle();
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
        this.#serve(action.unit, action.count, this.#takeWaiters(action.waiters));
        return;
      case "zero":
        this.#zero(action.unit, this.#takeWaiters(action.waiters));
        return;
      case "refuse":
        this.#refuse(action.unit, this.#takeWaiters(action.waiters));
        return;
      case "expire":
        for (const { client, fault } of this.#takeWaiters([action.waiter])) {
          client.options.onExpired?.();
          client.loop.resolver.lose(fault, client.overdue(fault));
        }
        this.#forgetIfUnknown(action.unit);
        return;
      case "overdue": {
        const client = this.#waiting.get(action.waiter);
        const fault = client?.waiting.get(action.waiter);
        if (client !== undefined && fault !== undefined) client.options.onError(client.overdue(fault));
        return;
      }
      default:
        action satisfies never;
    }
  }

  #serve(unit: number, count: number, waiters: readonly Waiting[]): void {
    if (this.#failed.size > 0) for (let each = unit; each < unit + count; each++) this.#failed.delete(each);
    for (const { client, fault } of waiters) client.loop.resolver.resume(fault);
    for (const { client } of waiters) if (client.options.installsWhole) this.#wanting.add(unit, client);
    for (const { client, first, until } of this.#wanting.takeRuns(unit, count)) {
      this.#slices.install(client, first, until - first);
    }
  }

  #zero(unit: number, waiters: readonly Waiting[]): void {
    this.#knowHole(unit);
    const wanting = this.#wanting.take(unit);
    for (const { client } of waiters) wanting.add(client);
    for (const client of wanting) {
      const { parts } = client.loop.regions;
      for (const { part } of pagesOf(parts, unit, this.unitBytes)) knowZeros(part, unit, this.unitBytes);
    }
    for (const { client, fault } of waiters) client.loop.resolver.resume(fault);
  }

  #refuse(unit: number, waiters: readonly Waiting[]): void {
    const cause = this.#lastEnd?.error ?? new MinorfaultError("ERR_BUG", "A fetch failed without a reason");
    this.#wanting.forget(unit);
    if (waiters.length === 0 && this.#failed.size < FAILED_MAX) this.#failed.set(unit, cause);
    for (const { client, fault } of waiters) client.loop.resolver.lose(fault, cause);
  }

  #takeWaiters(waiters: readonly number[]): Waiting[] {
    return waiters.flatMap((waiter) => {
      const client = this.#waiting.get(waiter);
      const fault = client?.waiting.get(waiter);
      this.#waiting.delete(waiter);
      client?.leave(waiter);
      return client === undefined || fault === undefined ? [] : [{ client, fault }];
    });
  }

  #withdraw(client: FetchClient, waiter: number): void {
    client.leave(waiter);
    this.#held.delete(waiter);
    this.#waiting.delete(waiter);
    const unit = this.machine.withdraw(waiter, this.#options.now());
    this.#perform();
    if (unit !== undefined) this.#forgetIfUnknown(unit);
  }

  /** With the last who waited for it a unit may have been given up that others would have liked. */
  #forgetIfUnknown(unit: number): void {
    if (!this.machine.isKnown(unit)) this.#wanting.forget(unit);
  }

  #unitOf(part: Part, page: number): number {
    return unitOf(part, page, this.unitBytes);
  }
}
