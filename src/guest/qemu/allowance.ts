// How many bytes may be pushed by now, at so many a second. What was not used is not saved up.

import { PAGE_BYTES } from "./stream-format.ts";

/** LIMIT: what may be used at once is that of so much time. */
const SAVED_S = 0.1;

export class Allowance {
  readonly #bytesPerSecond: number | undefined;
  #bytes = 0;
  #at: number;

  /** Undefined: as many as one likes. */
  constructor(bytesPerSecond: number | undefined, now: number) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#at = now;
  }

  get isUsedUp(): boolean {
    return this.#bytesPerSecond !== undefined && this.#bytes <= 0;
  }

  use(byteLength: number): void {
    this.#bytes -= byteLength;
  }

  /** Time has passed. */
  renew(now: number): void {
    const rate = this.#bytesPerSecond ?? 0;
    const more = ((now - this.#at) * rate) / 1000;
    this.#at = now;
    this.#bytes = Math.min(this.#bytes + more, Math.max(rate * SAVED_S, PAGE_BYTES));
  }
}
