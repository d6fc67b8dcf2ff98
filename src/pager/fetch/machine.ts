// Decides what to fetch, in which order, and what becomes of the faults that wait for it. Pure: events and the time go in,
// actions come out; nothing here knows a clock, a thread or a system call.
//
//   need, want ──▶  queued ──▶ fetching ──▶ staged          actions: fetch, cancel, serve, zero, refuse,
//                     ▲  (a slot)  │  │                                expire, overdue
//                     │            │  └──▶ hole, failed
//                 withdraw         └─ cancelled: drains, its slot is taken again only when the fetcher has let go
//
// A unit is the piece of the image that is fetched at once, a slot the memory for one. Faults come first, then what
// they announce (ahead), then filling in the background; a quarter of the places is kept for faults.
//
// Units that lie side by side and are asked for together get slots that lie side by side, and are one fetch: a run. The
// background waits until it has places for one.
//
// Every waiter leaves in exactly one of serve, zero, refuse, expire, or because it was withdrawn.

export const RANK = { FAULT: 0, AHEAD: 1, BACKGROUND: 2 } as const;
export type Rank = (typeof RANK)[keyof typeof RANK];

export type Action =
  /** So many units from that one on, into as many slots; each has a ticket of its own, one after the other as well. */
  | {
      readonly kind: "fetch";
      readonly ticket: number;
      readonly unit: number;
      readonly slot: number;
      readonly count: number;
      readonly rank: Rank;
    }
  | { readonly kind: "cancel"; readonly ticket: number }
  /** The bytes of so many units are in their slots; of more than one nobody waits for any. */
  | {
      readonly kind: "serve";
      readonly unit: number;
      readonly count: number;
      readonly waiters: readonly number[];
    }
  /** The unit is nothing but zeros. */
  | { readonly kind: "zero"; readonly unit: number; readonly waiters: readonly number[] }
  /** The unit can't be brought. */
  | {
      readonly kind: "refuse";
      readonly unit: number;
      readonly waiters: readonly number[];
      readonly ticket: number;
    }
  /** The waiter's deadline has passed: it is let go of. */
  | { readonly kind: "expire"; readonly unit: number; readonly waiter: number }
  /** The waiter's deadline has passed, and it is to go on waiting. */
  | { readonly kind: "overdue"; readonly unit: number; readonly waiter: number };

export interface MachineOptions {
  /** Pieces of memory for one unit each: more than `fetchesMax`. */
  readonly slots: number;
  /** Fetches at once. */
  readonly fetchesMax: number;
  /** Milliseconds that a fault may wait. */
  readonly deadlineMs: number;
  /** Whether a waiter is let go of at its deadline. */
  readonly expires: boolean;
  readonly unitBytes: number;
  /** LIMIT: units of a run; 1 where nothing is gained by it. */
  readonly runMax: number;
  /** Bytes a second for the background; Infinity: as fast as it comes. */
  readonly backgroundRate: number;
}

/** LIMIT: units in the queues that no fault waits for. */
export const WANTED_MAX = 256;
/** What the background may do at once after a rest, as time of its rate. */
const BURST_MS = 50;
/** No unit. */
const NOBODY = -1;

interface Wanted {
  readonly unit: number;
  rank: Rank;
  readonly waiters: Set<number>;
  /** 0 while queued. */
  ticket: number;
}

interface Fetch {
  readonly slot: number;
  readonly rank: Rank;
  /** Undefined once cancelled. */
  wanted: Wanted | undefined;
}

/** What holds for one waiter, where it is not what holds for all. */
export type WaiterLimits = Pick<MachineOptions, "deadlineMs" | "expires">;

interface Waiter {
  readonly unit: number;
  readonly deadlineMs: number;
  readonly expires: boolean;
  isOverdue: boolean;
}

export type FetchResult = "bytes" | "zero" | "failed";

