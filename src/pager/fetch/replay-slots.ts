// The slots of the replay, of the thread that fetches: which are free, and how many are on their way.
//
//   free ── take ──▶ on its way ── free: it has been installed ───────▶ free
//                        └──────── keep: it waits for later guests ──▶ kept ── free ──▶ free
//
// How many may be kept is for the serving thread to say, which has the room for all sources. What is on its way is limited
// here: a replay that is read faster than it is installed must not dirty what was mapped for others to be kept in.

export interface ReplaySlotsOptions {
  readonly count: number;
  /** LIMIT: slots that are on their way at once. */
  readonly transitMax: number;
  /** Slots that nothing lies in any more, and something has: their memory can go back to the system. */
  readonly giveBack: (first: number, count: number) => void;
}

export class ReplaySlots {
  readonly #options: ReplaySlotsOptions;
  /** The last one is the next to be taken. */
  readonly #free: number[];
  readonly #inTransit = new Set<number>();
  /** Free ones that have been written to. */
  readonly #dirty = new Set<number>();

  constructor(options: ReplaySlotsOptions) {
    const { count } = options;
    this.#options = options;
    this.#free = Array.from({ length: count }, (_, slot) => count - 1 - slot);
  }

  get isAvailable(): boolean {
    return this.#inTransit.size < this.#options.transitMax && this.#free.length > 0;
  }

  /** Undefined: none is available. */
  take(): number | undefined {
    const slot = this.isAvailable ? this.#free.pop() : undefined;
    if (slot === undefined) return undefined;
    this.#inTransit.add(slot);
    this.#dirty.delete(slot);
    return slot;
  }

  /** What lies in it stays there until it is free: others may be on their way in its stead. */
  keep(slot: number): void {
    this.#inTransit.delete(slot);
  }

  /** Nothing lies in it any more, whether it was on its way or kept. */
  free(slot: number): void {
    this.#inTransit.delete(slot);
    this.#dirty.add(slot);
    this.#free.push(slot);
  }

  /** Gives back the memory of the free ones, unless one is on its way: then others are about to be used again. */
  settle(): void {
    if (this.#inTransit.size > 0 || this.#dirty.size === 0) return;
    const slots = Uint32Array.from(this.#dirty).sort();
    this.#dirty.clear();
    let first = 0;
    for (let at = 1; at <= slots.length; at++) {
      if (at < slots.length && slots[at] === slots[at - 1]! + 1) continue;
      this.#options.giveBack(slots[first]!, at - first);
      first = at;
    }
  }
}
