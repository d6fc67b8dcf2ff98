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
  #data = new Uint8Array(0);
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
    this.#reserve(stored.byteLength);
    this.#data.set(stored, this.#length);
    const offset = this.#length;
    const check = new Uint8Array(checkOf(stored, content));
    this.#entries.push({
      ...content,
      hash: new Uint8Array(content.hash),
      check,
      storedBytes: stored.byteLength,
      offset,
    });
    this.#length += stored.byteLength;
    return { pack: this.written.length, offset };
  }

  /** Puts what has been collected into the store. Nothing collected: nothing happens. */
  async finish(): Promise<void> {
    if (this.#entries.length === 0) return;
    const { store, nonce, signal, onPack } = { store: this.#store, nonce: randomNonce, ...this.#options };
    const { name, tail } = encodePackTail(this.#entries, nonce());
    const pieces = [this.#data.subarray(0, this.#length), tail];
    const pack = { name, byteLength: this.#length + tail.byteLength };
    await store.put(packKey(name), inPieces(pieces), signal === undefined ? {} : { signal });
    this.written.push(pack);
    this.#entries = [];
    this.#length = 0;
    await onPack?.(pack);
  }

  #reserve(byteLength: number): void {
    const needed = this.#length + byteLength;
    if (needed <= this.#data.byteLength) return;
    const grown = new Uint8Array(
      Math.max(needed, Math.min(this.#packBytes, 2 * this.#data.byteLength), 65536),
    );
    grown.set(this.#data.subarray(0, this.#length));
    this.#data = grown;
  }
}

const PIECE_BYTES = 4 * 2 ** 20;

/** So that a store which writes in place lets others have the thread now and then. */
async function* inPieces(parts: readonly Uint8Array[]): AsyncIterable<Uint8Array> {
  for (const part of parts) {
    for (let at = 0; at < part.byteLength; at += PIECE_BYTES) {
      yield part.subarray(at, at + PIECE_BYTES);
      await new Promise(setImmediate);
    }
  }
}
