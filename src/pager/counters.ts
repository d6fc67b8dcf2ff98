// The counters of a pager, in memory that its thread writes and everybody else may look at.
//
// One writer, plain stores of 8 aligned bytes: nobody waits for anybody, and a reader sees each counter whole, though
// not all of them at the same moment.

import { BUCKETS, bucketOf, quantile } from "../base/histogram.ts";
import type { PagerStatistics } from "./options.ts";

/** Index of each counter. */
export const COUNTER = {
  FAULTS: 0,
  EVENTS: 1,
  COPIED: 2,
  ZEROED: 3,
  CONTINUED: 4,
  POISONED: 5,
  WOKEN: 6,
  BYTES_INSTALLED: 7,
  BYTES_ZEROED: 8,
  RETRIES: 9,
  /** Nanoseconds. */
  LATENCY_MAX: 10,
  /** Of the present or last installAll. */
  BULK_DONE: 11,
  BULK_TOTAL: 12,
  BYTES_EVICTED: 13,
  BYTES_SWAPPED: 14,
  BYTES_REPLAYED: 15,
  /** Nanoseconds, of all that the histogram counts. */
  LATENCY_SUM: 16,
  /** Faults that wait for their bytes now: it goes up and down. */
  WAITING: 17,
  /** Faults whose bytes were not at hand: read at once, fetched for them, or on their way already. */
  READ_AT_FAULT: 18,
  FETCHED: 19,
  JOINED: 20,
  /** Units asked for ahead of the guest, and faults that found one of them on its way. */
  AHEAD: 21,
  AHEAD_MET: 22,
} as const;

const HISTOGRAM_AT = 24;
const COUNTERS = HISTOGRAM_AT + BUCKETS;
/** The histogram's largest value, nanoseconds: about two seconds. */
const LATENCY_LIMIT = 2 ** 31 - 1;

export type Counters = Float64Array;

export function makeCounters(): Counters {
  return new Float64Array(new SharedArrayBuffer(COUNTERS * Float64Array.BYTES_PER_ELEMENT));
}

/** Records how long a fault took, in nanoseconds. */
export function recordLatency(counters: Counters, nanoseconds: number): void {
  if (nanoseconds > counters[COUNTER.LATENCY_MAX]!) counters[COUNTER.LATENCY_MAX] = nanoseconds;
  const limited = nanoseconds < LATENCY_LIMIT ? nanoseconds : LATENCY_LIMIT;
  counters[COUNTER.LATENCY_SUM]! += nanoseconds;
  counters[HISTOGRAM_AT + bucketOf(limited | 0)]! += 1;
}

export function readStatistics(counters: Counters): PagerStatistics {
  const get = (index: number): number => counters[index] ?? 0;
  const histogram = counters.slice(HISTOGRAM_AT, COUNTERS);
  const max = get(COUNTER.LATENCY_MAX);
  const us = (share: number): number => Math.min(quantile(histogram, share), max) / 1000;
  return {
    faults: get(COUNTER.FAULTS),
    outcomes: {
      copied: get(COUNTER.COPIED),
      zeroed: get(COUNTER.ZEROED),
      continued: get(COUNTER.CONTINUED),
      poisoned: get(COUNTER.POISONED),
      woken: get(COUNTER.WOKEN),
    },
    bytesInstalled: get(COUNTER.BYTES_INSTALLED),
    bytesZeroed: get(COUNTER.BYTES_ZEROED),
    bytesEvicted: get(COUNTER.BYTES_EVICTED),
    bytesSwapped: get(COUNTER.BYTES_SWAPPED),
    bytesReplayed: get(COUNTER.BYTES_REPLAYED),
    events: get(COUNTER.EVENTS),
    retries: get(COUNTER.RETRIES),
    waiting: get(COUNTER.WAITING),
    away: {
      read: get(COUNTER.READ_AT_FAULT),
      fetched: get(COUNTER.FETCHED),
      joined: get(COUNTER.JOINED),
      ahead: get(COUNTER.AHEAD),
      aheadMet: get(COUNTER.AHEAD_MET),
    },
    latencyUs: { p50: us(0.5), p99: us(0.99), max: max / 1000 },
    latencyCounts: histogram,
    latencySumUs: get(COUNTER.LATENCY_SUM) / 1000,
  };
}
