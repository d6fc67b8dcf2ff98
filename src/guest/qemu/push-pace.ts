// How fast a machine's memory follows by itself beside a guest that asks for some of it: what is asked for stands behind
// whatever was sent before, so that is little as long as one request may follow the other.
//
//   requests   │││ │ ││ │                    │
//   pushed     ▪  ▪  ▪  ▪  ▪ ████████████████ ▪ ███████
//                          └ CALM_MS

/** Pages that are given to the socket at once, and while a guest asks. */
const PORTION_PAGES = 64;
const PORTION_PAGES_ASKED = 8;
/** A guest that asked for something so many milliseconds ago is about to ask for more. */
const CALM_MS = 3;
/** A guest that never stops asking gets the rest as well: a portion in so many milliseconds, 32 MiB a second. */
const PAUSE_MS = 1;

export class PushPace {
  #touchedAt = Number.NEGATIVE_INFINITY;
  #givenAt = Number.NEGATIVE_INFINITY;

  /** When the guest last asked for a page. */
  get touchedAt(): number {
    return this.#touchedAt;
  }

  /** The guest asks for a page. */
  touched(now: number): void {
    this.#touchedAt = now;
  }

  /** For how many milliseconds nothing is to be pushed. `isWaiting`: the guest waits for a page. */
  pause(now: number, isWaiting: boolean): number {
    return this.#isAsking(now, isWaiting) ? Math.max(0, this.#givenAt + PAUSE_MS - now) : 0;
  }

  /** Pages that are pushed at once, now. */
  portion(now: number, isWaiting: boolean): number {
    this.#givenAt = now;
    return this.#isAsking(now, isWaiting) ? PORTION_PAGES_ASKED : PORTION_PAGES;
  }

  #isAsking(now: number, isWaiting: boolean): boolean {
    return isWaiting || now - this.#touchedAt < CALM_MS;
  }
}
