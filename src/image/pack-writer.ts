// Collects pieces of content until a pack is full, and puts packs into the store.
//
// A pack's number among those of one writer is known when its first piece is added, its name only when it is
// finished: so index pages may lie in the same pack as the chunks that they tell of.

import { randomBytes } from "node:crypto";
import type { ObjectStore } from "../source/object-store.ts";
import type { Stored } from "./content.ts";
import { sha256 } from "./hash.ts";
import { PACK_BYTES, PACK_ENTRIES_MAX } from "./limits.ts";
import { packKey } from "./names.ts";
import { encodePackTail, NONCE_BYTES, type PackEntry, type PackKind } from "./pack.ts";

/** Makes the 16 bytes that tell packs apart; given by tests that need the same pack twice. */
export type Nonce = () => Uint8Array;

export const randomNonce: Nonce = () => randomBytes(NONCE_BYTES);

export interface WrittenPack {
  readonly name: string;
  readonly byteLength: number;
}

export interface PackWriterOptions {
  readonly nonce?: Nonce;
  readonly signal?: AbortSignal;
  /** Bytes of content after which a pack is finished. */
  readonly packBytes?: number;
  /** Entries after which one is; default as many as a reader accepts. */
  readonly packEntries?: number;
  /** Called when a pack is in the store. */
  readonly onPack?: (pack: WrittenPack) => void | Promise<void>;
}

/** A multiple of what stores write at once, small enough that a small pack needs little. */
const BLOCK_BYTES = 2 ** 20;

/** Where a piece lies: in which pack of its writer, and where in it. */
export interface Placed {
  readonly pack: number;
  readonly offset: number;
}

export type NewContent = Omit<Stored, "storedBytes"> & { readonly kind: PackKind };

/** What is stored as it is needs no hash of its own. */
function checkOf(stored: Uint8Array, { encoding, hash, check }: NewContent): Uint8Array {
  return check ?? (encoding === "raw" ? hash : sha256(stored));
}

export class PackWriter {
  readonly #store: ObjectStore;
  readonly #options: PackWriterOptions;
  readonly #packBytes: number;
  #entries: PackEntry[] = [];
  /** What has been collected, `BLOCK_BYTES` in each but the last; they stay for the next pack. */
  readonly #blocks: Uint8Array[] = [];
  #length = 0;
  /** In the order of their numbers. */
  readonly written: WrittenPack[] = [];

  constructor(store: ObjectStore, options: PackWriterOptions = {}) {
    this.#store = store;
    this.#options = options;
    this.#packBytes = options.packBytes ?? PACK_BYTES;
  }

  get writtenBytes(): number {
    return this.written.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** Adds a copy of `stored`. */
  async add(stored: Uint8Array, content: NewContent): Promise<Placed> {
    const isFull = this.#entries.length >= (this.#options.packEntries ?? PACK_ENTRIES_MAX);
    if (isFull || (this.#length > 0 && this.#length + stored.byteLength > this.#packBytes))
      await this.finish();
    const offset = this.#length;
    const check = new Uint8Array(checkOf(stored, content));
    this.#entries.push({
      ...content,
      hash: new Uint8Array(content.hash),
      check,
      storedBytes: stored.byteLength,
      offset,
    });
    this.#append(stored);
    return { pack: this.written.length, offset };
  }

  /** Puts what has been collected into the store. Nothing collected: nothing happens. */
  async finish(): Promise<void> {
    if (this.#entries.length === 0) return;
    const { store, nonce, signal, onPack } = { store: this.#store, nonce: randomNonce, ...this.#options };
    const { name, tail } = encodePackTail(this.#entries, nonce());
    const pack = { name, byteLength: this.#length + tail.byteLength };
    await store.put(packKey(name), this.#pieces(tail), signal === undefined ? {} : { signal });
    this.written.push(pack);
    this.#entries = [];
    this.#length = 0;
    await onPack?.(pack);
  }

  #append(stored: Uint8Array): void {
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

  /** In pieces, so that a store which writes in place lets others have the thread now and then. */
  async *#pieces(tail: Uint8Array): AsyncIterable<Uint8Array> {
    for (let at = 0; at < this.#length; at += BLOCK_BYTES) {
      yield this.#blocks[at / BLOCK_BYTES]!.subarray(0, this.#length - at);
      await new Promise(setImmediate);
    }
    yield tail;
  }
}
