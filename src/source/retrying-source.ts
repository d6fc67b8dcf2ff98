// Tries a read again when its failure says that this may help, after a random pause that doubles its bound each
// time, until a deadline over all tries. Everything else fails at once: a replaced object stays replaced.

import { MinorfaultError } from "../base/errors.ts";
import { LayeredSource } from "./layered-source.ts";
import type { PageSource } from "./page-source.ts";
import { linked, sleep, systemTimers, type Timers } from "./timers.ts";

export interface RetryOptions {
  /** LIMIT: tries of one read, the first included. */
  readonly attemptsMax?: number;
  /** Bound of the first pause. */
  readonly pauseMs?: number;
  /** Bound of every pause. */
  readonly pauseMsMax?: number;
  /** LIMIT: one read with all its tries and pauses. */
  readonly deadlineMs?: number;
  readonly timers?: Timers;
  /** From 0 up to, not including, 1. */
  readonly random?: () => number;
}

export class RetryingSource extends LayeredSource {
  readonly #attemptsMax: number;
  readonly #pauseMs: number;
  readonly #pauseMsMax: number;
  readonly #deadlineMs: number;
  readonly #timers: Timers;
  readonly #random: () => number;

  constructor(inner: PageSource, options: RetryOptions = {}) {
    super(inner);
    this.#attemptsMax = options.attemptsMax ?? 6;
    this.#pauseMs = options.pauseMs ?? 20;
    this.#pauseMsMax = options.pauseMsMax ?? 2000;
    this.#deadlineMs = options.deadlineMs ?? 30_000;
    this.#timers = options.timers ?? systemTimers;
    this.#random = options.random ?? Math.random;
  }

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const { controller, release } = linked(signal);
    let last: unknown;
    const cancel = this.#timers.after(this.#deadlineMs, () => controller.abort(this.#late(last)));
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          return await this.inner.read(offset, target, controller.signal);
        } catch (error) {
          const isWorthIt = error instanceof MinorfaultError && error.retryable;
          if (controller.signal.aborted || !isWorthIt || attempt === this.#attemptsMax) throw error;
          last = error;
        }
        await sleep(this.#timers, this.#pause(attempt), controller.signal);
      }
    } finally {
      cancel();
      release();
    }
  }

  #pause(attempt: number): number {
    return this.#random() * Math.min(this.#pauseMsMax, this.#pauseMs * 2 ** (attempt - 1));
  }

  #late(last: unknown): MinorfaultError {
    return new MinorfaultError(
      "ERR_SOURCE_TIMEOUT",
      `${this.name} was tried again and again for ${this.#deadlineMs} ms without success`,
      last === undefined ? {} : { cause: last },
    );
  }
}
