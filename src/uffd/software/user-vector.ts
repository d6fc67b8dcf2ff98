// The buffers of a read or a write: pieces of the caller's memory, gone through in order.

import type { AddressSpace } from "./address-space.ts";
import type { Faulter } from "./fault.ts";
import type { Blocking } from "./scheduler.ts";
import { copyIn, copyOut } from "./user-access.ts";

export interface Segment {
  readonly address: number;
  readonly byteLength: number;
}

export class UserVector {
  readonly #space: AddressSpace;
  readonly #segments: readonly Segment[];
  #index = 0;
  #within = 0;
  /** Bytes that are left. */
  remaining: number;

  constructor(space: AddressSpace, segments: readonly Segment[]) {
    this.#space = space;
    this.#segments = segments;
    this.remaining = segments.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** Puts bytes into the buffers: how many there was room or memory for. */
  *put(faulter: Faulter, bytes: Uint8Array): Blocking<number> {
    return yield* this.#walk(bytes, (address, piece) => copyOut(this.#space, faulter, address, piece));
  }

  /** Takes bytes from the buffers: how many there were. */
  *take(faulter: Faulter, bytes: Uint8Array): Blocking<number> {
    return yield* this.#walk(bytes, (address, piece) => copyIn(this.#space, faulter, address, piece));
  }

  *#walk(
    bytes: Uint8Array,
    copy: (address: number, piece: Uint8Array) => Blocking<number>,
  ): Blocking<number> {
    let done = 0;
    while (done < bytes.length && this.#index < this.#segments.length) {
      const { address, byteLength } = this.#segments[this.#index]!;
      const length = Math.min(byteLength - this.#within, bytes.length - done);
      if (length > 0) {
        const copied = yield* copy(address + this.#within, bytes.subarray(done, done + length));
        done += copied;
        this.#within += copied;
        this.remaining -= copied;
        if (copied < length) return done;
      }
      if (this.#within === byteLength) {
        this.#index++;
        this.#within = 0;
      }
    }
    return done;
  }
}