export class FetchMachine {
  readonly #options: MachineOptions;
  readonly #wanted = new Map<number, Wanted>();
  readonly #fetches = new Map<number, Fetch>();
  readonly #waiters = new Map<number, Waiter>();
  /** Unit to slot, the one that was used last at the end. */
  readonly #staged = new Map<number, number>();
  /** And back; NOBODY's are free, or being written to. */
  readonly #units: Int32Array;
  readonly #free = new Set<number>();
  readonly #queues: readonly Set<number>[] = [new Set(), new Set(), new Set()];
  #actions: Action[] = [];
  #lastTicket = 0;
  /** What was fetched last. */
  #last: { readonly unit: number; readonly slot: number; readonly rank: Rank } | undefined;
  #lowFetches = 0;
  #allowance = 0;
  #allowanceAtMs = Number.NaN;
  /** No deadline is earlier: who waits may have left since, so it may come too early, once. */
  #lookAtMs = Number.POSITIVE_INFINITY;

  constructor(options: MachineOptions) {
    this.#options = options;
    this.#units = new Int32Array(options.slots).fill(NOBODY);
    for (let slot = 0; slot < options.slots; slot++) this.#free.add(slot);
  }

  /** What is to be done since this was asked last, in order. */
  takeActions(): readonly Action[] {
    const actions = this.#actions;
    if (actions.length > 0) this.#actions = [];
    return actions;
  }

