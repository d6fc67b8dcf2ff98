// An image to rehearse with, in memory, or in files that lie nowhere.

import { writeSync } from "node:fs";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { Random } from "../../base/random.ts";
import { addWorkingSet, buildImage, OpenedImage } from "../../image/index.ts";
import { close, local, memfd } from "../../linux/index.ts";
import {
  FileSource,
  type ListedObject,
  MemorySource,
  type ObjectStore,
  type PageSource,
} from "../../source/index.ts";
import { MemoryStore } from "../../source/memory-store.ts";
import { ImageUnits, type UnitReader } from "./opened-source.ts";

export const REHEARSAL = "rehearsal";
export const UNIT_BYTES = 64 * 1024;
export const UNITS = 8;
const UNIT_SET_PAGES = 12;

export interface RehearsalImage {
  readonly codec: "zstd" | "none";
  readonly chunkBytes?: number;
  readonly units?: number;
}

export async function rehearsalStore({
  codec,
  chunkBytes = UNIT_BYTES,
  units = UNITS,
}: RehearsalImage): Promise<MemoryStore> {
  const store = MemoryStore.empty();
  const random = new Random(1);
  const byteLength = units * UNIT_BYTES;
  // Half of each page is what it was before: something for zstd to find.
  const words = Uint32Array.from({ length: byteLength / 4 }, (_, at) => (at & 512 ? random.uint32() : 1));
  const regions = [{ name: REHEARSAL, source: new MemorySource(new Uint8Array(words.buffer)) }];
  await buildImage(store, REHEARSAL, { regions, codec, level: 1, chunkBytes, dedup: "image" });
  const set = random.sample(units * UNIT_SET_PAGES, byteLength / PAGE_SIZE);
  await addWorkingSet(
    store,
    REHEARSAL,
    REHEARSAL,
    Array.from(set, (page) => page * PAGE_SIZE),
  );
  return store;
}

/** What is in a store, as files that lie nowhere: read by the code that reads a folder's. */
export class RehearsalFiles implements ObjectStore {
  readonly url: string;
  readonly #store: MemoryStore;
  readonly #files = new Map<string, number>();

  private constructor(store: MemoryStore) {
    this.#store = store;
    this.url = store.url;
  }

  static async of(store: MemoryStore): Promise<RehearsalFiles> {
    const files = new RehearsalFiles(store);
    for await (const { key, byteLength } of store.list("")) {
      const fd = memfd(local, REHEARSAL, byteLength);
      files.#files.set(key, fd);
      writeSync(fd, await store.get(key, byteLength));
    }
    return files;
  }

  /** Opens its image, as a thread does that serves. */
  openUnits(): UnitReader | undefined {
    const image = OpenedImage.openSync(this, REHEARSAL);
    return image && new ImageUnits(image, this, UNIT_BYTES);
  }

  openSync(key: string): PageSource {
    return FileSource.open(`/proc/self/fd/${this.#files.get(key)}`, key);
  }

  async open(key: string): Promise<PageSource> {
    return this.openSync(key);
  }

  get(key: string, bytesMax: number): Promise<Uint8Array> {
    return this.#store.get(key, bytesMax);
  }

  put(key: string, bytes: Uint8Array): Promise<void> {
    return this.#store.put(key, bytes);
  }

  list(prefix: string): AsyncIterable<ListedObject> {
    return this.#store.list(prefix);
  }

  delete(key: string): Promise<void> {
    return this.#store.delete(key);
  }

  async close(): Promise<void> {}

  /** Its files are gone. */
  end(): void {
    for (const fd of this.#files.values()) close(local, fd);
    this.#files.clear();
  }
}
