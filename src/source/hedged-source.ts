// Asks a second time when an answer takes longer than most did lately, and takes whichever comes first.
//
//   read ──┬────────────────── first ─────────────▶ wins, or is aborted
//          └─ p95 of late ──┬─ second ──▶ wins, or is aborted
//
// What a second request costs the server is bounded: at most one for every ten reads, over time.

import { MinorfaultError } from "../base/errors.ts";
import { LayeredSource } from "./layered-source.ts";
import type { PageSource } from "./page-source.ts";
import { linked, systemTimers, type Timers } from "./timers.ts";

export interface HedgeOptions {
  /** Who is asked the second time: a replica of the same content. Default: the same source. */
  readonly replica?: PageSource;
  /** Which part of the reads is expected to be done before a second request, 0 to 1. Default 0.95. */
  readonly quantile?: number;
  /** The delay before anything has been measured. */
  readonly delayMs?: number;
  /** Second requests for each read, on average. Default 0.1. */
  readonly share?: number;
  readonly timers?: Timers;
}

/** LIMIT: how many latencies are remembered. */
const SAMPLES = 256;
/** Fewer tell nothing about a quantile. */
const SAMPLES_MIN = 20;
/** LIMIT: how many second requests may be saved up by reads that needed none. */
const CREDIT_MAX = 10;

export class HedgedSource extends LayeredSource {
  readonly #replica: PageSource;
  readonly #quantile: number;
  readonly #delayMs: number;
  readonly #share: number;
  readonly #timers: Timers;
  readonly #latencies: number[] = [];
  #next = 0;
  #credit = CREDIT_MAX;
  /** Second requests made, and won. */
  hedges = 0;
  wins = 0;

  constructor(inner: PageSource, options: HedgeOptions = {}) {
    super(inner);
    this.#replica = options.replica ?? inner;
    if (this.#replica.byteLength !== inner.byteLength) {
      throw new MinorfaultError(
        "ERR_BAD_ARGUMENT",
        `${this.#replica.name} is no replica of ${inner.name}: their lengths differ`,
      );
    }
    this.#quantile = options.quantile ?? 0.95;
    this.#delayMs = options.delayMs ?? 100;
    this.#share = options.share ?? 0.1;
    this.#timers = options.timers ?? systemTimers;
  }

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.#credit = Math.min(CREDIT_MAX, this.#credit + this.#share);
    const first = linked(signal);
    const second = linked(signal);
    try {
      const winner = await this.#race(offset, target, first.controller, second.controller);
      if (winner !== target) target.set(winner);
    } finally {
      first.release();
      second.release();
    }
  }

  /** The first reads into the target itself, the second into memory of its own: the loser may still be writing. */
  #race(
    offset: number,
    target: Uint8Array,
    first: AbortController,
    second: AbortController,
  ): Promise<Uint8Array> {
    const lost = new Error("The other request was faster");
    const started = this.#timers.nowMs();
    return new Promise((resolve, reject) => {
      let running = 1;
      let failure: unknown;
      const fail = (error: unknown) => {
        failure ??= error;
        if (--running > 0) return;
        // Nothing is under way any more; whatever would still begin has nothing to win.
        cancel();
        reject(failure);
      };
      const cancel = this.#timers.after(this.#delay(), () => {
        if (this.#credit < 1 || first.signal.aborted) return;
        this.#credit--;
        this.hedges++;
        running++;
        const bytes = new Uint8Array(target.byteLength);
        this.#replica.read(offset, bytes, second.signal).then(() => {
          this.wins++;
          first.abort(lost);
          this.#remember(this.#timers.nowMs() - started);
          resolve(bytes);
        }, fail);
      });
      this.inner.read(offset, target, first.signal).then(() => {
        cancel();
        second.abort(lost);
        this.#remember(this.#timers.nowMs() - started);
        resolve(target);
      }, fail);
    });
  }

  #remember(latencyMs: number): void {
    this.#latencies[this.#next] = latencyMs;
    this.#next = (this.#next + 1) % SAMPLES;
  }

  #delay(): number {
    if (this.#latencies.length < SAMPLES_MIN) return this.#delayMs;
    const sorted = this.#latencies.slice().sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * this.#quantile))] ?? this.#delayMs;
  }

  override async close(): Promise<void> {
    try {
      await super.close();
    } finally {
      if (this.#replica !== this.inner) await this.#replica.close();
    }
  }
}