  /** A fault waits for a unit since `startedMs`. */
  need(
    waiter: number,
    unit: number,
    startedMs: number,
    now: number,
    limits: WaiterLimits = this.#options,
  ): void {
    const deadlineMs = startedMs + limits.deadlineMs;
    this.#waiters.set(waiter, { unit, deadlineMs, expires: limits.expires, isOverdue: false });
    if (deadlineMs < this.#lookAtMs) this.#lookAtMs = deadlineMs;
    const known = this.#wanted.get(unit);
    if (known !== undefined) {
      known.waiters.add(waiter);
      this.#raise(known, RANK.FAULT);
    } else {
      this.#enqueue(unit, RANK.FAULT).waiters.add(waiter);
    }
    this.#pump(now);
  }

  /** A unit that nobody waits for yet; false when the queue takes no more. */
  want(unit: number, rank: Exclude<Rank, 0>, now: number): boolean {
    const known = this.#wanted.get(unit);
    if (known !== undefined) {
      this.#raise(known, rank);
      return true;
    }
    if (this.#staged.has(unit)) return true;
    if (this.#queues[RANK.AHEAD]!.size + this.#queues[RANK.BACKGROUND]!.size >= WANTED_MAX) return false;
    this.#enqueue(unit, rank);
    this.#pump(now);
    return true;
  }

  /** Nothing of this rank is wanted any more. */
  drop(rank: Exclude<Rank, 0>, now: number): void {
    for (const wanted of [...this.#wanted.values()]) {
      if (wanted.rank === rank) this.#abandon(wanted);
    }
    this.#pump(now);
  }

  /** A waiter is served by other means, or gone; answers for which unit it waited. */
  withdraw(waiter: number, now: number): number | undefined {
    const unit = this.#waiters.get(waiter)?.unit;
    if (unit === undefined) return undefined;
    this.#leave(waiter, unit);
    this.#pump(now);
    return unit;
  }

  /** How the fetch of so many units has ended, from that ticket on; until then their slots are the fetcher's. */
  ended(ticket: number, result: FetchResult, now: number, count = 1): void {
    for (let each = ticket; each < ticket + count; each++) this.#end(each, result);
    this.#pump(now);
  }

  #end(ticket: number, result: FetchResult): void {
    const fetch = this.#fetches.get(ticket);
    if (fetch === undefined) return;
    this.#fetches.delete(ticket);
    if (fetch.rank !== RANK.FAULT) this.#lowFetches--;
    const { wanted, slot } = fetch;
    if (wanted === undefined || result !== "bytes") {
      this.#free.add(slot);
    } else {
      this.#staged.set(wanted.unit, slot);
      this.#units[slot] = wanted.unit;
    }
    if (wanted !== undefined) this.#settle(wanted, result, ticket);
  }

  /** Time has passed. */
  tick(now: number): void {
    if (this.#lookAtMs <= now) this.#lookAtDeadlines(now);
    this.#pump(now);
  }

  #lookAtDeadlines(now: number): void {
    for (const [waiter, state] of this.#waiters) {
      if (state.deadlineMs > now || state.isOverdue) continue;
      const { unit } = state;
      if (state.expires) {
        this.#leave(waiter, unit);
        this.#actions.push({ kind: "expire", unit, waiter });
      } else {
        state.isOverdue = true;
        this.#actions.push({ kind: "overdue", unit, waiter });
      }
    }
    this.#lookAtMs = this.oldestDeadlineMs;
  }

  /** When `tick` is due; Infinity when nothing waits for time to pass. */
  nextTickMs(now: number): number {
    let next = this.#lookAtMs;
    if (this.#hasRoomForRun && this.#queues[RANK.BACKGROUND]!.size > 0) {
      const missing = Math.max(0, this.#options.unitBytes - this.#allowanceAt(now));
      next = Math.min(next, now + (missing * 1000) / this.#options.backgroundRate);
    }
    return next;
  }

  /** The slot that has a unit's bytes, or -1. */
  slotOf(unit: number): number {
    const slot = this.#staged.get(unit);
    if (slot === undefined) return -1;
    this.#staged.delete(unit);
    this.#staged.set(unit, slot);
    return slot;
  }

  /** The end of the units from that one on whose bytes lie side by side; itself where it has none. */
  stagedUntil(unit: number): number {
    const slot = this.#staged.get(unit);
    if (slot === undefined) return unit;
    let until = unit + 1;
    while (this.#units[slot + until - unit] === until) until++;
    return until;
  }

  isStaged(unit: number): boolean {
    return this.#staged.has(unit);
  }

  /** Whether a unit's bytes are there, or on their way. */
  isKnown(unit: number): boolean {
    return this.#staged.has(unit) || this.#wanted.has(unit);
  }

  get waiting(): number {
    return this.#waiters.size;
  }

  /** The first deadline of those who wait; Infinity when nobody does. One that was told of counts no more. */
  get oldestDeadlineMs(): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const { deadlineMs, isOverdue } of this.#waiters.values()) {
      if (!isOverdue && deadlineMs < oldest) oldest = deadlineMs;
    }
    return oldest;
  }

  /** For those who check that the bounds hold. */
  get bounds(): {
    readonly slots: number;
    readonly fetches: number;
    readonly low: number;
    readonly queued: number;
  } {
    const slots = this.#free.size + this.#staged.size + this.#fetches.size;
    const queued = this.#queues[RANK.AHEAD]!.size + this.#queues[RANK.BACKGROUND]!.size;
    return { slots, fetches: this.#fetches.size, low: this.#lowFetches, queued };
  }

  get #lowMax(): number {
    const { fetchesMax } = this.#options;
    return Math.max(1, fetchesMax - Math.max(1, fetchesMax >> 2));
  }

  /** Whether the background may begin: with as much at once as it can. */
  get #hasRoomForRun(): boolean {
    const { fetchesMax, runMax } = this.#options;
    const room = Math.min(this.#lowMax - this.#lowFetches, fetchesMax - this.#fetches.size);
    return room >= Math.max(1, Math.min(runMax, this.#lowMax >> 2));
  }

  #enqueue(unit: number, rank: Rank): Wanted {
    const wanted: Wanted = { unit, rank, waiters: new Set(), ticket: 0 };
    this.#wanted.set(unit, wanted);
    this.#queues[rank]!.add(unit);
    return wanted;
  }

  #raise(wanted: Wanted, rank: Rank): void {
    if (rank >= wanted.rank) return;
    if (wanted.ticket === 0) {
      this.#queues[wanted.rank]!.delete(wanted.unit);
      this.#queues[rank]!.add(wanted.unit);
    }
    wanted.rank = rank;
  }

  /** Takes a waiter off; what nobody waits for any more is not fetched on its account. */
  #leave(waiter: number, unit: number): void {
    this.#waiters.delete(waiter);
    const wanted = this.#wanted.get(unit);
    if (wanted === undefined) return;
    wanted.waiters.delete(waiter);
    if (wanted.waiters.size === 0) this.#abandon(wanted);
  }

  #abandon(wanted: Wanted): void {
    this.#wanted.delete(wanted.unit);
    this.#queues[wanted.rank]!.delete(wanted.unit);
    const fetch = this.#fetches.get(wanted.ticket);
    if (fetch === undefined) return;
    fetch.wanted = undefined;
    this.#actions.push({ kind: "cancel", ticket: wanted.ticket });
  }

  #settle(wanted: Wanted, result: FetchResult, ticket: number): void {
    const { unit } = wanted;
    const waiters = [...wanted.waiters];
    this.#wanted.delete(unit);
    for (const waiter of waiters) this.#waiters.delete(waiter);
    if (result === "bytes") this.#tellServed(unit, waiters);
    else if (result === "zero") this.#actions.push({ kind: "zero", unit, waiters });
    else this.#actions.push({ kind: "refuse", unit, waiters, ticket });
  }

  #tellServed(unit: number, waiters: readonly number[]): void {
    const last = this.#actions.at(-1);
    const isLonely = waiters.length === 0 && last?.kind === "serve" && last.waiters.length === 0;
    if (isLonely && last.unit + last.count === unit) {
      this.#actions[this.#actions.length - 1] = { ...last, count: last.count + 1 };
    } else {
      this.#actions.push({ kind: "serve", unit, count: 1, waiters });
    }
  }

