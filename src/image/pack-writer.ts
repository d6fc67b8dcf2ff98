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
import { CollectedBody, type PackBody, StreamedBody } from "./pack-body.ts";

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
  /**
   * What is added need not be copied where the store can do without: it stays as it is until the next `flush` has been
   * waited for.
   */
  readonly isStable?: boolean;
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
  readonly #options: PackWriterOptions;
  readonly #packBytes: number;
  readonly #body: PackBody;
  /** Packs go into the store while the next ones are being made. */
  readonly #isStreamed: boolean;
  #entries: PackEntry[] = [];
  /** Bytes of content in the pack that is being made. */
  #length = 0;
  /** Rejects when a pack has not come into the store. */
  #arriving: Promise<unknown> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;
  /** In the order of their numbers; until `finish` the last ones may still be on their way. */
  readonly written: WrittenPack[] = [];

  constructor(store: ObjectStore, options: PackWriterOptions = {}) {
    this.#options = options;
    this.#packBytes = options.packBytes ?? PACK_BYTES;
    this.#isStreamed = options.isStable === true && store.begin !== undefined;
    // Any name does: what is begun has none yet.
    const begin = () => store.begin!(packKey("unfinished"));
    this.#body = this.#isStreamed ? new StreamedBody(begin) : new CollectedBody(store);
  }

  get writtenBytes(): number {
    return this.written.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** Adds `stored`: a copy, unless it is stable. */
  async add(stored: Uint8Array, content: NewContent): Promise<Placed> {
    if (this.#failure !== undefined) throw this.#failure.error;
    const isFull = this.#entries.length >= (this.#options.packEntries ?? PACK_ENTRIES_MAX);
    if (isFull || (this.#length > 0 && this.#length + stored.byteLength > this.#packBytes))
      await this.#endPack();
    const offset = this.#length;
    const check = new Uint8Array(checkOf(stored, content));
    this.#entries.push({
      ...content,
      hash: new Uint8Array(content.hash),
      check,
      storedBytes: stored.byteLength,
      offset,
    });
    this.#body.append(stored);
    this.#length += stored.byteLength;
    return { pack: this.written.length, offset };
  }

  /** Resolves when what has been added may change. */
  flush(): Promise<void> {
    return this.#noted(this.#body.flush());
  }

  /** Puts what has been collected into the store. Nothing collected: nothing happens. */
  async finish(): Promise<void> {
    await this.#endPack();
    await this.#arriving;
  }

  /** Waits for what is on its way, well or not, and gives up the rest. */
  async discard(): Promise<void> {
    await this.#arriving.catch(() => {});
    await this.#body.discard();
  }

  async #endPack(): Promise<void> {
    if (this.#entries.length === 0) return;
    const { nonce = randomNonce, signal, onPack } = this.#options;
    const { name, tail } = encodePackTail(this.#entries, nonce());
    const pack = { name, byteLength: this.#length + tail.byteLength };
    const put = this.#body.finish(packKey(name), tail, signal);
    if (!this.#isStreamed) await put;
    this.written.push(pack);
    this.#entries = [];
    this.#length = 0;
    const arrived = this.#noted(put.then(() => onPack?.(pack)));
    if (this.#isStreamed) this.#arriving = this.#noted(Promise.all([this.#arriving, arrived]));
    else await arrived;
  }

  /** Remembers a failure for those who add something later; whoever waits for the promise still gets it. */
  #noted<T>(promise: Promise<T>): Promise<T> {
    promise.catch((error: unknown) => {
      this.#failure ??= { error };
    });
    return promise;
  }
}
