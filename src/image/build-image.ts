// Builds an image. What is written, in this order: packs with chunks and index pages, a pack with the root index,
// and last the manifest. Until then the image does not exist; at any moment before, a crash leaves the old image, and
// packs that nobody refers to, which `prune` takes away.

import { MinorfaultError } from "../base/errors.ts";
import { LEVEL_DEFAULT } from "../source/codec.ts";
import type { ObjectStore } from "../source/object-store.ts";
import type {
  Attachment,
  BuildEnding,
  BuildOptions,
  BuildRegion,
  BuildReport,
  ReadBuilt,
} from "./build-options.ts";
import { Builder } from "./builder.ts";
import { BuiltChunks } from "./built-chunks.ts";
import { checkPacks, RECHECK_MS } from "./check-packs.ts";
import { type ChunkRun, planChunks } from "./chunk-plan.ts";
import { type Cruncher, openCruncher, smallerOf } from "./cruncher.ts";
import { sha256, toHex } from "./hash.ts";
import { type Dropped, inheritedAttachments, inheritedWorkingSets } from "./inherit.ts";
import { layOut, type RegionShape } from "./layout.ts";
import {
  ATTACHMENT_BYTES_MAX,
  ATTACHMENTS_MAX,
  CHUNK_BYTES_DEFAULT,
  FORMAT_NAME,
  FORMAT_VERSION,
  NOTE_CHARACTERS_MAX,
  NOTES_MAX,
} from "./limits.ts";
import {
  encodeManifest,
  type Manifest,
  type ManifestAttachment,
  type ManifestRegion,
  manifestDigest,
} from "./manifest.ts";
import { checkName, manifestKey, packKey } from "./names.ts";
import { OpenedImage, openImageIn } from "./open-image.ts";
import { PackReader } from "./pack-reader.ts";
import { PackWriter, type PackWriterOptions, type WrittenPack } from "./pack-writer.ts";
import { runPipeline } from "./pipeline.ts";
import { encodeRoot, isChunkSize } from "./root.ts";
import { addPacks, livePacks, StoreContent } from "./store-content.ts";

export async function buildImage(
  store: ObjectStore,
  name: string,
  options: BuildOptions,
): Promise<BuildReport> {
  const began = performance.now();
  const { signal } = options;
  checkName("an image", name);
  checkExtras(options);
  signal?.throwIfAborted();
  if (options.ifAbsent) await checkAbsent(store, name, signal);
  const { parentDigest: digest } = options;
  const opening = { ...(digest && { digest }), ...(signal && { signal }) };
  const parent = options.parent === undefined ? undefined : await openImageIn(store, options.parent, opening);
  try {
    return await new Build(store, name, options, parent, began).run();
  } finally {
    await parent?.close();
  }
}

class Build {
  readonly #store: ObjectStore;
  readonly #name: string;
  readonly #options: BuildOptions;
  readonly #parent: OpenedImage | undefined;
  readonly #began: number;
  readonly #chunkBytes: number;
  readonly #level: number | undefined;
  readonly #layout: ReturnType<typeof layOut>;
  readonly #writing: PackWriterOptions;
  readonly #written: WrittenPack[] = [];
  #mayBePublished = false;

  constructor(
    store: ObjectStore,
    name: string,
    options: BuildOptions,
    parent: OpenedImage | undefined,
    began: number,
  ) {
    this.#store = store;
    this.#name = name;
    this.#options = options;
    this.#parent = parent;
    this.#began = began;
    this.#chunkBytes = checkChunkBytes(options.chunkBytes ?? parent?.chunkBytes ?? CHUNK_BYTES_DEFAULT);
    this.#level = levelOf(options, parent);
    this.#layout = layOut(options.regions.map(shapeOf), this.#chunkBytes);
    if (parent !== undefined) checkParent(parent, this.#layout.regions, this.#chunkBytes);
    const { nonce, signal, packBytes } = options;
    this.#writing = {
      ...(nonce && { nonce }),
      ...(signal && { signal }),
      ...(packBytes && { packBytes }),
      onPack: (pack) => {
        this.#written.push(pack);
      },
    };
  }

