// Where a pack's content is while the pack is being made: collected in memory until the pack has its name, or on its way
// into a store that takes content before.

import type { ObjectStore, PutOptions, Upload } from "../source/object-store.ts";

export interface PackBody {
  append(stored: Uint8Array): void;
  /** Resolves when everything that was appended may change. */
  flush(): Promise<void>;
  /** Puts it into the store, with its tail. The next pack may be begun meanwhile. */
  finish(key: string, tail: Uint8Array, signal: AbortSignal | undefined): Promise<void>;
  /** Gives up what was not finished. */
  discard(): Promise<void>;
}

/** A multiple of what stores write at once, small enough that a small pack needs little. */
const BLOCK_BYTES = 2 ** 20;

/** Copies in memory. */
export class CollectedBody implements PackBody {
  readonly #store: ObjectStore;
  /** What has been collected, `BLOCK_BYTES` in each but the last; they stay for the next pack. */
  readonly #blocks: Uint8Array[] = [];
  #length = 0;

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  append(stored: Uint8Array): void {
    for (let done = 0; done < stored.byteLength; ) {
      const at = this.#length % BLOCK_BYTES;
      const number = (this.#length - at) / BLOCK_BYTES;
      this.#blocks[number] ??= new Uint8Array(BLOCK_BYTES);
      const part = stored.subarray(done, done + BLOCK_BYTES - at);
      this.#blocks[number].set(part, at);
      done += part.byteLength;
      this.#length += part.byteLength;
    }
  }

  async flush(): Promise<void> {}

  async finish(key: string, tail: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    await this.#store.put(key, this.#pieces(tail), optionsOf(signal));
    this.#length = 0;
  }

  async discard(): Promise<void> {}

  /** In pieces, so that a store which writes in place lets others have the thread now and then. */
  async *#pieces(tail: Uint8Array): AsyncIterable<Uint8Array> {
    for (let at = 0; at < this.#length; at += BLOCK_BYTES) {
      yield this.#blocks[at / BLOCK_BYTES]!.subarray(0, this.#length - at);
      await new Promise(setImmediate);
    }
    yield tail;
  }
}

/** Nothing is copied: the store writes from where it lies. */
export class StreamedBody implements PackBody {
  readonly #begin: () => Upload;
  #upload: Upload | undefined;
  #pieces: Uint8Array[] = [];
  /** Of all pieces so far: those of a pack that ends may be written later than those of the next one, by another thread. */
  #writing: Promise<unknown> = Promise.resolve();

  constructor(begin: () => Upload) {
    this.#begin = begin;
  }

  append(stored: Uint8Array): void {
    const last = this.#pieces[this.#pieces.length - 1];
    if (last === undefined || !areNeighbours(last, stored)) this.#pieces.push(stored);
    else {
      const length = last.byteLength + stored.byteLength;
      this.#pieces[this.#pieces.length - 1] = new Uint8Array(last.buffer, last.byteOffset, length);
    }
  }

  async flush(): Promise<void> {
    if (this.#pieces.length > 0) {
      const pieces = this.#pieces;
      this.#pieces = [];
      this.#upload ??= this.#begin();
      this.#writing = Promise.all([this.#writing, this.#upload.write(pieces)]);
    }
    await this.#writing;
  }

  async finish(key: string, tail: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    this.append(tail);
    const written = this.flush();
    const upload = this.#upload!;
    this.#upload = undefined;
    await Promise.all([written, upload.finish(key, optionsOf(signal))]);
  }

  async discard(): Promise<void> {
    await this.#upload?.discard();
    this.#upload = undefined;
  }
}

function areNeighbours(a: Uint8Array, b: Uint8Array): boolean {
  return a.buffer === b.buffer && a.byteOffset + a.byteLength === b.byteOffset;
}

function optionsOf(signal: AbortSignal | undefined): PutOptions {
  return signal === undefined ? {} : { signal };
}
