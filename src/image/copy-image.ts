// Copies an image from one store to another: push, pull, and a copy within a store.
//
// It is a build whose chunks come from another image as they are stored: compressed already, verified before they
// are stored again. What the other store has is not moved. Packs that have been brought are noted (partial.ts), so
// that a copy which was interrupted, however that was, goes on with what is missing.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { Builder, type Decision } from "./builder.ts";
import { contentOf } from "./content.ts";
import { sha256, toHex } from "./hash.ts";
import {
  encodeManifest,
  type Manifest,
  type ManifestAttachment,
  type ManifestWorkingSet,
  manifestDigest,
} from "./manifest.ts";
import { checkName, manifestKey } from "./names.ts";
import { type OpenedImage, openImageIn } from "./open-image.ts";
import { PackReader } from "./pack-reader.ts";
import { PackWriter, type WrittenPack } from "./pack-writer.ts";
import { partialKey, readPartial, writePartial } from "./partial.ts";
import { encodeRoot } from "./root.ts";
import { addPacks, livePacks, StoreContent } from "./store-content.ts";
import { type ChunkRecord, groupsOf, readGroup, recordsOf } from "./walk.ts";

/** LIMIT: chunks that are decided on before the missing ones are read. */
const WINDOW_CHUNKS = 1024;

export interface CopyOptions {
  /** The name in the other store; default the same. */
  readonly as?: string;
  /** Refuse with ERR_STORE_EXISTS where the name is taken by another image. Default: replace. */
  readonly ifAbsent?: boolean;
  /** SHA-256 that the manifest must have. */
  readonly digest?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: CopyProgress) => void;
}

export interface CopyProgress {
  /** Of what was missing, as it is stored. */
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface CopyReport {
  readonly manifest: Manifest;
  readonly digest: string;
  readonly chunks: { readonly known: number; readonly moved: number };
  readonly movedBytes: number;
  /** Packs that an interrupted copy had brought before. */
  readonly resumedPacks: number;
  readonly ms: number;
}

export async function copyImage(
  from: ObjectStore,
  name: string,
  to: ObjectStore,
  options: CopyOptions = {},
): Promise<CopyReport> {
  const { digest, signal } = options;
  checkName("an image", options.as ?? name);
  const image = await openImageIn(from, name, { ...(digest && { digest }), ...(signal && { signal }) });
  try {
    return await new Copy(image, to, options).run();
  } finally {
    await image.close();
  }
}

class Copy {
  readonly #image: OpenedImage;
  readonly #to: ObjectStore;
  readonly #name: string;
  readonly #options: CopyOptions;
  readonly #began = performance.now();
  readonly #content = new StoreContent();
  readonly #brought: string[] = [];
  #resumed = 0;
  #movedBytes = 0;

  constructor(image: OpenedImage, to: ObjectStore, options: CopyOptions) {
    this.#image = image;
    this.#to = to;
    this.#name = options.as ?? image.manifest.name;
    this.#options = options;
  }

