// Buffers for what is sent. Large ones are used again: a fresh one of a quarter MiB costs the kernel more than filling it.
// Small ones lie one behind the other, so that those that leave together leave as one.

/** What does not fit one is given a buffer of its own. */
const SLAB_BYTES = 320 * 2 ** 10;
/** LIMIT: buffers that lie ready. */
const FREE_MAX = 16;
/** A few bytes are no reason to hold a slab. */
const SMALL_BYTES_MAX = SLAB_BYTES / 16;
/**
 * Of small ones together: 32 records of a page. They are not used again: parts of one may leave at different times.
 */
const STRIP_BYTES = 132 * 2 ** 10;

export class SlabPool {
  readonly #free: Uint8Array[] = [];
  #strip = Buffer.alloc(0);
  #used = 0;

  /** At least so many bytes; of few of them exactly as many. */
  take(byteLength: number): Uint8Array {
    if (byteLength > SLAB_BYTES) return Buffer.allocUnsafeSlow(byteLength);
    if (byteLength >= SMALL_BYTES_MAX) return this.#free.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
    if (this.#used + byteLength > this.#strip.byteLength) {
      this.#strip = Buffer.allocUnsafeSlow(STRIP_BYTES);
      this.#used = 0;
    }
    this.#used += byteLength;
    return this.#strip.subarray(this.#used - byteLength, this.#used);
  }

  /** Whether they are some of the small ones: nobody has to know when they have been read. */
  isSmall({ buffer }: Uint8Array): boolean {
    return buffer === this.#strip.buffer;
  }

  /** Any part of what was taken, which nobody reads any more. */
  give(bytes: Uint8Array): void {
    const { buffer } = bytes;
    if (buffer.byteLength !== SLAB_BYTES || this.#free.length >= FREE_MAX) return;
    this.#free.push(Buffer.from(buffer as ArrayBuffer));
  }
}

/** Both as one, where the second one lies behind the first. */
export function joined(first: Uint8Array, second: Uint8Array): Uint8Array | undefined {
  const { buffer, byteOffset, byteLength } = first;
  if (second.buffer !== buffer || second.byteOffset !== byteOffset + byteLength) return undefined;
  return new Uint8Array(buffer, byteOffset, byteLength + second.byteLength);
}
