// A source that goes wrong as a seed tells it: what wrappers, images and pagers are tried against.
//
// Each read draws its fate. Within the laws of sources: it fails (worth trying again, or not), comes short after
// half of the target was written, is slow, or hangs until it is aborted. Outside of them, for those who verify: it
// lies, which is one flipped bit.

import { MinorfaultError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";
import { LayeredSource } from "../../source/layered-source.ts";
import type { PageSource } from "../../source/page-source.ts";
import { sleep, systemTimers, type Timers } from "../../source/timers.ts";

export interface Faults {
  readonly seed: number;
  /** Parts of the reads, 0 to 1 each, together at most 1: ERR_SOURCE_FAILED, retryable. */
  readonly fail?: number;
  /** ERR_SOURCE_DENIED, not retryable. */
  readonly refuse?: number;
  /** ERR_SOURCE_SHORT, retryable, with half of the target overwritten by the right bytes and half by wrong ones. */
  readonly short?: number;
  readonly hang?: number;
  readonly lie?: number;
  /** Every read takes from 0 to this. */
  readonly delayMsMax?: number;
  readonly timers?: Timers;
}

export type Fate = "good" | "fail" | "refuse" | "short" | "hang" | "lie";

export class FaultySource extends LayeredSource {
  readonly #faults: Faults;
  readonly #random: Random;
  readonly #timers: Timers;
  /** What became of the reads, in order of their beginning. */
  readonly fates: Fate[] = [];

  constructor(inner: PageSource, faults: Faults) {
    super(inner);
    this.#faults = faults;
    this.#random = new Random(faults.seed);
    this.#timers = faults.timers ?? systemTimers;
  }

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const fate = this.#draw();
    this.fates.push(fate);
    const { delayMsMax = 0 } = this.#faults;
    const never = new AbortController();
    if (fate === "hang") await until(signal ?? never.signal);
    // A read without delay settles in this turn of the event loop, as a file's does.
    else if (delayMsMax > 0) {
      await sleep(this.#timers, this.#random.below(delayMsMax * 1000) / 1000, signal ?? never.signal);
    }
    if (fate === "fail") throw this.#error("ERR_SOURCE_FAILED", true);
    if (fate === "refuse") throw this.#error("ERR_SOURCE_DENIED", false);
    await this.inner.read(offset, target, signal);
    if (fate === "short") {
      target.fill(0x5a, target.byteLength >> 1);
      throw this.#error("ERR_SOURCE_SHORT", true);
    }
    if (fate === "lie" && target.byteLength > 0) {
      const at = this.#random.below(target.byteLength);
      target[at] = (target[at] ?? 0) ^ (1 << this.#random.below(8));
    }
  }

  #draw(): Fate {
    let rest = this.#random.uint32() / 2 ** 32;
    for (const fate of ["fail", "refuse", "short", "hang", "lie"] as const) {
      const share = this.#faults[fate] ?? 0;
      if (rest < share) return fate;
      rest -= share;
    }
    return "good";
  }

  #error(code: "ERR_SOURCE_FAILED" | "ERR_SOURCE_DENIED" | "ERR_SOURCE_SHORT", retryable: boolean) {
    const { seed } = this.#faults;
    return new MinorfaultError(code, `${this.name} goes wrong by seed ${seed}, read ${this.fates.length}`, {
      retryable,
    });
  }
}

function until(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
