// Rewrites packs that are mostly garbage: what is needed of them goes into new packs, and every image that has lain
// there is told so. What images hold stays the same, byte by byte; their manifests, and so their digests, change.
//
//   packs that are mostly garbage ──▶ new packs ──▶ index pages ──▶ image by image: root, manifest
//
// LAW 1  Content first, manifests last, each replaced as a whole: after a crash each image is as it was, or moved.
// LAW 2  Nothing is deleted that anybody has referred to. The old packs are prune's, with its grace: so whoever has an
//        image open goes on reading.
// LAW 3  What is moved was verified. A pack with anything wrong in it stays where it is.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { checkPacks, RECHECK_MS } from "./check-packs.ts";
import { badImage } from "./content.ts";
import { sha256, toHex } from "./hash.ts";
import { encodeNode, type IndexRecord } from "./index-node.ts";
import { listImages } from "./list-images.ts";
import { encodeManifest } from "./manifest.ts";
import { manifestKey, PACKS, packKey, packOfKey } from "./names.ts";
import { loadManifest, type OpenedImage, openImageIn } from "./open-image.ts";
import { PackMover } from "./pack-mover.ts";
import { PackReader } from "./pack-reader.ts";
import { PackUsage, type PackUse } from "./pack-usage.ts";
import { PackWriter, type WrittenPack } from "./pack-writer.ts";
import { encodeRoot } from "./root.ts";

/** A pack is rewritten when less than this part of it is needed. */
const NEEDED_PART_MIN = 0.5;
/** LIMIT: needed bytes of a pack that is rewritten, held in memory. Our writers make packs of 32 MiB. */
const MOVED_BYTES_MAX = 256 * 2 ** 20;
/** LIMIT: images whose new index is in memory until the pack with their index pages is finished. */
const BATCH_IMAGES = 64;

export interface RepackOptions {
  /** Only says what it would do. */
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
}

export interface RepackReport {
  /** Packs that were mostly garbage, and are not needed any more. */
  readonly packs: number;
  readonly packBytes: number;
  /** What of them was needed, and lies elsewhere now. */
  readonly movedBytes: number;
  /** All that was written: moved content, index pages and roots. */
  readonly writtenBytes: number;
  /** Images whose manifests were replaced. */
  readonly images: number;
  /** What stays as it is: packs with something wrong in them, images that were replaced meanwhile. */
  readonly left: readonly { readonly what: string; readonly why: string }[];
}

export async function repackStore(store: ObjectStore, options: RepackOptions = {}): Promise<RepackReport> {
  const reader = new PackReader(store);
  try {
    return await new Repacking(store, reader, options).run();
  } finally {
    await reader.close();
  }
}

/** An image's new index, until the packs that it lies in have their names. */
interface NewIndex {
  readonly name: string;
  /** Of the manifest that it was made from. */
  readonly digest: string;
  readonly chunkBytes: number;
  readonly chunks: number;
  readonly packs: readonly string[];
  readonly pages: readonly (IndexRecord | NewPage | undefined)[];
}

/** An index page in a pack of the page writer. */
interface NewPage {
  readonly hash: Uint8Array;
  readonly written: number;
  readonly offset: number;
  readonly storedBytes: number;
}

class Repacking {
  readonly #store: ObjectStore;
  readonly #reader: PackReader;
  readonly #options: RepackOptions;
  readonly #usage: PackUsage;
  /** By name: the digest that an image had when its index was walked. */
  readonly #images = new Map<string, string>();
  readonly #pages: PackWriter;
  readonly #newPages = new Map<string, NewPage>();
  readonly #written: WrittenPack[] = [];
  readonly #left: { what: string; why: string }[] = [];
  #began = performance.now();
  #mayBeReferredTo = false;

  constructor(store: ObjectStore, reader: PackReader, options: RepackOptions) {
    this.#store = store;
    this.#reader = reader;
    this.#options = options;
    this.#usage = new PackUsage(reader);
    this.#pages = this.#writer();
  }

