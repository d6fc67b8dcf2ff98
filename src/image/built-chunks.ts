// Reads chunks of an image that is being built, from the packs that it has: to put together anew what has changed since.

import type { ObjectStore } from "../source/object-store.ts";
import type { Builder } from "./builder.ts";
import { PackReader } from "./pack-reader.ts";

export class BuiltChunks {
  readonly #packs: PackReader;
  readonly #builder: Builder;
  readonly #chunkBytes: number;
  readonly #signal: AbortSignal | undefined;
  #finished: Promise<readonly string[]> | undefined;

  constructor(store: ObjectStore, builder: Builder, chunkBytes: number, signal: AbortSignal | undefined) {
    this.#packs = new PackReader(store);
    this.#builder = builder;
    this.#chunkBytes = chunkBytes;
    this.#signal = signal;
  }

  /** Fills the target from an offset of the flat space on, which is that of a chunk. */
  async read(offset: number, target: Uint8Array): Promise<void> {
    // What has been collected lies in a pack from now on. All that is read is told before anything is told anew.
    this.#finished ??= this.#builder.writer.finish().then(() => this.#builder.packNames());
    const names = await this.#finished;
    for (let at = 0; at < target.byteLength; at += this.#chunkBytes) {
      const chunk = (offset + at) / this.#chunkBytes;
      const part = target.subarray(at, at + this.#chunkBytes);
      const record = this.#builder.index.told(chunk);
      if (record === undefined) part.fill(0);
      else {
        const place = { ...record, contentBytes: this.#chunkBytes };
        const content = await this.#packs.content(
          names[record.pack]!,
          place,
          () => `chunk ${chunk}`,
          this.#signal,
        );
        part.set(content.subarray(0, part.byteLength));
      }
    }
  }

  async close(): Promise<void> {
    await this.#packs.close();
  }
}
