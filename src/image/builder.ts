// What becomes of each chunk: zeros, something stored already, or new content in a pack; and the index that says so.
//
// A chunk is decided on when its hash is known, and settled when all chunks before it have been: so packs lie in the
// order of the chunks, and of two equal chunks that are on their way at once only the first is compressed.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import type { BuildReport } from "./build-options.ts";
import type { Batch, StoredChunk } from "./cruncher.ts";
import { isHashAt } from "./hash.ts";
import { IndexBuilder } from "./index-builder.ts";
import type { IndexRecord } from "./index-node.ts";
import type { IndexReader } from "./index-reader.ts";
import { HASH_BYTES, PACK_BYTES, PACKS_MAX, PAGE_CHUNKS } from "./limits.ts";
import type { PackKind } from "./pack.ts";
import { PackWriter, type PackWriterOptions } from "./pack-writer.ts";
import type { RootIndex } from "./root.ts";
import type { StoreContent } from "./store-content.ts";

/** Up to so many packs are no burden, and up to so many times those that a full image would have. */
const PACKS_SMALL = 64;
const PACKS_FACTOR = 4;

/** What a chunk is: zeros, what the parent has there, what the table has, or new (entry -1: the table is full). */
export type Decision =
  | { readonly what: "zero" }
  | { readonly what: "parent"; readonly record: IndexRecord }
  | { readonly what: "known" | "new"; readonly entry: number };

export class Builder {
  readonly counts: { -readonly [K in keyof BuildReport["chunks"]]: number } = {
    zero: 0,
    known: 0,
    stored: 0,
  };
  readonly writer: PackWriter;
  readonly index: IndexBuilder;
  readonly #content: StoreContent;
  /** The image's packs: numbers of the content's packs, and from `firstNew` on the writer's. */
  readonly #packs: number[] = [];
  readonly #imageNumbers = new Map<number, number>();
  readonly #firstNew: number;
  /** Gives records of the parent the numbers of this image, where those are others. */
  readonly #translate: ((record: IndexRecord) => IndexRecord) | undefined;

  constructor(
    into: ObjectStore,
    content: StoreContent,
    chunks: number,
    parent: IndexReader | undefined,
    options: PackWriterOptions,
  ) {
    this.writer = new PackWriter(into, options);
    this.#content = content;
    const fromParent = (parent?.root.packs.names() ?? []).map((pack) => content.number(pack));
    this.#firstNew = content.packs.length;
    const translate = (record: IndexRecord): IndexRecord => ({
      ...record,
      pack: this.#imageNumber(fromParent[record.pack]!),
    });
    const isLong = parent !== undefined && hasManyPacks(parent.root);
    this.#translate = isLong ? translate : undefined;
    if (!isLong) for (const pack of fromParent) this.#imageNumber(pack);
    const store = (hash: Uint8Array, bytes: Uint8Array) => this.#storePage(hash, bytes);
    this.index = new IndexBuilder(chunks, parent, store, this.#translate);
  }

  /** The names of the image's packs, once the writer has finished. */
  packNames(): string[] {
    const { packs } = this.#content;
    const { written } = this.writer;
    return this.#packs.map((pack) => packs[pack] ?? written[pack - this.#firstNew]!.name);
  }

  /** Whether any of the image's packs was there before. */
  get usesOldPacks(): boolean {
    return this.#packs.some((pack) => pack < this.#firstNew);
  }

  decide(inParent: IndexRecord | undefined, batch: Batch, index: number): Decision {
    if (batch.zeros[index] === 1) return { what: "zero" };
    const at = index * HASH_BYTES;
    if (inParent !== undefined && isHashAt(inParent.hash, batch.hashes, at)) {
      return { what: "parent", record: inParent };
    }
    return this.decideHash(batch.hashes.subarray(at, at + HASH_BYTES));
  }

  decideHash(hash: Uint8Array): Decision {
    const entry = this.#content.table.find(hash);
    if (entry !== -1) return { what: "known", entry };
    return { what: "new", entry: this.#content.table.add(hash) };
  }

  /** Gives a chunk its place; `stored` is called when it is new. */
  async settle(
    chunk: number,
    decision: Decision,
    hash: Uint8Array,
    chunkBytes: number,
    stored: () => StoredChunk,
  ): Promise<void> {
    const record = await this.#recordOf(decision, hash, chunkBytes, stored);
    await this.index.set(chunk, record);
  }

  async #recordOf(
    decision: Decision,
    hash: Uint8Array,
    chunkBytes: number,
    stored: () => StoredChunk,
  ): Promise<IndexRecord | undefined> {
    switch (decision.what) {
      case "zero":
        this.counts.zero++;
        return undefined;
      case "parent":
        this.counts.known++;
        return this.#translate?.(decision.record) ?? decision.record;
      case "known":
        this.counts.known++;
        return this.#known(decision.entry, hash);
      case "new": {
        this.counts.stored++;
        return this.#add(decision.entry, hash, stored(), chunkBytes, "chunk");
      }
    }
  }

  async #storePage(hash: Uint8Array, bytes: Uint8Array): Promise<IndexRecord> {
    const decision = this.decideHash(hash);
    if (decision.what === "known") return this.#known(decision.entry, hash);
    const entry = decision.what === "new" ? decision.entry : -1;
    return this.#add(entry, hash, { bytes, encoding: "raw", check: hash }, bytes.byteLength, "index page");
  }

  #known(entry: number, hash: Uint8Array): IndexRecord {
    const known = this.#content.table.known(entry);
    if (known === undefined)
      throw new MinorfaultError("ERR_BUG", "A chunk is referred to before it is stored");
    return {
      ...known,
      hash: new Uint8Array(hash),
      check: new Uint8Array(known.check),
      pack: this.#imageNumber(known.pack),
    };
  }

  async #add(
    entry: number,
    hash: Uint8Array,
    { bytes, encoding, check }: StoredChunk,
    contentBytes: number,
    kind: PackKind,
  ): Promise<IndexRecord> {
    const own = new Uint8Array(check);
    const placed = await this.writer.add(bytes, { hash, check: own, encoding, contentBytes, kind });
    const pack = this.#firstNew + placed.pack;
    const known = { pack, check: own, offset: placed.offset, storedBytes: bytes.byteLength, encoding };
    if (entry !== -1) this.#content.table.place(entry, known, own);
    return { ...known, hash: new Uint8Array(hash), pack: this.#imageNumber(pack) };
  }

  #imageNumber(pack: number): number {
    const found = this.#imageNumbers.get(pack);
    if (found !== undefined) return found;
    if (this.#packs.length >= PACKS_MAX) {
      throw new MinorfaultError("ERR_LIMIT", `An image refers to at most ${PACKS_MAX} packs`, {
        hint: "Build it without a parent, so that it forgets packs that it does not need",
      });
    }
    this.#imageNumbers.set(pack, this.#packs.length);
    return this.#packs.push(pack) - 1;
  }
}

/**
 * Whether a list of packs has become long by many small children. Then a child gets a list of its own with the packs
 * that it needs, and writes all its index pages anew; so that `prune` can take the others away.
 */
function hasManyPacks({ chunkBytes, node, packs }: RootIndex): boolean {
  const full = (node.occupied * PAGE_CHUNKS * chunkBytes) / PACK_BYTES;
  return packs.count > PACKS_SMALL + PACKS_FACTOR * full;
}
