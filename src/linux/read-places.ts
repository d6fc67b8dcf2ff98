// Reading into many places by one call (readv), each filled before the next one is begun.

import { ERRNO } from "../abi/errno.ts";
import { check } from "./failure.ts";
import { local, mapMemory } from "./local.ts";
import type { Memory } from "./memory.ts";

/** LIMIT of the kernel: UIO_MAXIOV, places of one call. */
export const PLACES_MAX = 1024;
/** struct iovec: two words of 64 bits. */
const VECTOR_BYTES = 16;
const NUMBERS = VECTOR_BYTES / 4;

export class ReadPlaces {
  readonly #memory: Memory = mapMemory(PLACES_MAX * VECTOR_BYTES);
  readonly #numbers = new Uint32Array(this.#memory.bytes.buffer, this.#memory.bytes.byteOffset);
  #count = 0;

  clear(): void {
    this.#count = 0;
  }

  /**
   * Adds a place behind the others.
   *
   * SAFETY: it must be mapped, and stay where it is until `read` has returned.
   */
  add(address: number, byteLength: number): void {
    const at = this.#count++ * NUMBERS;
    const numbers = this.#numbers;
    numbers[at] = address;
    numbers[at + 1] = Math.floor(address / 2 ** 32);
    numbers[at + 2] = byteLength;
    numbers[at + 3] = 0;
  }

  /** Reads from a descriptor that makes nobody wait: how many bytes, 0 at its end, undefined while there are none. */
  read(fd: number): number | undefined {
    const result = local.call("readv", fd, this.#memory.address, this.#count);
    if (result === -ERRNO.EAGAIN || result === -ERRNO.EINTR) return undefined;
    return check(result, "readv");
  }

  close(): void {
    this.#memory.close();
  }
}
