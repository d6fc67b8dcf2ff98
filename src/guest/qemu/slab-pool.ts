// Buffers that are used again: a fresh one of a quarter MiB costs the kernel more than filling it.
//
// Small pieces that leave together lie one behind the other in one of them, so as to leave as one:
//
//   gather ▶ │ piece │ piece │ piece │        │ ──▶ cut: the next ones lie in another one

/** What does not fit one is given a buffer of its own. */
const SLAB_BYTES = 320 * 2 ** 10;
/** LIMIT: buffers that lie ready. */
const FREE_MAX = 16;

export class SlabPool {
  readonly #free: Uint8Array[] = [];
  /** What small pieces are put in, and how far it is filled. */
  #strip: Uint8Array | undefined;
  #filled = 0;

  /** At least so many bytes, to leave by themselves. */
  take(byteLength: number): Uint8Array {
    if (byteLength > SLAB_BYTES) return Buffer.allocUnsafeSlow(byteLength);
    // A few bytes are no reason to hold a slab.
    return isSmall(byteLength) ? Buffer.allocUnsafe(byteLength) : this.#slab();
  }

  /** The same; a small piece is to leave with others. */
  gather(byteLength: number): Uint8Array {
    if (!isSmall(byteLength)) return this.take(byteLength);
    if (this.#strip === undefined || this.#filled + byteLength > SLAB_BYTES) {
      this.#strip = this.#slab();
      this.#filled = 0;
    }
    this.#filled += byteLength;
    return this.#strip.subarray(this.#filled - byteLength, this.#filled);
  }

  /** Whether others may follow that leave with it. */
  isGathered({ buffer }: Uint8Array): boolean {
    return buffer === this.#strip?.buffer;
  }

  /** It leaves now, with all that was gathered in the same place. */
  cut(bytes: Uint8Array): void {
    if (this.isGathered(bytes)) this.#strip = undefined;
  }

  /** Any part of what was taken, which nobody reads any more. */
  give({ buffer }: Uint8Array): void {
    if (buffer.byteLength !== SLAB_BYTES || this.#free.length >= FREE_MAX) return;
    this.#free.push(Buffer.from(buffer as ArrayBuffer));
  }

  #slab(): Uint8Array {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
  }
}

function isSmall(byteLength: number): boolean {
  return byteLength < SLAB_BYTES / 16;
}

/** Both as one, where the second one lies behind the first. */
export function joined(first: Uint8Array, second: Uint8Array): Uint8Array | undefined {
  const { buffer, byteOffset, byteLength } = first;
  if (second.buffer !== buffer || second.byteOffset !== byteOffset + byteLength) return undefined;
  return new Uint8Array(buffer, byteOffset, byteLength + second.byteLength);
}
