// Runs threads, one after the other, each until it is idle or has to wait: nothing is ever in progress between two
// calls from outside, and what happens depends on the order of those calls only.
//
// A system call that may wait is a generator: it yields how deep it sleeps, and is resumed to look again. What
// kills a thread returns from its generator, so that `finally` undoes what it had queued.

import type { Wakeable } from "./wait-queue.ts";

/** What a sleeping thread can be disturbed by. */
export const SLEEP = {
  /** In a fault of its own access: a signal is handled, and the access repeated. */
  USER_FAULT: 1,
  /** In a fault of a system call's access: only death ends it; a signal makes it raise its fault again and again. */
  KERNEL_FAULT: 2,
  /** For its event to be read: only death ends it. */
  KILLABLE: 3,
  /** A signal ends it. */
  INTERRUPTIBLE: 4,
} as const;
export type Sleep = (typeof SLEEP)[keyof typeof SLEEP];

/** A computation that may wait. */
export type Blocking<T> = Generator<Sleep, T, void>;

/** What the scheduler runs. */
export interface Runnable extends Wakeable {
  run(): void;
}

export class Scheduler {
  #queue: Runnable[] = [];
  #endings: (() => void)[] = [];
  #draining = false;
  /** Time that has passed for sleepers, in ms: it jumps to the next deadline when nothing else can happen. */
  #now = 0;
  readonly #timers: { readonly at: number; readonly sleeper: Wakeable }[] = [];

  get now(): number {
    return this.#now;
  }

  /** Wakes somebody when so much time has passed. */
  setTimer(at: number, sleeper: Wakeable): void {
    this.#timers.push({ at, sleeper });
    this.#timers.sort((a, b) => a.at - b.at);
  }

  clearTimers(sleeper: Wakeable): void {
    for (let index = this.#timers.length - 1; index >= 0; index--) {
      if (this.#timers[index]!.sleeper === sleeper) this.#timers.splice(index, 1);
    }
  }

  ready(thread: Runnable): void {
    this.#queue.push(thread);
  }

  /** Does something when no thread is in the middle of a step: what ends a process must not pull its ground away. */
  afterStep(action: () => void): void {
    this.#endings.push(action);
  }

  /** Nothing can happen but that time passes. */
  #advance(): void {
    const timer = this.#timers.length === 0 || this.#queue.length > 0 ? undefined : this.#timers.shift();
    if (timer === undefined) return;
    this.#now = Math.max(this.#now, timer.at);
    timer.sleeper.wake();
  }

  /** Returns when no thread can go on. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    try {
      this.#advance();
      while (this.#queue.length > 0 || this.#endings.length > 0) {
        const endings = this.#endings;
        this.#endings = [];
        for (const end of endings) end();
        const queue = this.#queue;
        this.#queue = [];
        for (const thread of queue) thread.run();
        if (this.#queue.length === 0 && this.#endings.length === 0) this.#advance();
      }
    } finally {
      this.#draining = false;
    }
  }
}
