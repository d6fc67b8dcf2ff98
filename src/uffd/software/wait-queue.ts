// Threads that wait for something to change. Waking one does not say that what it waits for has come:
// it looks again, and comes back if it has not.

/** What can be woken. */
export interface Wakeable {
  wake(): void;
}

export class WaitQueue {
  readonly #waiting = new Set<Wakeable>();
  /** Whether it is empty, for a hot path on which it usually is. */
  #empty = true;

  add(waiter: Wakeable): void {
    this.#waiting.add(waiter);
    this.#empty = false;
  }

  delete(waiter: Wakeable): void {
    this.#waiting.delete(waiter);
    this.#empty = this.#waiting.size === 0;
  }

  /** In order of arrival; they leave the queue themselves. */
  wakeAll(): void {
    if (this.#empty) return;
    for (const waiter of [...this.#waiting]) waiter.wake();
  }
}
