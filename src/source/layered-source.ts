// A source that stands before another one and passes everything on: what wrappers begin from. A wrapper overrides
// what its one job needs.
//
//   caching ── coalescing ── limited ── hedged ── retrying ── http

import type { PageSource } from "./page-source.ts";

export class LayeredSource implements PageSource {
  readonly name: string;
  readonly byteLength: number;
  /** Only where the source below has it, and the wrapper has no part in reading. */
  readonly readSync?: (offset: number, target: Uint8Array) => void;
  protected readonly inner: PageSource;

  constructor(inner: PageSource) {
    this.inner = inner;
    this.name = inner.name;
    this.byteLength = inner.byteLength;
    if (inner.readSync !== undefined) this.readSync = this.#pass;
  }

  #pass = (offset: number, target: Uint8Array): void => {
    this.inner.readSync?.(offset, target);
  };

  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.inner.read(offset, target, signal);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
