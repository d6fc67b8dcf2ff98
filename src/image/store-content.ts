// What a store has already, so that equal chunks are stored once: the tables of all packs that images refer to.
//
// Only of those: a pack that nobody refers to may be another builder's, who may yet fail and take it away, or be
// about to be deleted. A pack that can't be read is left out; a damaged one must not keep new images from being made.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { DEDUP_ENTRIES_MAX, DedupTable } from "./dedup.ts";
import { imageOfKey, MANIFESTS } from "./names.ts";
import { loadManifest, loadRoot } from "./open-image.ts";
import type { PackTable } from "./pack.ts";
import { PackReader } from "./pack-reader.ts";

/** LIMIT: tables of packs that are being read at once. */
const READS_MAX = 8;

export class StoreContent {
  readonly table: DedupTable = new DedupTable();
  /** Packs that entries of the table mean. */
  readonly packs: string[] = [];
  readonly #numbers = new Map<string, number>();

  /** The number of a pack in `packs`, which it joins if it is new. */
  number(pack: string): number {
    const found = this.#numbers.get(pack);
    if (found !== undefined) return found;
    this.#numbers.set(pack, this.packs.length);
    return this.packs.push(pack) - 1;
  }

  add(packTable: PackTable): void {
    const { table } = this;
    const { bytes, count } = packTable;
    const pack = this.number(packTable.name);
    for (let index = 0; index < count; index++) {
      const { kind, offset, storedBytes, encoding } = packTable.place(index);
      if (kind !== "chunk" && kind !== "index page") continue;
      if (table.find(bytes, packTable.hashAt(index)) !== -1) continue;
      const entry = table.add(bytes, packTable.hashAt(index));
      if (entry === -1) return;
      table.place(entry, { pack, offset, storedBytes, encoding }, bytes, packTable.checkAt(index));
    }
  }
}

/** Adds the content of packs, as far as there is room. */
export async function addPacks(
  content: StoreContent,
  reader: PackReader,
  packs: Iterable<string>,
  signal?: AbortSignal,
): Promise<void> {
  const waiting = [...packs];
  const next = async (): Promise<void> => {
    for (let pack = waiting.shift(); pack !== undefined; pack = waiting.shift()) {
      if (content.table.count >= DEDUP_ENTRIES_MAX) return;
      const table = await readable(reader.table(pack, signal));
      if (table !== undefined) content.add(table);
    }
  };
  await Promise.all(Array.from({ length: READS_MAX }, next));
}

/** All packs with chunks that the images of a store refer to. */
export async function livePacks(store: ObjectStore, signal?: AbortSignal): Promise<Set<string>> {
  const live = new Set<string>();
  const reader = new PackReader(store);
  try {
    for await (const { key } of store.list(MANIFESTS, signal)) {
      const name = imageOfKey(key);
      const loaded = name === undefined ? undefined : await readable(loadManifest(store, name, signal));
      const root = loaded && (await readable(loadRoot(reader, loaded.manifest, signal)));
      for (const pack of root?.packs.names() ?? []) live.add(pack);
    }
  } finally {
    await reader.close();
  }
  return live;
}

/** What can't be read because it is damaged, gone or made by a newer version is left out. */
async function readable<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof MinorfaultError && error.kind === "source") return undefined;
    throw error;
  }
}
