// Watches all guests: looks at their counters often while they are young, seldom later, and never more often than a small
// share of a CPU pays for. Keeps the histories of guests that have ended, for a while.

import type { GuestEventName, GuestListener, GuestTable } from "../guests.ts";
import { GuestHistory } from "./guest-history.ts";

/** LIMIT: histories of guests that have ended. */
const ENDED_MAX = 128;
/** How often a guest is looked at, by its age. */
const PACES = [
  { untilMs: 3_000, everyMs: 20 },
  { untilMs: 30_000, everyMs: 100 },
  { untilMs: Number.POSITIVE_INFINITY, everyMs: 500 },
] as const;
/** LIMIT: what looking may cost: a twenty-fifth of a CPU, unless that would be less than a look in half a second. */
const REST_PER_WORK = 24;
const REST_MS_MAX = 500;

export interface RecorderOptions {
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

export class Recorder {
  readonly #table: GuestTable;
  readonly #now: () => number;
  readonly #living = new Map<string, GuestHistory>();
  readonly #ended = new Map<string, GuestHistory>();
  readonly #lastLooks = new Map<string, number>();
  readonly #unsubscribe: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(table: GuestTable, { now = Date.now }: RecorderOptions = {}) {
    this.#table = table;
    this.#now = now;
    this.#on("serving", ({ guest }) => {
      this.#historyFor(guest.id)?.note("serving", `Served by pager ${guest.pagers}`, now());
      this.#wake();
    });
    this.#on("error", ({ guest, error }) => {
      this.#historyFor(guest)?.note("error", `${error.code}: ${error.message}`, now());
    });
    this.#on("takeover", ({ why, ms }) => {
      const text = `Another pager took over in ${ms.toFixed(1)} ms: ${why}`;
      for (const { id } of table.list()) this.#historyFor(id)?.note("takeover", text, now());
    });
    this.#on("ended", ({ guest, reason, detail }) => {
      const history = this.#historyFor(guest.id) ?? new GuestHistory(guest);
      history.look(guest, now());
      history.end(reason, detail, now());
      history.note("ended", detail === undefined ? reason : `${reason}: ${detail}`, now());
      this.#living.delete(guest.id);
      this.#lastLooks.delete(guest.id);
      this.#ended.set(guest.id, history);
      for (const oldest of this.#ended.keys()) {
        if (this.#ended.size <= ENDED_MAX) break;
        this.#ended.delete(oldest);
      }
    });
    this.#wake();
  }

  /** Of a guest that is there, or was until lately. What is there is looked at first. */
  history(id: string): GuestHistory | undefined {
    const status = this.#table.get(id);
    if (status === undefined) return this.#ended.get(id);
    const history = this.#historyFor(id);
    history?.look(status, this.#now());
    return history;
  }

  /** Of a guest that is there, as it was last looked at. */
  peek(id: string): GuestHistory | undefined {
    return this.#historyFor(id);
  }

  /** Guests that have ended, the last one first. */
  get endedIds(): readonly string[] {
    return [...this.#ended.keys()].reverse();
  }

  /** Looks at whoever it is time for. Answers when it is time for the next one. */
  look(): number {
    const now = this.#now();
    let nextMs: number = PACES[2].everyMs;
    for (const status of this.#table.list()) {
      const history = this.#historyFor(status.id);
      if (history === undefined) continue;
      const age = history.age(now);
      const pace = PACES.find(({ untilMs }) => age < untilMs)!.everyMs;
      const dueMs = (this.#lastLooks.get(status.id) ?? Number.NEGATIVE_INFINITY) + pace - now;
      if (dueMs > 1) {
        nextMs = Math.min(nextMs, dueMs);
        continue;
      }
      history.look(status, now);
      this.#lastLooks.set(status.id, now);
      nextMs = Math.min(nextMs, pace);
    }
    return nextMs;
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
  }

  #historyFor(id: string): GuestHistory | undefined {
    const known = this.#living.get(id);
    if (known !== undefined) return known;
    const status = this.#table.get(id);
    if (status === undefined) return undefined;
    const history = new GuestHistory(status);
    // What was before is gone with the one who watched it.
    if (status.pagers > 1) {
      history.note("takeover", `Taken over by pager ${status.pagers}: the one before has ended`, this.#now());
    }
    this.#living.set(id, history);
    return history;
  }

  #wake(): void {
    clearTimeout(this.#timer);
    if (this.#isClosed) return;
    const began = performance.now();
    const nextMs = this.look();
    const rest = Math.min(REST_MS_MAX, (performance.now() - began) * REST_PER_WORK);
    this.#timer = setTimeout(() => this.#wake(), Math.max(nextMs, rest));
    this.#timer.unref();
  }

  #on<Name extends GuestEventName>(name: Name, listener: GuestListener<Name>): void {
    this.#table.on(name, listener);
    this.#unsubscribe.push(() => this.#table.off(name, listener));
  }
}
