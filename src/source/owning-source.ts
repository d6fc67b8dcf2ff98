// A source that takes along, when it is closed, what was opened only for it: a store, connections.

import { LayeredSource } from "./layered-source.ts";
import type { PageSource } from "./page-source.ts";

export interface Closable {
  close(): Promise<void>;
}

export class OwningSource extends LayeredSource {
  readonly readSync?: (offset: number, target: Uint8Array) => void;
  readonly #owned: Closable;

  constructor(inner: PageSource, owned: Closable) {
    super(inner);
    if (inner.readSync !== undefined) this.readSync = inner.readSync.bind(inner);
    this.#owned = owned;
  }

  override async close(): Promise<void> {
    try {
      await super.close();
    } finally {
      await this.#owned.close();
    }
  }
}