  async run(): Promise<RepackReport> {
    await this.#look();
    const due = [...this.#usage.uses.values()].filter((use) => use !== undefined && isDue(use)) as PackUse[];
    const dropped = [...this.#usage.listed].filter((pack) => !this.#usage.uses.has(pack));
    const names = new Set([...due.map(({ name }) => name), ...dropped]);
    const packBytes = await this.#bytesOf(names);
    const movedBytes = due.reduce((sum, { liveBytes }) => sum + liveBytes, 0);
    const planned = {
      packs: names.size,
      packBytes,
      movedBytes,
      writtenBytes: 0,
      images: 0,
      left: this.#left,
    };
    if (names.size === 0) return planned;
    if (this.#options.dryRun) return { ...planned, images: await this.#countUsers(names) };
    try {
      return await this.#repack(due, dropped);
    } catch (error) {
      if (!this.#mayBeReferredTo) {
        for (const { name } of this.#written) await this.#store.delete(packKey(name)).catch(() => {});
      }
      throw error;
    }
  }

  /** Walks the index of every image; all have to be readable, or what is garbage is not known. */
  async #look(): Promise<void> {
    const { signal } = this.#options;
    for await (const { name, problem } of listImages(this.#store, signal)) {
      if (problem !== undefined) {
        throw badImage(
          `What ${name} refers to is not known, so nothing can be moved: ${problem.message}`,
          problem,
        );
      }
      const image = await openImageIn(this.#store, name, signal && { signal });
      try {
        await this.#usage.add(image, signal);
        this.#images.set(name, image.digest);
      } finally {
        await image.close();
      }
    }
  }

  async #bytesOf(packs: ReadonlySet<string>): Promise<number> {
    let bytes = 0;
    for await (const { key, byteLength } of this.#store.list(PACKS, this.#options.signal)) {
      if (packs.has(packOfKey(key) ?? "")) bytes += byteLength;
    }
    return bytes;
  }

  async #countUsers(packs: ReadonlySet<string>): Promise<number> {
    let count = 0;
    for (const name of this.#images.keys()) {
      const image = await openImageIn(this.#store, name);
      if (usesAny(image, packs)) count++;
      await image.close();
    }
    return count;
  }

  async #repack(due: readonly PackUse[], dropped: readonly string[]): Promise<RepackReport> {
    const moved = this.#writer(Number.MAX_SAFE_INTEGER);
    const mover = new PackMover(this.#reader, moved, dropped);
    const movedBytes = await this.#move(mover, due);
    const images = await this.#tellImages(mover);
    const gone = mover.gone();
    return {
      packs: gone.size,
      packBytes: await this.#bytesOf(gone),
      movedBytes,
      writtenBytes: this.#written.reduce((sum, { byteLength }) => sum + byteLength, 0),
      images,
      left: this.#left,
    };
  }

  async #move(mover: PackMover, due: readonly PackUse[]): Promise<number> {
    const { signal, onProgress } = this.#options;
    const totalBytes = due.reduce((sum, { liveBytes }) => sum + liveBytes, 0);
    let [doneBytes, movedBytes] = [0, 0];
    for (const use of due) {
      signal?.throwIfAborted();
      try {
        await mover.move(use, signal);
        movedBytes += use.liveBytes;
      } catch (error) {
        if (!(error instanceof MinorfaultError) || error.kind !== "source") throw error;
        this.#left.push({ what: `pack ${use.name}`, why: error.message });
      }
      doneBytes += use.liveBytes;
      onProgress?.({ doneBytes, totalBytes });
    }
    await mover.finish();
    return movedBytes;
  }

  /** Gives each image its new index; answers how many. */
  async #tellImages(mover: PackMover): Promise<number> {
    const gone = mover.gone();
    const names = [...this.#images.keys()];
    let count = 0;
    for (let at = 0; at < names.length; at += BATCH_IMAGES) {
      const batch: NewIndex[] = [];
      for (const name of names.slice(at, at + BATCH_IMAGES)) {
        const index = await this.#newIndex(name, mover, gone);
        if (index !== undefined) batch.push(index);
      }
      await this.#pages.finish();
      await this.#recheck();
      for (const index of batch) if (await this.#publish(index, mover)) count++;
    }
    return count;
  }

  /** Undefined where nothing of an image has moved, or it is another one by now. */
  async #newIndex(name: string, mover: PackMover, gone: ReadonlySet<string>): Promise<NewIndex | undefined> {
    const { signal } = this.#options;
    const digest = this.#images.get(name)!;
    const now = await this.#loadSame(name, digest);
    if (now === undefined) return undefined;
    const image = await openImageIn(this.#store, name, { digest, ...(signal && { signal }) });
    try {
      if (!usesAny(image, gone)) return undefined;
      const { root } = image.index;
      const { packs, numbers } = mover.mapped(root.packs.names());
      const pages: NewIndex["pages"][number][] = [];
      for (let page = 0; page < root.node.capacity; page++) {
        signal?.throwIfAborted();
        pages.push(await this.#newPage(image, page, mover, numbers));
      }
      return { name, digest, chunkBytes: root.chunkBytes, chunks: root.chunks, packs, pages };
    } finally {
      await image.close();
    }
  }

  async #newPage(
    image: OpenedImage,
    page: number,
    mover: PackMover,
    numbers: readonly (number | undefined)[],
  ): Promise<IndexRecord | NewPage | undefined> {
    const { root } = image.index;
    const before = root.node.get(page);
    const node = await image.index.page(page, this.#options.signal);
    if (before === undefined || node === undefined) return undefined;
    const records = node
      .toRecords()
      .map((record) => record && mover.translated(record, root.packs.name(record.pack), numbers));
    const bytes = encodeNode(records);
    const hash = sha256(bytes);
    const isSame = Buffer.compare(hash, before.hash) === 0;
    const number = numbers[before.pack];
    if (isSame && number !== undefined && !mover.gone().has(root.packs.name(before.pack))) {
      return { ...before, pack: number };
    }
    return this.#storePage(hash, bytes);
  }

  async #storePage(hash: Uint8Array, bytes: Uint8Array): Promise<NewPage> {
    const key = toHex(hash);
    const found = this.#newPages.get(key);
    if (found !== undefined) return found;
    const content = { hash, encoding: "raw", contentBytes: bytes.byteLength, kind: "index page" } as const;
    const { pack: written, offset } = await this.#pages.add(bytes, content);
    const stored = { hash, written, offset, storedBytes: bytes.byteLength };
    this.#newPages.set(key, stored);
    return stored;
  }

  /** Root and manifest; false where the image is another one by now. */
  async #publish(index: NewIndex, mover: PackMover): Promise<boolean> {
    const { name, digest, chunkBytes, chunks } = index;
    const packs = [...index.packs];
    const pages = index.pages.map((page) => {
      if (page === undefined || "check" in page) return page;
      const { hash, offset, storedBytes } = page;
      const pack = this.#pages.written[page.written]!.name;
      const number = packs.includes(pack) ? packs.indexOf(pack) : packs.push(pack) - 1;
      return { hash, check: hash, pack: number, offset, storedBytes, encoding: "raw" } as const;
    });
    const root = encodeRoot(chunkBytes, chunks, pages, packs);
    const hash = sha256(root);
    const writer = this.#writer();
    await writer.add(root, { hash, encoding: "raw", contentBytes: root.byteLength, kind: "root" });
    await writer.finish();
    const [{ name: pack, byteLength: packBytes }] = writer.written as [WrittenPack];
    this.#options.signal?.throwIfAborted();
    const manifest = await this.#loadSame(name, digest);
    if (manifest === undefined) return false;
    this.#mayBeReferredTo = true;
    await this.#store.put(
      manifestKey(name),
      encodeManifest({
        ...manifest,
        root: { pack, packBytes, sha256: toHex(hash) },
        attachments: manifest.attachments.map((entry) => mover.place(entry)),
      }),
    );
    return true;
  }

  /** The manifest of an image, if it is still the one with that digest. */
  async #loadSame(name: string, digest: string) {
    try {
      const now = await loadManifest(this.#store, name);
      if (now.digest === digest) return now.manifest;
    } catch (error) {
      if (!(error instanceof MinorfaultError) || error.code !== "ERR_SOURCE_MISSING") throw error;
    }
    this.#left.push({ what: `image ${name}`, why: "it was replaced or removed meanwhile" });
    return undefined;
  }

  /** That nobody has taken away what is about to be referred to. */
  async #recheck(): Promise<void> {
    if (performance.now() - this.#began < RECHECK_MS) return;
    this.#began = performance.now();
    const packs = this.#written.map(({ name }) => name);
    await checkPacks(this.#store, packs, this.#options.signal);
  }

  #writer(packBytes?: number): PackWriter {
    return new PackWriter(this.#store, {
      ...(packBytes !== undefined && { packBytes }),
      onPack: (pack) => {
        this.#written.push(pack);
      },
    });
  }
}

function isDue({ isStrange, liveBytes, contentBytes }: PackUse): boolean {
  return !isStrange && liveBytes < contentBytes * NEEDED_PART_MIN && liveBytes <= MOVED_BYTES_MAX;
}

function usesAny({ index, manifest }: OpenedImage, packs: ReadonlySet<string>): boolean {
  const isIn = ({ pack }: { readonly pack: string }): boolean => packs.has(pack);
  return index.root.packs.names().some((pack) => packs.has(pack)) || manifest.attachments.some(isIn);
}
