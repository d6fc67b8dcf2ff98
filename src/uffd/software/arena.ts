// One contiguous piece of bytes that grows: the memory behind the frame pool.
//
// A small one is a plain buffer, copied when it grows, since most systems of a test never need more. A large one
// is a WebAssembly memory: it grows in place, so a gibibyte never exists twice, and what was not yet touched costs
// address space only. An engine without WebAssembly goes on copying.

/** Bytes up to which a plain buffer is used. */
const SMALL_MAX = 8 * 2 ** 20;
const SMALL_FIRST = 2 ** 20;
/** A WebAssembly page. */
const UNIT = 65536;
/** LIMIT: bytes of one arena: what WebAssembly memory and typed arrays can address everywhere. */
export const ARENA_MAX = 4 * 2 ** 30 - UNIT;
/** Growth of a large arena: a thirty-second of its size, at least this much. */
const STEP_MIN = 2 * 2 ** 20;

// The part of the WebAssembly interface that is needed; the DOM's types are not part of this project.
interface GrowingMemory {
  readonly buffer: ArrayBuffer;
  grow(units: number): number;
}
interface Engine {
  readonly WebAssembly?: {
    readonly Memory: new (limits: { initial: number; maximum: number }) => GrowingMemory;
  };
}

export class Arena {
  bytes: Uint8Array;
  readonly #byteLengthMax: number;
  #memory: GrowingMemory | undefined;

  /** With `reserve` it has its full length at once, where the engine can do that without taking memory for it. */
  constructor(byteLengthMax: number, reserve = false) {
    this.#byteLengthMax = Math.min(byteLengthMax, ARENA_MAX);
    this.bytes = new Uint8Array(0);
    if (!reserve || !this.#growInPlace(this.#byteLengthMax)) {
      this.bytes = new Uint8Array(Math.min(SMALL_FIRST, this.#byteLengthMax));
    }
  }

  /** Makes it at least so long; false when that is over the limit or the engine refuses. */
  grow(byteLength: number): boolean {
    if (byteLength > this.#byteLengthMax) return false;
    const now = this.bytes.length;
    if (byteLength <= now) return true;
    if (byteLength <= SMALL_MAX)
      return this.#replace(Math.min(this.#byteLengthMax, Math.max(byteLength, now * 2)));
    const step = Math.max(STEP_MIN, Math.ceil(now / 32 / UNIT) * UNIT);
    const wanted = Math.min(this.#byteLengthMax, Math.max(byteLength, now + step));
    return this.#growInPlace(wanted) || this.#replace(wanted);
  }

  #growInPlace(byteLength: number): boolean {
    const units = Math.ceil(byteLength / UNIT);
    try {
      if (this.#memory === undefined) {
        const { WebAssembly } = globalThis as Engine;
        if (WebAssembly === undefined) return false;
        const maximum = Math.ceil(this.#byteLengthMax / UNIT);
        const memory = new WebAssembly.Memory({ initial: units, maximum });
        this.#memory = memory;
        this.#adopt(new Uint8Array(memory.buffer));
      } else {
        this.#memory.grow(units - this.#memory.buffer.byteLength / UNIT);
        this.bytes = new Uint8Array(this.#memory.buffer);
      }
      return true;
    } catch {
      // No address space for it: a RangeError, whatever the engine calls it.
      return false;
    }
  }

  #replace(byteLength: number): boolean {
    try {
      this.#adopt(new Uint8Array(byteLength));
      this.#memory = undefined;
      return true;
    } catch {
      return false;
    }
  }

  #adopt(bytes: Uint8Array): void {
    bytes.set(this.bytes);
    this.bytes = bytes;
  }
}
