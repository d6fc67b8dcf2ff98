// What a guest may see: of each page the values that it can have at this moment, however what is under way turns out.
//
// A value is a byte, or how an access ends: "bus" where the page may be poisoned, "segv" where it may be gone.

export type Seen = number | "bus" | "segv";

export interface Mutation {
  readonly pages: readonly number[];
  readonly value: Seen;
  /** Another one was under way at the same time: which came last is not known. */
  overlaps: boolean;
}

export class Memory {
  readonly #possible: Set<Seen>[];
  readonly #active: Set<Mutation>[];

  constructor(values: readonly Iterable<Seen>[]) {
    this.#possible = values.map((value) => new Set(value));
    this.#active = values.map(() => new Set());
  }

  copy(): Memory {
    return new Memory(this.#possible);
  }

  possible(page: number): ReadonlySet<Seen> {
    return this.#possible[page]!;
  }

  isQuiet(page: number): boolean {
    return this.#active[page]!.size === 0;
  }

  get isAllQuiet(): boolean {
    return this.#active.every((active) => active.size === 0);
  }

  isMapped(page: number): boolean {
    return !this.#possible[page]!.has("segv");
  }

  begin(pages: readonly number[], value: Seen): Mutation {
    const mutation: Mutation = { pages, value, overlaps: false };
    for (const page of pages) {
      for (const other of this.#active[page]!) {
        other.overlaps = true;
        mutation.overlaps = true;
      }
      this.#active[page]!.add(mutation);
      this.#possible[page]!.add(value);
    }
    return mutation;
  }

  /** It is done; with `failed` it has changed nothing. */
  end(mutation: Mutation, failed: boolean, before?: ReadonlyMap<number, ReadonlySet<Seen>>): void {
    for (const page of mutation.pages) {
      this.#active[page]!.delete(mutation);
      if (mutation.overlaps) continue;
      if (!failed) this.#possible[page] = new Set([mutation.value]);
      else if (before !== undefined) this.#restore(page, before.get(page)!);
    }
  }

  #restore(page: number, before: ReadonlySet<Seen>): void {
    const wasPoisoned = this.#possible[page]!.has("bus");
    this.#possible[page] = new Set(before);
    if (wasPoisoned) this.#possible[page].add("bus");
  }

  /** The page may be poisoned from now on. */
  poison(page: number): void {
    this.#possible[page]!.add("bus");
  }

  /** Somebody has looked, while nothing was under way. */
  learn(page: number, seen: Seen): void {
    // What is poisoned may be repaired at any time, and what is not may have been just now.
    if (seen !== "bus") this.#possible[page] = new Set([seen]);
  }

  /** The page may be seen so, while something is under way. */
  allow(page: number, seen: Seen): void {
    this.#possible[page]!.add(seen);
  }

  /** Pages have moved from one place to another; nobody else changed them meanwhile. */
  move(mutation: Mutation, from: number, to: number, count: number): void {
    for (let index = 0; index < count; index++) {
      this.#active[from + index]!.delete(mutation);
      this.#active[to + index]!.delete(mutation);
      const seen = new Set(this.#possible[from + index]);
      seen.delete("segv");
      // A page may have been given up at its new place before the move itself had ended.
      if (this.#possible[to + index]!.has("bus")) seen.add("bus");
      this.#possible[to + index] = seen;
      this.#possible[from + index] = new Set<Seen>(["segv"]);
    }
  }
}
