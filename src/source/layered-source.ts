// A source that stands before another one and passes everything on: what wrappers begin from. A wrapper overrides
// what its one job needs.
//
//   caching ── coalescing ── limited ── hedged ── retrying ── http
//
// The synchronous read is not passed on: a wrapper that has a part in reading would be gone round.

import type { PageSource } from "./page-source.ts";

export class LayeredSource implements PageSource {
  readonly name: string;
  readonly byteLength: number;
  readonly identity?: string;
  protected readonly inner: PageSource;

  constructor(inner: PageSource) {
    this.inner = inner;
    this.name = inner.name;
    this.byteLength = inner.byteLength;
    if (inner.identity !== undefined) this.identity = inner.identity;
  }

  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.inner.read(offset, target, signal);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
