// How fast the time stamp counter runs: two readings of it beside two of our clock.

const SPAN_MS = 20;
const TRIES = 8;

/** Ticks per second. `stamp` reads the counter; it may be slow, so each reading is the quickest of a few. */
export function measureTickRate(stamp: () => number): number {
  const first = reading(stamp);
  let last = reading(stamp);
  while (last.ms - first.ms < SPAN_MS) last = reading(stamp);
  return ((last.ticks - first.ticks) / (last.ms - first.ms)) * 1000;
}

function reading(stamp: () => number): { readonly ticks: number; readonly ms: number } {
  let best = { ticks: 0, ms: 0, width: Number.POSITIVE_INFINITY };
  for (let round = 0; round < TRIES; round++) {
    const before = performance.now();
    const ticks = stamp();
    const width = performance.now() - before;
    if (width < best.width) best = { ticks, ms: before + width / 2, width };
  }
  return best;
}