  async run(): Promise<BuildReport> {
    const chunkBytes = this.#chunkBytes;
    const { regions } = this.#options;
    const runs = planChunks(regions, this.#layout.regions, chunkBytes, this.#parent !== undefined);
    const contentBytes = chunksOf(runs.filter(({ source }) => source !== undefined)) * chunkBytes;
    // Its threads start while we look at what the store has.
    const cruncher = await openCruncher({ chunkBytes, level: this.#level }, contentBytes);
    let builder: Builder | undefined;
    try {
      const content = await this.#knownContent();
      const chunks = this.#layout.byteLength / chunkBytes;
      const writing = { ...this.#writing, isStable: cruncher.isShared };
      builder = new Builder(this.#store, content, chunks, this.#parent?.index, writing);
      if (this.#options.ending !== undefined) builder.index.holdPages();
      await this.#addChunks(builder, runs, cruncher);
      const ending = await this.#end(builder, cruncher);
      const attachments = await this.#addAttachments(builder.writer, ending.attachments);
      await builder.index.finish();
      await builder.writer.finish();
      const packs = builder.packNames();
      const root = await this.#writeRoot(encodeRoot(chunkBytes, chunks, builder.index.pages, packs));
      const took = performance.now() - this.#began;
      const { signal } = this.#options;
      if (builder.usesOldPacks && took > RECHECK_MS) await checkPacks(this.#store, packs, signal);
      const { manifest, dropped } = await this.#inherit(this.#manifest(root, attachments, ending.notes));
      const digest = await this.#publish(encodeManifest(manifest));
      return {
        manifest,
        digest,
        chunks: builder.counts,
        contentBytes,
        packs: this.#written,
        writtenBytes: this.#writtenBytes,
        dropped,
        ms: performance.now() - this.#began,
      };
    } catch (error) {
      await builder?.writer.discard();
      // Only what images have is ever referred to, and there is no image yet.
      if (!this.#mayBePublished) {
        for (const { name } of this.#written) await this.#store.delete(packKey(name)).catch(() => {});
      }
      throw error;
    } finally {
      await cruncher.close();
    }
  }

  /** With what the parent has besides the memory. */
  async #inherit(manifest: Manifest): Promise<{ manifest: Manifest; dropped: readonly Dropped[] }> {
    const parent = this.#parent;
    if (parent === undefined || !this.#options.inherit) return { manifest, dropped: [] };
    const { signal } = this.#options;
    const child = await OpenedImage.of(this.#store, { manifest, digest: "" }, signal);
    const newWriter = () =>
      new PackWriter(this.#store, { ...this.#writing, packBytes: Number.MAX_SAFE_INTEGER });
    try {
      const { workingSets, dropped } = await inheritedWorkingSets(parent, child, newWriter, signal);
      const attachments = inheritedAttachments(parent, manifest.attachments);
      const notes = { ...parent.manifest.notes, ...manifest.notes };
      checkCounts(attachments.length, Object.keys(notes).length);
      return { manifest: { ...manifest, notes, attachments, workingSets }, dropped };
    } finally {
      await child.close();
    }
  }

  /** Asks for what came while the image was being built, and reads once more what has changed since. */
  async #end(builder: Builder, cruncher: Cruncher): Promise<Required<Omit<BuildEnding, "revised">>> {
    const { notes = {}, attachments = [], regions, ending } = this.#options;
    const built = new BuiltChunks(this.#store, builder, this.#chunkBytes, this.#options.signal);
    const readBuilt: ReadBuilt = (region, offset, target) =>
      built.read(this.#layout.regions[region]!.offset + offset, target);
    try {
      const late = (await ending?.(readBuilt)) ?? {};
      const all = {
        notes: { ...notes, ...late.notes },
        attachments: [...attachments, ...(late.attachments ?? [])],
      };
      checkExtras(all);
      const revised = regions.map((region) => ({
        ...region,
        extents: late.revised?.get(region.name) ?? [],
      }));
      const runs = planChunks(revised, this.#layout.regions, this.#chunkBytes, false);
      if (runs.length > 0) await this.#addChunks(builder, runs, cruncher);
      return all;
    } finally {
      await built.close();
    }
  }

  /** Puts the manifest into the store; answers its SHA-256. */
  async #publish(bytes: Uint8Array): Promise<string> {
    const { ifAbsent = false, signal } = this.#options;
    signal?.throwIfAborted();
    // From here on a failure may be one of the answer alone: the image may be there, so its packs must stay.
    this.#mayBePublished = true;
    await this.#store.put(manifestKey(this.#name), bytes, { ifAbsent });
    return manifestDigest(bytes);
  }

  get #writtenBytes(): number {
    return this.#written.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  async #knownContent(): Promise<StoreContent> {
    const { dedup = "store", signal } = this.#options;
    const content = new StoreContent();
    if (dedup === "image") return content;
    const packs = new Set(this.#parent?.index.root.packs.names());
    if (dedup === "store") for (const pack of await livePacks(this.#store, signal)) packs.add(pack);
    const reader = new PackReader(this.#store);
    try {
      await addPacks(content, reader, packs, signal);
    } finally {
      await reader.close();
    }
    return content;
  }

  async #addChunks(builder: Builder, runs: readonly ChunkRun[], cruncher: Cruncher): Promise<void> {
    const { signal, onProgress } = this.#options;
    const chunkBytes = this.#chunkBytes;
    const totalBytes = chunksOf(runs) * chunkBytes;
    let doneBytes = 0;
    await runPipeline(builder, runs, {
      chunkBytes,
      cruncher,
      signal,
      onChunks: (chunks) => {
        doneBytes += chunks * chunkBytes;
        onProgress?.({ doneBytes, totalBytes, writtenBytes: this.#writtenBytes });
      },
    });
  }

  /** Adds attachments to the packs; their places are known when the packs have their names. */
  async #addAttachments(
    writer: PackWriter,
    attachments: readonly Attachment[],
  ): Promise<() => ManifestAttachment[]> {
    const places: (Omit<ManifestAttachment, "pack"> & { readonly number: number })[] = [];
    for (const { name, bytes } of attachments) {
      const hash = sha256(bytes);
      const stored = smallerOf(bytes, this.#level);
      const encoding = stored === bytes ? "raw" : "zstd";
      const contentBytes = bytes.byteLength;
      const { pack, offset } = await writer.add(stored, { hash, encoding, contentBytes, kind: "attachment" });
      const storedBytes = stored.byteLength;
      const entry = { name, byteLength: contentBytes, sha256: toHex(hash), offset, storedBytes, encoding };
      places.push({ ...entry, number: pack } as (typeof places)[number]);
    }
    return () =>
      places.map(
        ({ number, ...entry }) => ({ ...entry, pack: writer.written[number]!.name }) as ManifestAttachment,
      );
  }

  async #writeRoot(bytes: Uint8Array): Promise<Manifest["root"]> {
    const writer = new PackWriter(this.#store, this.#writing);
    const hash = sha256(bytes);
    await writer.add(bytes, { hash, encoding: "raw", contentBytes: bytes.byteLength, kind: "root" });
    await writer.finish();
    const [{ name, byteLength }] = writer.written as [WrittenPack];
    return { pack: name, packBytes: byteLength, sha256: toHex(hash) };
  }

  #manifest(
    root: Manifest["root"],
    attachments: () => ManifestAttachment[],
    notes: Readonly<Record<string, string>>,
  ): Manifest {
    const { created = new Date() } = this.#options;
    const parent = this.#parent?.manifest;
    return {
      format: FORMAT_NAME,
      version: FORMAT_VERSION,
      requires: [],
      name: this.#name,
      created: created.toISOString(),
      chunkBytes: this.#chunkBytes,
      codec: this.#level === undefined ? "none" : "zstd",
      ...(this.#level !== undefined && { level: this.#level }),
      byteLength: this.#layout.byteLength,
      regions: this.#layout.regions,
      root,
      ...(parent && { parent: { name: parent.name, root: parent.root.sha256 } }),
      notes: { ...notes },
      attachments: attachments(),
      workingSets: [],
    };
  }
}

function chunksOf(runs: readonly ChunkRun[]): number {
  return runs.reduce((sum, { first, until }) => sum + (until - first), 0);
}

function shapeOf({ name, guestAddress = 0, pageSize = 4096, source }: BuildRegion): RegionShape {
  return { name, guestAddress, pageSize, dataBytes: source.byteLength };
}

function checkChunkBytes(chunkBytes: number): number {
  if (isChunkSize(chunkBytes)) return chunkBytes;
  throw new MinorfaultError(
    "ERR_BAD_ARGUMENT",
    `A chunk has a power of two of bytes from 4 KiB to 2 MiB, not ${chunkBytes}`,
  );
}

/** Undefined: nothing is compressed. What is not said is as in the parent. */
function levelOf({ codec, level }: BuildOptions, parent: OpenedImage | undefined): number | undefined {
  if (codec === "none") return undefined;
  if (codec === undefined && level === undefined && parent !== undefined) return parent.manifest.level;
  return level ?? parent?.manifest.level ?? LEVEL_DEFAULT;
}

function checkExtras({ notes = {}, attachments = [] }: BuildEnding): void {
  for (const [name, text] of Object.entries(notes)) {
    checkName("a note", name);
    if (text.length <= NOTE_CHARACTERS_MAX) continue;
    throw new MinorfaultError("ERR_LIMIT", `Note ${name} has more than ${NOTE_CHARACTERS_MAX} characters`);
  }
  for (const { name, bytes } of attachments) {
    checkName("an attachment", name);
    if (bytes.byteLength > 0 && bytes.byteLength <= ATTACHMENT_BYTES_MAX) continue;
    throw new MinorfaultError(
      "ERR_LIMIT",
      `Attachment ${name} has ${bytes.byteLength} bytes; from 1 to ${ATTACHMENT_BYTES_MAX} are possible`,
    );
  }
  checkCounts(attachments.length, Object.keys(notes).length);
  if (new Set(attachments.map(({ name }) => name)).size !== attachments.length) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "Two attachments have one name");
  }
}

function checkCounts(attachments: number, notes: number): void {
  if (attachments <= ATTACHMENTS_MAX && notes <= NOTES_MAX) return;
  throw new MinorfaultError("ERR_LIMIT", `At most ${ATTACHMENTS_MAX} attachments and ${NOTES_MAX} notes`);
}

/** A child has the regions of its parent, in the same places. */
function checkParent(parent: OpenedImage, regions: readonly ManifestRegion[], chunkBytes: number): void {
  const text = (list: readonly ManifestRegion[]) =>
    list
      .map(({ name, offset, byteLength, pageSize }) => `${name} ${offset}+${byteLength}/${pageSize}`)
      .join(", ");
  const [mine, its] = [text(regions), text(parent.manifest.regions)];
  if (mine === its && chunkBytes === parent.chunkBytes) return;
  throw new MinorfaultError(
    "ERR_BAD_ARGUMENT",
    `The image has chunks of ${chunkBytes} bytes and the regions ${mine}; its parent ${parent.manifest.name} has ` +
      `chunks of ${parent.chunkBytes} and ${its}`,
    { hint: "Build it without a parent: equal chunks are stored once all the same" },
  );
}

/** Throws ERR_STORE_EXISTS where a name is taken. */
export async function checkAbsent(store: ObjectStore, name: string, signal?: AbortSignal): Promise<void> {
  for await (const { key } of store.list(manifestKey(name), signal)) {
    if (key !== manifestKey(name)) continue;
    throw new MinorfaultError("ERR_STORE_EXISTS", `${store.url} has an image ${name} already`, {
      hint: "Choose another name, or say that it shall be replaced (--replace)",
    });
  }
}
