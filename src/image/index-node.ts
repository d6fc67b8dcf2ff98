// A node of the index: which of its places are occupied, and a record for each that is.
//
//   ┌ bitmap ─────────────┬ record ┬ record ┬ …      one record of 80 bytes for each set bit, in order
//   │ bit i % 8 of byte   │ hash (32) │ check (32) │ pack (4) │ offset (4) │ stored bytes (4) │ encoding (1) │ 0 0 0
//   │ i / 8 is place i    └────────┴────────┴──
//   └─────────────────────
//
// An index page is a node of 1024 places, one a chunk; the root has a node with one place an index page. A place
// that is not occupied is zeros in memory, so that a sparse image costs nothing where nothing is.

import { badImage, ENCODINGS, type Encoding } from "./content.ts";
import { HASH_BYTES, PACK_BYTES_MAX } from "./limits.ts";

export const RECORD_BYTES = 80;
const CHECK = HASH_BYTES;
const PACK = CHECK + HASH_BYTES;
const OFFSET = PACK + 4;
const STORED = OFFSET + 4;
const ENCODING = STORED + 4;
/** Places between two counted sums: what a look-up has to count at most. */
const STRIDE = 64;

export interface IndexRecord {
  /** SHA-256 of the content. */
  readonly hash: Uint8Array;
  /** SHA-256 of the stored bytes. */
  readonly check: Uint8Array;
  /** Which of the packs that the root lists. */
  readonly pack: number;
  readonly offset: number;
  readonly storedBytes: number;
  readonly encoding: Encoding;
}

export function bitmapBytes(capacity: number): number {
  return Math.ceil(capacity / 8);
}

/** Writes a node: `records[i]` is place i. */
export function encodeNode(records: readonly (IndexRecord | undefined)[]): Uint8Array {
  const bitmap = bitmapBytes(records.length);
  const occupied = records.reduce((count, record) => count + (record === undefined ? 0 : 1), 0);
  const bytes = new Uint8Array(bitmap + occupied * RECORD_BYTES);
  const view = new DataView(bytes.buffer);
  let at = bitmap;
  for (const [place, record] of records.entries()) {
    if (record === undefined) continue;
    bytes[place >> 3]! |= 1 << (place & 7);
    bytes.set(record.hash, at);
    bytes.set(record.check, at + CHECK);
    view.setUint32(at + PACK, record.pack, true);
    view.setUint32(at + OFFSET, record.offset, true);
    view.setUint32(at + STORED, record.storedBytes, true);
    bytes[at + ENCODING] = ENCODINGS.indexOf(record.encoding);
    at += RECORD_BYTES;
  }
  return bytes;
}

/** A node as it lies in memory; checked as a whole when it is made, decoded place by place when asked. */
export class IndexNode {
  readonly capacity: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Occupied places before place STRIDE * i. */
  readonly #sums: Uint32Array;

  /** `packs`: how many packs the root lists; `what` names the node in errors. */
  constructor(bytes: Uint8Array, capacity: number, packs: number, storedMax: number, what: string) {
    this.capacity = capacity;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#sums = new Uint32Array(Math.ceil(capacity / STRIDE) + 1);
    const bitmap = bitmapBytes(capacity);
    if (bytes.byteLength < bitmap) throw badImage(`${what} is too short for ${capacity} places`);
    this.#count(bitmap);
    const occupied = this.occupied;
    if (bytes.byteLength !== bitmap + occupied * RECORD_BYTES) {
      throw badImage(`${what} has ${bytes.byteLength} bytes, which do not fit its ${occupied} records`);
    }
    for (let index = 0; index < occupied; index++) {
      this.#check(bitmap + index * RECORD_BYTES, packs, storedMax, what);
    }
  }

  get occupied(): number {
    return this.#sums[this.#sums.length - 1]!;
  }

  get byteLength(): number {
    return this.#bytes.byteLength;
  }

  has(place: number): boolean {
    return ((this.#bytes[place >> 3]! >> (place & 7)) & 1) !== 0;
  }

  get(place: number): IndexRecord | undefined {
    if (place >= this.capacity || !this.has(place)) return undefined;
    let before = this.#sums[Math.floor(place / STRIDE)]!;
    for (let other = place - (place % STRIDE); other < place; other++) before += this.has(other) ? 1 : 0;
    const at = bitmapBytes(this.capacity) + before * RECORD_BYTES;
    return {
      hash: this.#bytes.subarray(at, at + HASH_BYTES),
      check: this.#bytes.subarray(at + CHECK, at + CHECK + HASH_BYTES),
      pack: this.#view.getUint32(at + PACK, true),
      offset: this.#view.getUint32(at + OFFSET, true),
      storedBytes: this.#view.getUint32(at + STORED, true),
      encoding: ENCODINGS[this.#bytes[at + ENCODING]!]!,
    };
  }

  /** All places, to be changed and encoded again. */
  toRecords(): (IndexRecord | undefined)[] {
    return Array.from({ length: this.capacity }, (_, place) => this.get(place));
  }

  #count(bitmap: number): void {
    let sum = 0;
    for (let byte = 0; byte < bitmap; byte++) {
      if ((byte * 8) % STRIDE === 0) this.#sums[(byte * 8) / STRIDE] = sum;
      let bits = this.#bytes[byte]!;
      if (byte === bitmap - 1 && this.capacity % 8 !== 0 && bits >> (this.capacity % 8) !== 0) {
        throw badImage(`A node of the index says something about places beyond its ${this.capacity}`);
      }
      for (; bits !== 0; bits &= bits - 1) sum++;
    }
    this.#sums[this.#sums.length - 1] = sum;
  }

  #check(at: number, packs: number, storedMax: number, what: string): void {
    const pack = this.#view.getUint32(at + PACK, true);
    const offset = this.#view.getUint32(at + OFFSET, true);
    const stored = this.#view.getUint32(at + STORED, true);
    const rest = this.#view.getUint32(at + ENCODING, true);
    if (pack >= packs) throw badImage(`${what} names pack ${pack}, there are ${packs}`);
    if (stored === 0 || stored > storedMax || offset + stored > PACK_BYTES_MAX) {
      throw badImage(`${what} places ${stored} bytes at ${offset} of pack ${pack}, ${storedMax} are allowed`);
    }
    if (rest >= ENCODINGS.length) throw badImage(`${what} has an encoding that is not known: ${rest}`);
  }
}
