// Keeps a flood out of a log: what happens now and then is told one by one, what happens too often as a number.

/** LIMIT: so many are told at once, and so many a second when they go on. */
const BURST = 64;
const PER_SECOND = 4;

export class Throttle {
  readonly #tellCount: (count: number) => void;
  #left = BURST;
  #untold = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `tellCount`: how many were not told one by one in the last second. */
  constructor(tellCount: (count: number) => void) {
    this.#tellCount = tellCount;
  }

  /** Whether one more is to be told by itself; otherwise it is counted. */
  admits(): boolean {
    this.#timer ??= setInterval(() => this.#refill(), 1000).unref();
    if (this.#left === 0) {
      this.#untold++;
      return false;
    }
    this.#left--;
    return true;
  }

  #refill(): void {
    this.#left = Math.min(BURST, this.#left + PER_SECOND);
    if (this.#untold > 0) this.#tellCount(this.#untold);
    this.#untold = 0;
    if (this.#left < BURST) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
