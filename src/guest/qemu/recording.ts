// Records which pages a guest asks for first, and when that has calmed down: its working set.

import { setTimeout as delay } from "node:timers/promises";
import type { PageRange } from "./page-content.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** A guest that asks for no more than so many pages in so long has what it needs for now. None is ever quite still. */
const REST_MS = 300;
const REST_PAGES = 32;
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

  /** Ends after `recordMs`, or if that is not given when the guest asks for little any more. */
  async end(recordMs: number | undefined, signal: AbortSignal): Promise<void> {
    if (recordMs !== undefined) await pause(recordMs, signal);
    else await this.#rests(signal);
    this.#isOver = true;
  }

  async #rests(signal: AbortSignal): Promise<void> {
    const until = performance.now() + RECORD_MS_MAX;
    let before = Number.NEGATIVE_INFINITY;
    while (this.#pages.size - before > REST_PAGES && performance.now() < until && !signal.aborted) {
      before = this.#pages.size;
      await pause(REST_MS, signal);
    }
  }
}

/** Resolves after so long, or when the signal comes. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
