// What of each pack is still needed: all indexes of a store are walked, and each piece that one of them names is marked.
//
//   pack   │ chunk ▓│ chunk ░│ chunk ░│ index page ▓│ attachment ▓│      ▓ some image refers to it     ░ garbage
//
// A pack that images list and none takes anything from is there as well, with nothing marked: a child lists all the
// packs of its parent.

import { MinorfaultError } from "../base/errors.ts";
import type { IndexNode } from "./index-node.ts";
import { PAGE_CHUNKS } from "./limits.ts";
import type { OpenedImage } from "./open-image.ts";
import type { PackReader } from "./pack-reader.ts";

/** Where a piece is said to lie. */
export interface Piece {
  readonly offset: number;
  readonly storedBytes: number;
}

export class PackUse {
  readonly name: string;
  /** Of its content, without the table. */
  readonly contentBytes: number;
  /** Of each entry of its table, ascending. */
  readonly offsets: Uint32Array;
  readonly isLive: Uint8Array;
  readonly #ends: Uint32Array;
  liveBytes = 0;
  /** Somebody names a piece that the table does not have: such a pack is better left alone. */
  isStrange = false;

  constructor(name: string, entries: readonly Piece[]) {
    this.name = name;
    this.offsets = Uint32Array.from(entries, ({ offset }) => offset);
    this.#ends = Uint32Array.from(entries, ({ offset, storedBytes }) => offset + storedBytes);
    this.isLive = new Uint8Array(entries.length);
    this.contentBytes = this.#ends.at(-1) ?? 0;
  }

  mark({ offset, storedBytes }: Piece): void {
    const entry = this.entryAt(offset);
    if (entry === -1 || this.#ends[entry] !== offset + storedBytes) this.isStrange = true;
    else if (this.isLive[entry] === 0) {
      this.isLive[entry] = 1;
      this.liveBytes += storedBytes;
    }
  }

  /** The number of the entry that begins at an offset, or -1. */
  entryAt(offset: number): number {
    let [low, high] = [0, this.offsets.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.offsets[middle]! < offset) low = middle + 1;
      else high = middle;
    }
    return this.offsets[low] === offset ? low : -1;
  }
}

export class PackUsage {
  /** Packs from which at least one image takes something; undefined where its table can't be read. */
  readonly uses: Map<string, PackUse | undefined> = new Map();
  /** All packs that roots list. */
  readonly listed: Set<string> = new Set();
  readonly #reader: PackReader;
  /** Index pages that have been walked, by hash: the packs that their numbers meant. Children share most of theirs. */
  readonly #walked = new Map<string, ReadonlyMap<number, string>>();

  constructor(reader: PackReader) {
    this.#reader = reader;
  }

  /** Marks everything that an image needs. Throws what its index has to say. */
  async add(image: OpenedImage, signal?: AbortSignal): Promise<void> {
    for (const { pack, offset, storedBytes } of image.manifest.attachments) {
      (await this.#use(pack, signal))?.mark({ offset, storedBytes });
    }
    for (const pack of image.index.root.packs.names()) this.listed.add(pack);
    await this.#walk(image, signal);
  }

  async #walk(image: OpenedImage, signal?: AbortSignal): Promise<void> {
    const { node, packs } = image.index.root;
    for (let page = 0; page < node.capacity; page++) {
      const record = node.get(page);
      if (record === undefined) continue;
      signal?.throwIfAborted();
      (await this.#use(packs.name(record.pack), signal))?.mark(record);
      const hash = Buffer.from(record.hash).toString("latin1");
      const before = this.#walked.get(hash);
      if (before !== undefined && [...before].every(([pack, name]) => isPack(image, pack, name))) continue;
      const loaded = await image.index.page(page, signal);
      if (loaded === undefined) continue;
      this.#walked.set(hash, await this.#walkPage(image, loaded, signal));
    }
  }

  async #walkPage(image: OpenedImage, page: IndexNode, signal?: AbortSignal): Promise<Map<number, string>> {
    const names = new Map<number, string>();
    const uses = new Map<number, PackUse | undefined>();
    for (let place = 0; place < PAGE_CHUNKS && place < page.capacity; place++) {
      const record = page.get(place);
      if (record === undefined) continue;
      if (!names.has(record.pack)) {
        const name = image.index.root.packs.name(record.pack);
        names.set(record.pack, name);
        uses.set(record.pack, await this.#use(name, signal));
      }
      uses.get(record.pack)?.mark(record);
    }
    return names;
  }

  async #use(pack: string, signal?: AbortSignal): Promise<PackUse | undefined> {
    if (!this.uses.has(pack)) {
      const table = await this.#reader.table(pack, signal).catch((error: unknown) => {
        if (error instanceof MinorfaultError && error.kind === "source") return undefined;
        throw error;
      });
      this.uses.set(pack, table && new PackUse(pack, table.entries));
    }
    return this.uses.get(pack);
  }
}

function isPack(image: OpenedImage, pack: number, name: string): boolean {
  const { packs } = image.index.root;
  return pack < packs.count && packs.name(pack) === name;
}
