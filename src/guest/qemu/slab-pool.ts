// Buffers that are used again: a fresh one of a quarter MiB costs the kernel more than filling it.

/** What does not fit one is given a buffer of its own. */
const SLAB_BYTES = 320 * 2 ** 10;
/** LIMIT: buffers that lie ready. */
const FREE_MAX = 16;

export class SlabPool {
  readonly #free: Uint8Array[] = [];

  /** At least so many bytes. */
  take(byteLength: number): Uint8Array {
    if (byteLength > SLAB_BYTES) return Buffer.allocUnsafeSlow(byteLength);
    // A few bytes are no reason to hold a slab.
    if (byteLength < SLAB_BYTES / 16) return Buffer.allocUnsafe(byteLength);
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
  }

  /** Any part of what was taken, which nobody reads any more. */
  give(bytes: Uint8Array): void {
    const { buffer } = bytes;
    if (buffer.byteLength !== SLAB_BYTES || this.#free.length >= FREE_MAX) return;
    this.#free.push(Buffer.from(buffer as ArrayBuffer));
  }
}