  /** Begins as many fetches as may be. */
  #pump(now: number): void {
    const hasRoom = this.#hasRoomForRun;
    while (this.#fetches.size < this.#options.fetchesMax) {
      const wanted = this.#next(now, hasRoom);
      if (wanted === undefined) return;
      const slot = this.#takeSlot(wanted);
      if (slot < 0) return;
      const { unit, rank } = wanted;
      const ticket = ++this.#lastTicket;
      this.#queues[rank]!.delete(unit);
      wanted.ticket = ticket;
      this.#fetches.set(ticket, { slot, rank, wanted });
      if (rank !== RANK.FAULT) this.#lowFetches++;
      if (rank === RANK.BACKGROUND) this.#allowance -= this.#options.unitBytes;
      this.#tellFetch(ticket, unit, slot, rank);
    }
  }

  #tellFetch(ticket: number, unit: number, slot: number, rank: Rank): void {
    const last = this.#actions.at(-1);
    this.#last = { unit, slot, rank };
    if (last?.kind === "fetch" && last.rank === rank && last.count < this.#options.runMax) {
      const { count } = last;
      const follows = last.unit + count === unit && last.slot + count === slot;
      if (follows && last.ticket + count === ticket) {
        this.#actions[this.#actions.length - 1] = { ...last, count: count + 1 };
        return;
      }
    }
    this.#actions.push({ kind: "fetch", ticket, unit, slot, count: 1, rank });
  }

  #next(now: number, hasRoom: boolean): Wanted | undefined {
    const [fault] = this.#queues[RANK.FAULT]!;
    if (fault !== undefined) return this.#wanted.get(fault);
    if (this.#lowFetches >= this.#lowMax) return undefined;
    const [ahead] = this.#queues[RANK.AHEAD]!;
    if (ahead !== undefined) return this.#wanted.get(ahead);
    const [background] = this.#queues[RANK.BACKGROUND]!;
    if (background === undefined || !hasRoom) return undefined;
    this.#allowance = this.#allowanceAt(now);
    this.#allowanceAtMs = now;
    return this.#allowance < this.#options.unitBytes ? undefined : this.#wanted.get(background);
  }

  /** Bytes that the background may fetch now. */
  #allowanceAt(now: number): number {
    const { backgroundRate, unitBytes } = this.#options;
    if (backgroundRate === Number.POSITIVE_INFINITY) return backgroundRate;
    const burst = Math.max(unitBytes, (backgroundRate * BURST_MS) / 1000);
    if (Number.isNaN(this.#allowanceAtMs)) return burst;
    const grown = this.#allowance + ((now - this.#allowanceAtMs) * backgroundRate) / 1000;
    return Math.min(burst, grown);
  }

  /**
   * A slot that is free, or whose unit has not been used for the longest time; -1 when all are being written to. For what
   * follows the last fetch the one behind that one's, if it can be had.
   */
  #takeSlot({ unit, rank }: Wanted): number {
    const last = this.#last;
    if (this.#options.runMax > 1 && last?.unit === unit - 1 && last.rank === rank) {
      const slot = last.slot + 1;
      if (this.#free.delete(slot) || this.#unstage(slot)) return slot;
    }
    for (const slot of this.#free) {
      this.#free.delete(slot);
      return slot;
    }
    for (const slot of this.#staged.values()) {
      this.#unstage(slot);
      return slot;
    }
    return -1;
  }

  #unstage(slot: number): boolean {
    const unit = this.#units[slot] ?? NOBODY;
    if (unit === NOBODY) return false;
    this.#units[slot] = NOBODY;
    this.#staged.delete(unit);
    return true;
  }
}
