// Random numbers from a seed: the same seed gives the same numbers on every machine, so that whatever went wrong
// can be made to go wrong again. Marsaglia's xorshift with three shifts; not for secrets.

export class Random {
  #state: number;

  /** `seed`: an unsigned 32-bit integer. */
  constructor(seed: number) {
    // Neighbouring seeds must not begin alike, and zero would stay zero for ever.
    this.#state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) >>> 0 || 1;
    for (let round = 0; round < 8; round++) this.uint32();
  }

  uint32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }

  /** An integer from 0 up to, not including, `until`. */
  below(until: number): number {
    return Math.floor((this.uint32() / 2 ** 32) * until);
  }

  /** `count` different integers below `until`, in random order. */
  sample(count: number, until: number): Uint32Array {
    const chosen = new Uint32Array(count);
    // The first `count` steps of a shuffle of 0..until-1, of which only the places that moved are kept.
    const moved = new Map<number, number>();
    for (let index = 0; index < count; index++) {
      const other = index + this.below(until - index);
      chosen[index] = moved.get(other) ?? other;
      moved.set(other, moved.get(index) ?? index);
    }
    return chosen;
  }
}
