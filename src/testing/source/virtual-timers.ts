// Time that passes when nothing else is left to do: a deadline of a minute takes no time at all.

import type { Timers } from "../../source/timers.ts";

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly callback: () => void;
}

export class VirtualTimers implements Timers {
  #nowMs = 0;
  #order = 0;
  readonly #timers = new Set<Timer>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { atMs: this.#nowMs + ms, order: this.#order++, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Timers that have not fired: none should be left when nothing waits. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Lets time pass until the promise has settled; answers as it does. */
  async run<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settle = () => {
      isSettled = true;
    };
    promise.then(settle, settle);
    for (;;) {
      // Everything that can happen at this moment happens before time moves on.
      await new Promise((resolve) => setImmediate(resolve));
      if (isSettled) return promise;
      const next = this.#next();
      if (next === undefined) throw new Error("Somebody waits for what will never happen");
      this.#timers.delete(next);
      this.#nowMs = next.atMs;
      next.callback();
    }
  }

  #next(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) {
      const isSooner =
        first === undefined ||
        timer.atMs < first.atMs ||
        (timer.atMs === first.atMs && timer.order < first.order);
      if (isSooner) first = timer;
    }
    return first;
  }
}
