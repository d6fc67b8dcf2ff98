// What the caches on disk of a process have done, in all of its threads together: sources are read in threads that nobody
// can ask, so each counts in memory that it has from the thread that started it.

import { getEnvironmentData, setEnvironmentData } from "node:worker_threads";

const COUNTED = ["hits", "misses", "evictions", "damaged", "unwritten"] as const;

/** `damaged`: blocks that failed their hash; `unwritten`: those that could not be written. */
export type CacheCounters = Record<(typeof COUNTED)[number], number>;

/** Where threads find the memory. */
const KEY = "minorfault: what caches have done";

let words: BigInt64Array | undefined;

/** To be called before the threads are started that are to count here as well. */
export function shareCacheTotals(): void {
  words = wordsOf(getEnvironmentData(KEY));
  setEnvironmentData(KEY, words.buffer as SharedArrayBuffer);
}

/** Of the threads that share them with this one. */
export function cacheTotals(): CacheCounters {
  words ??= wordsOf(getEnvironmentData(KEY));
  const totals = words;
  return Object.fromEntries(COUNTED.map((what, index) => [what, Number(totals[index])])) as CacheCounters;
}

export function countCache(what: keyof CacheCounters): void {
  words ??= wordsOf(getEnvironmentData(KEY));
  Atomics.add(words, COUNTED.indexOf(what), 1n);
}

function wordsOf(memory: unknown): BigInt64Array {
  const { BYTES_PER_ELEMENT } = BigInt64Array;
  return new BigInt64Array(
    memory instanceof SharedArrayBuffer ? memory : new SharedArrayBuffer(COUNTED.length * BYTES_PER_ELEMENT),
  );
}
