// Bytes that are already in memory, as a source: for tests, small objects and content made on the spot.

import { checkRead, closedSource, type PageSource } from "./page-source.ts";

/** A source over `bytes` themselves, not a copy: whoever changes them changes what is read. */
export class MemorySource implements PageSource {
  readonly name: string;
  readonly byteLength: number;
  #bytes: Uint8Array | undefined;

  constructor(bytes: Uint8Array, name = "memory") {
    this.name = name;
    this.byteLength = bytes.byteLength;
    this.#bytes = bytes;
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.readSync(offset, target);
  }

  readSync(offset: number, target: Uint8Array): void {
    if (this.#bytes === undefined) throw closedSource(this.name);
    checkRead(this, offset, target.byteLength);
    target.set(this.#bytes.subarray(offset, offset + target.byteLength));
  }

  async close(): Promise<void> {
    this.#bytes = undefined;
  }
}
