// Page tables: two levels, the lower of 512 entries (2 MiB of address space) made when first needed.
//
// An entry (PTE) is one 32-bit number, so a page costs four bytes and no object:
//
//    31                      8 7 6 5 4 3 2 1 0
//   ┌─────────────────────────┬───────────────┐
//   │ frame                   │ · M X A U W R P   P present   R readable      W writable without a fault
//   └─────────────────────────┴───────────────┘   U uffd-wp   A anonymous     X exclusive to this process
//                                                 M marker (then not present): bits 8, 9 say poison, guard; U: wp
//
// 0 is an empty entry. The same table, keyed by offset instead of address, is the page cache of an object.

export const PTE = {
  PRESENT: 1,
  READ: 2,
  WRITE: 4,
  WP: 8,
  ANON: 16,
  EXCLUSIVE: 32,
  MARKER: 64,
  POISON: 256,
  GUARD: 512,
} as const;

/** Where the frame number begins. */
export const FRAME_SHIFT = 8;
/** LIMIT: frames that an entry can name. */
export const FRAMES_MAX = 2 ** 23;

export const WP_MARKER: number = PTE.MARKER | PTE.WP;
export const POISON_MARKER: number = PTE.MARKER | PTE.POISON;
export const GUARD_MARKER: number = PTE.MARKER | PTE.GUARD;

/** Whether an entry is a marker of that kind (POISON or GUARD), marked or not. */
export function isMarker(entry: number, kind: number): boolean {
  return (entry & PTE.MARKER) !== 0 && (entry & kind) !== 0;
}

export const LEAF_ENTRIES = 512;

const NO_LEAF: Int32Array = new Int32Array(0);

export class PageTable {
  readonly #leaves = new Map<number, Int32Array>();
  /** Leaves that one huge page fills (THP): whoever changes a part of one splits it first. */
  readonly #huge = new Set<number>();
  #hasHuge = false;
  // Accesses come in runs: the leaf that was used last.
  #lastIndex = -1;
  #last = NO_LEAF;

  /** The entry of a page (its number: address / 4096); 0 when there is none. */
  get(page: number): number {
    const within = page & (LEAF_ENTRIES - 1);
    const index = (page - within) / LEAF_ENTRIES;
    if (index === this.#lastIndex) return this.#last[within]!;
    const leaf = this.#leaves.get(index);
    if (leaf === undefined) return 0;
    this.#lastIndex = index;
    this.#last = leaf;
    return leaf[within]!;
  }

  set(page: number, entry: number): void {
    const within = page & (LEAF_ENTRIES - 1);
    this.leaf((page - within) / LEAF_ENTRIES)[within] = entry;
  }

  /** A leaf by its index, made if need be. */
  leaf(index: number): Int32Array {
    if (index === this.#lastIndex) return this.#last;
    let leaf = this.#leaves.get(index);
    if (leaf === undefined) {
      leaf = new Int32Array(LEAF_ENTRIES);
      this.#leaves.set(index, leaf);
    }
    this.#lastIndex = index;
    this.#last = leaf;
    return leaf;
  }

  /** Replaces each entry that is not empty, from page `from` until `until`, by what `change` makes of it. */
  update(from: number, until: number, change: (entry: number, page: number) => number): void {
    for (const index of this.#indexes(from, until)) {
      const leaf = this.#leaves.get(index)!;
      const base = index * LEAF_ENTRIES;
      const last = Math.min(LEAF_ENTRIES, until - base);
      for (let within = Math.max(0, from - base); within < last; within++) {
        const entry = leaf[within]!;
        if (entry !== 0) leaf[within] = change(entry, base + within);
      }
    }
  }

  /** Empties the entries after `drop` has seen each, and gives back leaves that lie in the range as a whole. */
  clear(from: number, until: number, drop: (entry: number, page: number) => void): void {
    this.update(from, until, (entry, page) => {
      drop(entry, page);
      return 0;
    });
    for (const index of this.#indexes(from, until)) {
      this.#huge.delete(index);
      if (index * LEAF_ENTRIES < from || (index + 1) * LEAF_ENTRIES > until) continue;
      this.#leaves.delete(index);
      if (index === this.#lastIndex) this.#lastIndex = -1;
    }
  }

  /** Whether the 2 MiB around a page have ever had an entry. */
  hasLeaf(page: number): boolean {
    return this.#leaves.has(Math.floor(page / LEAF_ENTRIES));
  }

  isHuge(page: number): boolean {
    return this.#hasHuge && this.#huge.has(Math.floor(page / LEAF_ENTRIES));
  }

  markHuge(page: number): void {
    this.#hasHuge = true;
    this.#huge.add(Math.floor(page / LEAF_ENTRIES));
  }

  /** From now on the leaf of this page consists of single pages. */
  split(page: number): void {
    if (this.#hasHuge) this.#huge.delete(Math.floor(page / LEAF_ENTRIES));
  }

  /** Splits the huge pages that the range holds only a part of. */
  splitEdges(from: number, until: number): void {
    if (!this.#hasHuge) return;
    if (from % LEAF_ENTRIES !== 0) this.split(from);
    if (until % LEAF_ENTRIES !== 0) this.split(until);
  }

  /** Bytes of the tables themselves. */
  get byteLength(): number {
    return this.#leaves.size * LEAF_ENTRIES * Int32Array.BYTES_PER_ELEMENT;
  }

  /** Indexes of the leaves that exist in the range, ascending: by whichever side is shorter. */
  #indexes(from: number, until: number): number[] {
    if (until <= from) return [];
    const first = Math.floor(from / LEAF_ENTRIES);
    const last = Math.floor((until - 1) / LEAF_ENTRIES);
    const found: number[] = [];
    if (last - first <= this.#leaves.size) {
      for (let index = first; index <= last; index++) if (this.#leaves.has(index)) found.push(index);
      return found;
    }
    for (const index of this.#leaves.keys()) if (index >= first && index <= last) found.push(index);
    return found.sort((a, b) => a - b);
  }
}
