// Zeros of any length, which cost nothing.

import { MinorfaultError } from "../base/errors.ts";
import { checkRead, closedSource, type PageSource } from "./page-source.ts";

export class ZeroSource implements PageSource {
  readonly name = "zeros";
  readonly byteLength: number;
  #closed = false;

  constructor(byteLength: number) {
    if (!Number.isSafeInteger(byteLength) || byteLength < 0) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `A source's length is an integer, not ${byteLength}`);
    }
    this.byteLength = byteLength;
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.readSync(offset, target);
  }

  readSync(offset: number, target: Uint8Array): void {
    if (this.#closed) throw closedSource(this.name);
    checkRead(this, offset, target.byteLength);
    target.fill(0);
  }

  async close(): Promise<void> {
    this.#closed = true;
  }
}
