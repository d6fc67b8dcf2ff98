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
  readonly #options: RetryOptions;

  constructor(inner: PageSource, options: RetryOptions = {}) {
    super(inner);
    this.#options = options;
  }

  override read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    return retrying(this.name, this.#options, signal, (limited) => this.inner.read(offset, target, limited));
  }
}

/** Runs `action` until it succeeds, fails for good, or time is up; its signal is aborted then, or with `signal`. */
export async function retrying<T>(
  name: string,
  options: RetryOptions | undefined,
  signal: AbortSignal | undefined,
  action: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { attemptsMax = 6, pauseMs = 20, pauseMsMax = 2000, deadlineMs = 30_000 } = options ?? {};
  const { timers = systemTimers, random = Math.random } = options ?? {};
  signal?.throwIfAborted();
  const { controller, release } = linked(signal);
  let last: unknown;
  const cancel = timers.after(deadlineMs, () => controller.abort(outOfTime(name, deadlineMs, last)));
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        return await action(controller.signal);
      } catch (error) {
        const isWorthIt = error instanceof MinorfaultError && error.retryable;
        if (controller.signal.aborted || !isWorthIt || attempt === attemptsMax) throw error;
        last = error;
      }
      const pause = random() * Math.min(pauseMsMax, pauseMs * 2 ** (attempt - 1));
      await sleep(timers, pause, controller.signal);
    }
  } finally {
    cancel();
    release();
  }
}

function outOfTime(name: string, deadlineMs: number, last: unknown): MinorfaultError {
  return new MinorfaultError(
    "ERR_SOURCE_TIMEOUT",
    `${name} was tried again and again for ${deadlineMs} ms without success`,
    last === undefined ? {} : { cause: last },
  );
}
