// What all guests of an image have done together: those that are there, and those that have left. Sums that only grow, as
// Prometheus wants its counters; a pager that takes over begins anew, which Prometheus notices by itself.

import type { PagerStatistics } from "../../pager/index.ts";
import type { GuestStatus, GuestTable } from "../guests.ts";
import { residentBytes } from "./status.ts";

export interface ImageTotals {
  guests: number;
  draining: number;
  guestBytes: number;
  residentBytes: number;
  waiting: number;
  readonly outcomes: Record<keyof PagerStatistics["outcomes"], number>;
  bytesCopied: number;
  bytesZeroed: number;
  bytesReplayed: number;
  events: number;
  retries: number;
  readonly away: Record<keyof PagerStatistics["away"], number>;
  latencyCounts: Float64Array;
  latencySumUs: number;
}

export class Totals {
  readonly #table: GuestTable;
  /** Of guests that have left, by image. */
  readonly #left = new Map<string, ImageTotals>();
  readonly #forget: () => void;

  constructor(table: GuestTable) {
    this.#table = table;
    const onEnded = ({ guest }: { readonly guest: GuestStatus }): void => {
      addCounters(this.#of(this.#left, guest.image), guest.statistics);
    };
    table.on("ended", onEnded);
    this.#forget = () => table.off("ended", onEnded);
  }

  /** By image. */
  read(): ReadonlyMap<string, ImageTotals> {
    const all = new Map([...this.#left].map(([image, totals]) => [image, copyOf(totals)]));
    for (const { name } of this.#table.images()) this.#of(all, name);
    for (const guest of this.#table.list()) {
      const totals = this.#of(all, guest.image);
      addCounters(totals, guest.statistics);
      totals.guests++;
      if (guest.state === "draining") totals.draining++;
      totals.guestBytes += guest.byteLength;
      totals.residentBytes += residentBytes(guest);
      totals.waiting += guest.statistics.waiting;
    }
    return all;
  }

  close(): void {
    this.#forget();
  }

  #of(map: Map<string, ImageTotals>, image: string): ImageTotals {
    let totals = map.get(image);
    if (totals === undefined) {
      totals = emptyTotals();
      map.set(image, totals);
    }
    return totals;
  }
}

function emptyTotals(): ImageTotals {
  return {
    guests: 0,
    draining: 0,
    guestBytes: 0,
    residentBytes: 0,
    waiting: 0,
    outcomes: { copied: 0, zeroed: 0, continued: 0, poisoned: 0, woken: 0 },
    bytesCopied: 0,
    bytesZeroed: 0,
    bytesReplayed: 0,
    events: 0,
    retries: 0,
    away: { read: 0, fetched: 0, joined: 0, ahead: 0, aheadMet: 0 },
    latencyCounts: new Float64Array(0),
    latencySumUs: 0,
  };
}

function copyOf(totals: ImageTotals): ImageTotals {
  return {
    ...totals,
    outcomes: { ...totals.outcomes },
    away: { ...totals.away },
    latencyCounts: totals.latencyCounts.slice(),
  };
}

function addCounters(totals: ImageTotals, statistics: PagerStatistics): void {
  const { outcomes, bytesInstalled, bytesZeroed, bytesReplayed, events, retries } = statistics;
  for (const outcome of Object.keys(outcomes) as (keyof typeof outcomes)[]) {
    totals.outcomes[outcome] += outcomes[outcome];
  }
  totals.bytesCopied += bytesInstalled - bytesZeroed;
  totals.bytesZeroed += bytesZeroed;
  totals.bytesReplayed += bytesReplayed;
  totals.events += events;
  totals.retries += retries;
  for (const how of Object.keys(totals.away) as (keyof ImageTotals["away"])[]) {
    totals.away[how] += statistics.away[how];
  }
  totals.latencySumUs += statistics.latencySumUs;
  const { latencyCounts } = statistics;
  if (totals.latencyCounts.length < latencyCounts.length) {
    const grown = new Float64Array(latencyCounts.length);
    grown.set(totals.latencyCounts);
    totals.latencyCounts = grown;
  }
  for (const [bucket, count] of latencyCounts.entries()) totals.latencyCounts[bucket]! += count;
}
