// Records which pages a guest asks for first, and when that has calmed down: its working set.

import type { PageRange } from "./page-content.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** A guest that has asked for nothing for so long has what it needs for now. */
const QUIET_MS = 300;
/** LIMIT: a guest that never rests is recorded for so long. */
const RECORD_MS_MAX = 10_000;
/** LIMIT: pages, 1 GiB. */
const PAGES_MAX = 262_144;

export class Recording {
  readonly #pages = new Set<number>();
  #isOver = false;

  add({ first, count }: PageRange): void {
    if (this.#isOver || this.#pages.size + count > PAGES_MAX) return;
    for (let page = first; page < first + count; page++) this.#pages.add(page);
  }

  /** Offsets of the pages in the image's flat space, in the order in which they were asked for. */
  offsets(): number[] {
    return Array.from(this.#pages, (page) => page * PAGE_BYTES);
  }

  /** Ends after `recordMs`, or if that is not given when the guest asks for nothing any more. */
  async end(touchedAt: () => number, recordMs: number | undefined, signal: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    const rest = (): number => {
      const now = performance.now();
      const sinceStart = now - startedAt;
      if (recordMs !== undefined) return recordMs - sinceStart;
      const sinceTouch = now - Math.max(startedAt, touchedAt());
      return Math.min(RECORD_MS_MAX - sinceStart, QUIET_MS - sinceTouch);
    };
    for (let ms = rest(); ms > 0 && !signal.aborted; ms = rest()) await pause(ms, signal);
    this.#isOver = true;
  }
}

/** Resolves after so long, or when the signal comes. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}
