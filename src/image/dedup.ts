// Which content is stored already, and where: a hash table over flat arrays, 88 bytes an entry.
//
//   slots    ┌──┬──┬──┬──┬──┬──┐   entry + 1, or 0; found by the first bytes of the SHA-256, then the next one
//            └─┬┴──┴──┴┬─┴──┴──┘
//   entries  ┌─▼──────┬▼───────┬ … hash │ check │ pack │ offset │ stored bytes │ encoding
//
// Content that has been seen but not been given a place yet (it is being compressed) is in it as well.

import { ENCODINGS, type Encoding } from "./content.ts";
import { HASH_BYTES } from "./limits.ts";

/** LIMIT: entries: 256 GiB of content in chunks of 64 KiB. Beyond it equal content may be stored twice. */
export const DEDUP_ENTRIES_MAX: number = 2 ** 22;
const NUMBERS = 4;
const NO_PACK = 0xffff_ffff;

export interface Known {
  /** In the numbering of whoever filled the table. */
  readonly pack: number;
  readonly check: Uint8Array;
  readonly offset: number;
  readonly storedBytes: number;
  readonly encoding: Encoding;
}

export class DedupTable {
  #hashes = new Uint8Array(1024 * HASH_BYTES);
  #checks = new Uint8Array(1024 * HASH_BYTES);
  #numbers = new Uint32Array(1024 * NUMBERS);
  #slots = new Uint32Array(4096);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** The entry of the hash that lies at an offset of `bytes`, or -1. */
  find(bytes: Uint8Array, at = 0): number {
    for (let slot = this.#slotOf(bytes, at); ; slot = (slot + 1) & (this.#slots.length - 1)) {
      const entry = this.#slots[slot]! - 1;
      if (entry === -1 || areHashes(bytes, at, this.#hashes, entry * HASH_BYTES)) return entry;
    }
  }

  /** Adds a hash that is not in the table, with no place yet. Answers its entry, or -1 when the table is full. */
  add(bytes: Uint8Array, at = 0): number {
    if (this.#count >= DEDUP_ENTRIES_MAX) return -1;
    const entry = this.#count++;
    this.#grow();
    copyHash(bytes, at, this.#hashes, entry * HASH_BYTES);
    this.#numbers[entry * NUMBERS] = NO_PACK;
    this.#insert(entry);
    return entry;
  }

  place(entry: number, known: Omit<Known, "check">, check: Uint8Array, checkAt = 0): void {
    const at = entry * NUMBERS;
    copyHash(check, checkAt, this.#checks, entry * HASH_BYTES);
    this.#numbers[at] = known.pack;
    this.#numbers[at + 1] = known.offset;
    this.#numbers[at + 2] = known.storedBytes;
    this.#numbers[at + 3] = ENCODINGS.indexOf(known.encoding);
  }

  /** Where an entry's content is, or undefined while it has no place. */
  known(entry: number): Known | undefined {
    const at = entry * NUMBERS;
    const pack = this.#numbers[at]!;
    if (pack === NO_PACK) return undefined;
    return {
      pack,
      check: this.#checks.subarray(entry * HASH_BYTES, (entry + 1) * HASH_BYTES),
      offset: this.#numbers[at + 1]!,
      storedBytes: this.#numbers[at + 2]!,
      encoding: ENCODINGS[this.#numbers[at + 3]!]!,
    };
  }

  #slotOf(bytes: Uint8Array, at: number): number {
    const first = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    return first & (this.#slots.length - 1);
  }

  #insert(entry: number): void {
    let slot = this.#slotOf(this.#hashes, entry * HASH_BYTES);
    while (this.#slots[slot] !== 0) slot = (slot + 1) & (this.#slots.length - 1);
    this.#slots[slot] = entry + 1;
  }

  #grow(): void {
    if (this.#count * HASH_BYTES > this.#hashes.byteLength) {
      const hashes = new Uint8Array(2 * this.#hashes.byteLength);
      hashes.set(this.#hashes);
      this.#hashes = hashes;
      const checks = new Uint8Array(2 * this.#checks.byteLength);
      checks.set(this.#checks);
      this.#checks = checks;
      const numbers = new Uint32Array(2 * this.#numbers.length);
      numbers.set(this.#numbers);
      this.#numbers = numbers;
    }
    if (this.#count * 2 > this.#slots.length) {
      this.#slots = new Uint32Array(2 * this.#slots.length);
      for (let entry = 0; entry < this.#count - 1; entry++) this.#insert(entry);
    }
  }
}

function areHashes(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number): boolean {
  for (let index = 0; index < HASH_BYTES; index++) if (a[aAt + index] !== b[bAt + index]) return false;
  return true;
}

/** `set` would need a view of each hash. */
function copyHash(from: Uint8Array, at: number, to: Uint8Array, toAt: number): void {
  for (let index = 0; index < HASH_BYTES; index++) to[toAt + index] = from[at + index]!;
}
