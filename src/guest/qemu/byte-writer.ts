// Numbers and texts as bytes, big endian, into a buffer that grows.

import { assert } from "../../base/errors.ts";

const encoder = new TextEncoder();

export class ByteWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  constructor(byteLength = 256) {
    this.#bytes = new Uint8Array(byteLength);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get byteLength(): number {
    return this.#length;
  }

  u8(value: number): this {
    const at = this.#room(1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.#room(2);
    this.#view.setUint16(at, value);
    return this;
  }

  u32(value: number): this {
    const at = this.#room(4);
    this.#view.setUint32(at, value);
    return this;
  }

  u64(value: number): this {
    const at = this.#room(8);
    this.#view.setUint32(at, Math.floor(value / 2 ** 32));
    this.#view.setUint32(at + 4, value % 2 ** 32);
    return this;
  }

  bytes(bytes: Uint8Array): this {
    const at = this.#room(bytes.byteLength);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** A text of at most 255 bytes behind its length. */
  name(text: string): this {
    const bytes = encoder.encode(text);
    assert(bytes.byteLength <= 255, "A name has more than 255 bytes");
    return this.u8(bytes.byteLength).bytes(bytes);
  }

  /** What has been written since the last time, which is the caller's now. */
  take(): Uint8Array {
    const bytes = this.#bytes.slice(0, this.#length);
    this.#length = 0;
    return bytes;
  }

  /** Makes room; answers where it begins. */
  #room(byteLength: number): number {
    const at = this.#length;
    this.#length += byteLength;
    if (this.#length <= this.#bytes.byteLength) return at;
    const grown = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.byteLength));
    grown.set(this.#bytes.subarray(0, at));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
    return at;
  }
}
