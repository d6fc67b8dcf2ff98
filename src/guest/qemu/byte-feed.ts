// Bytes that arrive in pieces, read as numbers and texts: big endian, with the exact offset of everything.
//
//   push ──▶ │ piece │ piece │ piece │        offset = bytes consumed since the beginning
//              ▲ at
//
// Whoever reads makes sure first that enough bytes are there (`available`). What `take` gives is a view of a piece
// where it lies in one, else a copy; either is valid until the next call.

import { assert } from "../../base/errors.ts";

const NOTHING = new Uint8Array(0);
/** More than a page and its record. */
const KEPT_BYTES_MIN = 8192;
const decoder = new TextDecoder("utf-8", { fatal: true });

export class ByteFeed {
  readonly #waiting: Uint8Array[] = [];
  #piece: Uint8Array = NOTHING;
  #at = 0;
  #available = 0;
  #offset: number;
  #joined = new Uint8Array(4096);
  /** What `keep` has copied, in one of them and the next time in the other: a buffer for each would be much garbage. */
  readonly #kept = [NOTHING, NOTHING];
  #keptLast = 0;

  constructor(offset = 0) {
    this.#offset = offset;
  }

  get available(): number {
    return this.#available;
  }

  /** Of the next byte. */
  get offset(): number {
    return this.#offset;
  }

  /** Adds a piece; it must not change until it has been read, or `keep` been called. */
  push(piece: Uint8Array): void {
    if (piece.byteLength === 0) return;
    this.#available += piece.byteLength;
    if (this.#at < this.#piece.byteLength) {
      this.#waiting.push(piece);
      return;
    }
    this.#piece = piece;
    this.#at = 0;
  }

  /** Copies what has not been read, which is little: pieces may change from now on. */
  keep(): void {
    if (this.#available === 0) return;
    const rest = this.#room(this.#available);
    let at = 0;
    for (const piece of [this.#piece.subarray(this.#at), ...this.#waiting]) {
      rest.set(piece, at);
      at += piece.byteLength;
    }
    this.#piece = rest;
    this.#at = 0;
    this.#waiting.length = 0;
  }

  u8(): number {
    const value = this.#piece[this.#at]!;
    this.#advance(1);
    return value;
  }

  /** The next byte, which stays. */
  peek(): number {
    return this.#piece[this.#at]!;
  }

  /** One of the next bytes; they stay, and must be there. */
  peekU8(skip: number): number {
    let piece = this.#piece;
    let at = this.#at + skip;
    for (let next = 0; at >= piece.byteLength; next++) {
      at -= piece.byteLength;
      piece = this.#waiting[next]!;
    }
    return piece[at]!;
  }

  /** Four of the next bytes as a number; they stay, and must be there. */
  peekU32(skip: number): number {
    let value = 0;
    let piece = this.#piece;
    let at = this.#at + skip;
    if (at + 4 <= piece.byteLength) return word(piece, at);
    for (let next = 0, count = 0; count < 4; at++) {
      for (; at >= piece.byteLength; next++) {
        at -= piece.byteLength;
        piece = this.#waiting[next]!;
      }
      value = value * 256 + piece[at]!;
      count++;
    }
    return value;
  }

  u16(): number {
    const bytes = this.take(2);
    return (bytes[0]! << 8) | bytes[1]!;
  }

  u32(): number {
    const piece = this.#piece;
    const at = this.#at;
    if (at + 4 > piece.byteLength) return word(this.take(4), 0);
    this.#advance(4);
    return word(piece, at);
  }

  /** Exact up to 2^53; beyond that it is a number that no length or offset can be, and is refused as such. */
  u64(): number {
    const high = this.u32();
    return high * 2 ** 32 + this.u32();
  }

  text(byteLength: number): string {
    return decoder.decode(this.take(byteLength));
  }

  take(byteLength: number): Uint8Array {
    const at = this.#at;
    const until = at + byteLength;
    if (until > this.#piece.byteLength) return this.#join(byteLength);
    const view = this.#piece.subarray(at, until);
    this.#advance(byteLength);
    return view;
  }

  /** Lets go of up to `byteLength` bytes; says of how many. */
  drop(byteLength: number): number {
    let left = Math.min(byteLength, this.#available);
    const dropped = left;
    while (left > 0) {
      const count = Math.min(left, this.#piece.byteLength - this.#at);
      this.#advance(count);
      left -= count;
    }
    return dropped;
  }

  /** Says that bytes were passed over that were never pushed: only when none is available. */
  skipped(byteLength: number): void {
    assert(this.#available === 0, "Bytes are passed over that have not been read");
    this.#offset += byteLength;
  }

  /** Room for what is kept, where nothing of it lies now. */
  #room(byteLength: number): Uint8Array {
    this.#keptLast = 1 - this.#keptLast;
    let room = this.#kept[this.#keptLast]!;
    if (room.byteLength < byteLength) {
      room = new Uint8Array(Math.max(KEPT_BYTES_MIN, byteLength));
      this.#kept[this.#keptLast] = room;
    }
    return room.subarray(0, byteLength);
  }

  #join(byteLength: number): Uint8Array {
    assert(byteLength <= this.#available, "More bytes are read than have come");
    if (byteLength > this.#joined.byteLength) this.#joined = new Uint8Array(byteLength);
    const joined = this.#joined.subarray(0, byteLength);
    for (let filled = 0; filled < byteLength; ) {
      const until = Math.min(this.#piece.byteLength, this.#at + byteLength - filled);
      joined.set(this.#piece.subarray(this.#at, until), filled);
      filled += until - this.#at;
      this.#advance(until - this.#at);
    }
    return joined;
  }

  #advance(byteLength: number): void {
    this.#at += byteLength;
    this.#offset += byteLength;
    this.#available -= byteLength;
    if (this.#at < this.#piece.byteLength) return;
    assert(this.#at === this.#piece.byteLength, "More bytes are read than have come");
    this.#piece = this.#waiting.shift() ?? NOTHING;
    this.#at = 0;
  }
}

function word(bytes: Uint8Array, at: number): number {
  const low = (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
  return bytes[at]! * 2 ** 24 + low;
}
