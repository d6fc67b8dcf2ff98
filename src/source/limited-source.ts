// At most so many reads at once; others wait in order. More than may wait are refused rather than remembered.
//
// One `Lanes` may stand before many sources: then the limit is theirs together.

import { MinorfaultError } from "../base/errors.ts";
import { LayeredSource } from "./layered-source.ts";
import type { PageSource } from "./page-source.ts";

export interface LanesOptions {
  /** LIMIT: reads at once. */
  readonly lanes?: number;
  /** LIMIT: reads that wait. */
  readonly waitingMax?: number;
}

/** Places for those who do something at once, and a queue for those who wait for one. */
export class Lanes {
  readonly #waitingMax: number;
  readonly #waiting = new Set<() => void>();
  #free: number;

  constructor(options: LanesOptions = {}) {
    this.#free = options.lanes ?? 16;
    this.#waitingMax = options.waitingMax ?? 4096;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Resolves with a place, in the order of asking. */
  enter(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    if (this.#waiting.size >= this.#waitingMax) {
      return Promise.reject(
        new MinorfaultError("ERR_LIMIT", `${this.#waitingMax} reads are waiting already`, {
          retryable: true,
        }),
      );
    }
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(go);
        reject(signal?.reason);
      };
      const go = () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      };
      this.#waiting.add(go);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Gives the place to who has waited longest. */
  leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free++;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}

export class LimitedSource extends LayeredSource {
  readonly #lanes: Lanes;

  constructor(inner: PageSource, lanes: Lanes | LanesOptions = {}) {
    super(inner);
    this.#lanes = lanes instanceof Lanes ? lanes : new Lanes(lanes);
  }

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#lanes.enter(signal);
    try {
      // It may have been aborted between being given the place and being run.
      signal?.throwIfAborted();
      await this.inner.read(offset, target, signal);
    } finally {
      this.#lanes.leave();
    }
  }
}