  async run(): Promise<CopyReport> {
    await this.#look();
    const { chunks, chunkBytes } = this.#image.index.root;
    const onPack = (pack: WrittenPack) => this.#note(pack);
    // Without a signal: what has been collected when one comes is still brought to its end.
    const builder = new Builder(this.#to, this.#content, chunks, undefined, { onPack });
    try {
      await this.#chunks(builder);
    } catch (error) {
      await builder.writer.finish().catch(() => {});
      throw error;
    }
    const attachments = await this.#attachments(builder.writer);
    await builder.index.finish();
    await builder.writer.finish();
    const workingSets: ManifestWorkingSet[] = [];
    for (const set of this.#image.manifest.workingSets) workingSets.push(await this.#workingSet(set, onPack));
    const bytes = encodeRoot(chunkBytes, chunks, builder.index.pages, builder.packNames());
    const root = await this.#root(bytes, onPack);
    const manifest = {
      ...this.#image.manifest,
      name: this.#name,
      root,
      attachments: attachments(),
      workingSets,
    };
    return this.#publish(manifest, builder);
  }

  async #publish(manifest: Manifest, builder: Builder): Promise<CopyReport> {
    const { ifAbsent = false, signal } = this.#options;
    signal?.throwIfAborted();
    const bytes = encodeManifest(manifest);
    await this.#to.put(manifestKey(this.#name), bytes, { ifAbsent });
    await this.#to.delete(partialKey(this.#name));
    return {
      manifest,
      digest: manifestDigest(bytes),
      chunks: { known: builder.counts.known, moved: builder.counts.stored },
      movedBytes: this.#movedBytes,
      resumedPacks: this.#resumed,
      ms: performance.now() - this.#began,
    };
  }

  /** What the other store has, an interrupted copy's packs with it. */
  async #look(): Promise<void> {
    const { signal } = this.#options;
    const packs = await livePacks(this.#to, signal);
    const there = new Set<string>();
    for await (const { key } of this.#to.list("packs/", signal)) there.add(key.slice("packs/".length));
    for await (const { key } of this.#to.list(partialKey(this.#name), signal)) {
      const partial = await readPartial(this.#to, key, signal);
      for (const pack of partial?.packs ?? []) {
        if (!there.has(pack)) continue;
        this.#brought.push(pack);
        packs.add(pack);
      }
    }
    this.#resumed = this.#brought.length;
    const reader = new PackReader(this.#to);
    try {
      await addPacks(this.#content, reader, packs, signal);
    } finally {
      await reader.close();
    }
  }

  async #note(pack: WrittenPack): Promise<void> {
    this.#brought.push(pack.name);
    await writePartial(this.#to, this.#name, { time: Date.now(), packs: this.#brought });
  }

  async #chunks(builder: Builder): Promise<void> {
    const { signal, onProgress } = this.#options;
    let totalBytes = 0;
    for await (const { record } of recordsOf(this.#image, signal)) {
      if (this.#content.table.find(record.hash) === -1) totalBytes += record.storedBytes;
    }
    let window: ChunkRecord[] = [];
    const flush = async (): Promise<void> => {
      await this.#window(builder, window, () => onProgress?.({ doneBytes: this.#movedBytes, totalBytes }));
      window = [];
    };
    for await (const record of recordsOf(this.#image, signal)) {
      window.push(record);
      if (window.length === WINDOW_CHUNKS) await flush();
    }
    await flush();
    signal?.throwIfAborted();
  }

  /** Decides on all chunks of the window, then settles them in order, reading those that are missing in groups. */
  async #window(builder: Builder, window: readonly ChunkRecord[], onGroup: () => void): Promise<void> {
    const { signal } = this.#options;
    const { chunkBytes, name } = this.#image;
    const decisions = new Map<number, Decision>();
    for (const { chunk, record } of window) decisions.set(chunk, builder.decideHash(record.hash));
    const missing = window.filter(({ chunk }) => decisions.get(chunk)?.what === "new");
    const groups = groupsOf(missing);
    let stored = new Map<number, Uint8Array>();
    for (const { chunk, record } of window) {
      signal?.throwIfAborted();
      const decision = decisions.get(chunk)!;
      if (decision.what === "new" && !stored.has(chunk)) {
        const { value: group = [] } = await groups.next();
        const read = await readGroup(this.#image, group as readonly ChunkRecord[], signal);
        stored = new Map(read.map((each) => [each.chunk, each.stored]));
        onGroup();
      }
      await builder.settle(chunk, decision, record.hash, chunkBytes, () => {
        const bytes = stored.get(chunk)!;
        const entry = { ...record, contentBytes: chunkBytes };
        contentOf(bytes, entry, () => `chunk ${chunk} of ${name}`, { both: true });
        this.#movedBytes += bytes.byteLength;
        return { bytes, check: record.check, encoding: record.encoding };
      });
    }
    onGroup();
  }

  async #attachments(writer: PackWriter): Promise<() => ManifestAttachment[]> {
    const places: { readonly entry: ManifestAttachment; readonly number: number; readonly offset: number }[] =
      [];
    for (const entry of this.#image.manifest.attachments) {
      await this.#image.readAttachment(entry.name, this.#options.signal);
      const stored = new Uint8Array(entry.storedBytes);
      await this.#image.packs.read(entry.pack, entry.offset, stored, this.#options.signal);
      const hash = new Uint8Array(Buffer.from(entry.sha256, "hex"));
      const { encoding, byteLength: contentBytes } = entry;
      const placed = await writer.add(stored, { hash, encoding, contentBytes, kind: "attachment" });
      places.push({ entry, number: placed.pack, offset: placed.offset });
    }
    return () =>
      places.map(({ entry, number, offset }) => ({ ...entry, offset, pack: writer.written[number]!.name }));
  }

  /** The same entries in a pack of their own, each verified. */
  async #workingSet(
    set: ManifestWorkingSet,
    onPack: (pack: WrittenPack) => Promise<void>,
  ): Promise<ManifestWorkingSet> {
    const { packs } = this.#image;
    const { signal } = this.#options;
    const table = await packs.table(set.pack, signal);
    const writer = new PackWriter(this.#to, { onPack, packBytes: Number.MAX_SAFE_INTEGER });
    for (const [index, entry] of table.entries.entries()) {
      signal?.throwIfAborted();
      const stored = new Uint8Array(entry.storedBytes);
      await packs.read(set.pack, entry.offset, stored, signal);
      contentOf(stored, entry, () => `entry ${index} of working set ${set.name}`, { both: true });
      await writer.add(stored, entry);
      this.#movedBytes += stored.byteLength;
    }
    await writer.finish();
    const [pack] = writer.written;
    return { ...set, pack: pack!.name, packBytes: pack!.byteLength };
  }

  async #root(bytes: Uint8Array, onPack: (pack: WrittenPack) => Promise<void>): Promise<Manifest["root"]> {
    const writer = new PackWriter(this.#to, { onPack });
    const hash = sha256(bytes);
    await writer.add(bytes, { hash, encoding: "raw", contentBytes: bytes.byteLength, kind: "root" });
    await writer.finish();
    const [pack] = writer.written;
    if (pack === undefined) throw new MinorfaultError("ERR_BUG", "The root index was not written");
    return { pack: pack.name, packBytes: pack.byteLength, sha256: toHex(hash) };
  }
}
