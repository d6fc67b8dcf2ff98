// Opens an image: two objects are read, the manifest and the pack with the root index, whatever the image's size.

import { MinorfaultError } from "../base/errors.ts";
import { roundDown } from "../base/range.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { openStore, splitImageUrl } from "../source/open-store.ts";
import { checkRead, type PageSource } from "../source/page-source.ts";
import { readWholeSync } from "../source/whole.ts";
import { badImage, contentOf, wrongBytes } from "./content.ts";
import { fromHex } from "./hash.ts";
import type { ChunkLocation, Image, ImageRegion, WorkingSetRun } from "./image.ts";
import type { IndexRecord } from "./index-node.ts";
import { IndexReader } from "./index-reader.ts";
import { MANIFEST_BYTES_MAX, PAGE_CHUNKS, ROOT_BYTES_MAX } from "./limits.ts";
import {
  decodeManifest,
  type Manifest,
  type ManifestAttachment,
  type ManifestWorkingSet,
  manifestDigest,
} from "./manifest.ts";
import { manifestKey } from "./names.ts";
import type { PackTable } from "./pack.ts";
import { PackReader, type Place } from "./pack-reader.ts";
import { decodeRoot, type RootIndex } from "./root.ts";
import { FrameReader, readWorkingSet } from "./working-set-reader.ts";

export interface OpenOptions {
  /** SHA-256 of the manifest that it must be: an image that was replaced or rolled back is refused. */
  readonly digest?: string;
  readonly signal?: AbortSignal;
  /** What will be read first: it is asked for together with the index; of what lies in this machine's files the disk is told. */
  readonly ahead?: ReadFirst;
}

/** Names; those that the image does not have are passed over. */
export interface ReadFirst {
  readonly attachments?: readonly string[];
  /** True: the first one that the image has. */
  readonly workingSet?: string | true;
}

/** Opens `folder/name`, `https://…/name` or `s3://bucket/prefix/name`; closing the image closes its store. */
export async function openImage(url: string, options: OpenOptions = {}): Promise<Image> {
  const { store: storeUrl, name } = splitImageUrl(url);
  const store = await openStore(storeUrl);
  try {
    return await OpenedImage.open(store, name, options, () => store.close());
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** Opens an image of a store that stays the caller's. */
export async function openImageIn(
  store: ObjectStore,
  name: string,
  options: OpenOptions = {},
): Promise<OpenedImage> {
  return OpenedImage.open(store, name, options, async () => {});
}

export interface LoadedManifest {
  readonly manifest: Manifest;
  readonly digest: string;
}

export async function loadManifest(
  store: ObjectStore,
  name: string,
  signal?: AbortSignal,
): Promise<LoadedManifest> {
  try {
    return decoded(await store.get(manifestKey(name), MANIFEST_BYTES_MAX, signal), name);
  } catch (error) {
    throw withName(error, store, name);
  }
}

/** Throws ERR_SOURCE_MISSING where there is none; whether it can be read is not asked. */
export async function checkThere(store: ObjectStore, name: string, signal?: AbortSignal): Promise<void> {
  try {
    await (await store.open(manifestKey(name), signal)).close();
  } catch (error) {
    throw withName(error, store, name);
  }
}

/** That no object is there means, to whoever asks for an image, that there is no such image. */
function withName(error: unknown, store: ObjectStore, name: string): unknown {
  if (!(error instanceof MinorfaultError) || error.code !== "ERR_SOURCE_MISSING") return error;
  return new MinorfaultError(
    "ERR_SOURCE_MISSING",
    `There is no image ${name} in ${store.url} (no manifest)`,
    {
      cause: error,
      hint: "`minorfault image list` says which images a store has",
    },
  );
}

function decoded(bytes: Uint8Array, name: string): LoadedManifest {
  return { manifest: decodeManifest(bytes, name), digest: manifestDigest(bytes) };
}

function openManifestSync(store: ObjectStore, name: string): PageSource | undefined {
  try {
    return store.openSync?.(manifestKey(name));
  } catch (error) {
    throw withName(error, store, name);
  }
}

/** Undefined for a store that has to be waited for. */
function loadManifestSync(store: ObjectStore, name: string): LoadedManifest | undefined {
  const source = openManifestSync(store, name);
  if (source === undefined) return undefined;
  try {
    const bytes = readWholeSync(source, MANIFEST_BYTES_MAX);
    return bytes && decoded(bytes, name);
  } finally {
    void source.close();
  }
}

/** The root index that a manifest names. */
export async function loadRoot(
  packs: PackReader,
  manifest: Manifest,
  signal?: AbortSignal,
): Promise<RootIndex> {
  const { pack, packBytes } = manifest.root;
  const { table, tail } = await packs.tail(pack, signal, packBytes);
  const place = rootPlace(table, manifest);
  // A store that is far away is not asked for the same bytes twice.
  const isThere = tail.byteLength === table.byteLength;
  const bytes = isThere
    ? contentOf(tail.subarray(place.offset, place.offset + place.storedBytes), place, rootText)
    : await packs.content(pack, place, rootText, signal);
  return rootOf(bytes, manifest);
}

/** The same without waiting; undefined where that can't be. */
function loadRootSync(packs: PackReader, manifest: Manifest): RootIndex | undefined {
  const { pack } = manifest.root;
  const table = packs.tableSync(pack);
  const bytes = table && packs.contentSync(pack, rootPlace(table, manifest), rootText);
  return bytes && rootOf(bytes, manifest);
}

const rootText = () => "the root index";

/** Where the root index lies, by the table of its pack. */
function rootPlace({ entries, byteLength }: PackTable, manifest: Manifest): Place {
  const { packBytes, sha256 } = manifest.root;
  const entry = entries[0];
  if (entries.length !== 1 || entry?.kind !== "root" || byteLength !== packBytes) {
    throw badImage(`The pack with the root index of ${manifest.name} is another one than the manifest says`);
  }
  if (entry.contentBytes > ROOT_BYTES_MAX) throw badImage(`The root index has ${entry.contentBytes} bytes`);
  return { ...entry, hash: fromHex(sha256) };
}

function rootOf(bytes: Uint8Array, manifest: Manifest): RootIndex {
  const root = decodeRoot(bytes);
  if (root.chunkBytes !== manifest.chunkBytes || root.chunks * root.chunkBytes !== manifest.byteLength) {
    throw badImage(
      `The root index is of ${root.chunks} chunks of ${root.chunkBytes} bytes, not as the manifest says`,
    );
  }
  return root;
}

export class OpenedImage implements Image {
  readonly name: string;
  readonly manifest: Manifest;
  readonly digest: string;
  readonly byteLength: number;
  readonly chunkBytes: number;
  readonly regions: readonly ImageRegion[];
  /** For those within src/image: the index and the packs themselves. */
  readonly index: IndexReader;
  readonly packs: PackReader;
  readonly #release: () => Promise<void>;
  readonly #begun: Begun;
  #closed = false;

  private constructor(
    loaded: LoadedManifest,
    index: IndexReader,
    packs: PackReader,
    release: () => Promise<void>,
    begun: Begun = {},
  ) {
    const { manifest, digest } = loaded;
    this.name = `${packs.store.url}/${manifest.name}`;
    this.manifest = manifest;
    this.digest = digest;
    this.byteLength = manifest.byteLength;
    this.chunkBytes = manifest.chunkBytes;
    this.regions = manifest.regions;
    this.index = index;
    this.packs = packs;
    this.#release = release;
    this.#begun = begun;
  }

  static async open(
    store: ObjectStore,
    name: string,
    { digest, signal, ahead }: OpenOptions,
    release: () => Promise<void>,
  ): Promise<OpenedImage> {
    const loaded = await loadManifest(store, name, signal);
    checkDigest(loaded, digest);
    return OpenedImage.of(store, loaded, signal, release, ahead);
  }

  /** By a manifest, which may be one that is not in the store yet. */
  static async of(
    store: ObjectStore,
    loaded: LoadedManifest,
    signal?: AbortSignal,
    release: () => Promise<void> = async () => {},
    ahead: ReadFirst = {},
  ): Promise<OpenedImage> {
    const packs = new PackReader(store);
    try {
      // Begun before the index is there, so as to wait for both at once; a disk brings them in this order.
      packs.expect(loaded.manifest.root.pack, 0, loaded.manifest.root.packBytes);
      const begun = beginReading(packs, loaded.manifest, ahead, signal);
      const root = await loadRoot(packs, loaded.manifest, signal);
      return new OpenedImage(loaded, new IndexReader(root, packs), packs, release, begun);
    } catch (error) {
      await packs.close();
      throw error;
    }
  }

  /** From a store that need not be waited for, else undefined. */
  static openSync(store: ObjectStore, name: string, digest?: string): OpenedImage | undefined {
    const loaded = loadManifestSync(store, name);
    if (loaded === undefined) return undefined;
    checkDigest(loaded, digest);
    const packs = new PackReader(store);
    let image: OpenedImage | undefined;
    try {
      const root = loadRootSync(packs, loaded.manifest);
      image = root && new OpenedImage(loaded, new IndexReader(root, packs), packs, async () => {});
      return image;
    } finally {
      if (image === undefined) void packs.close();
    }
  }

  get isAtHand(): boolean {
    return this.packs.isAtHand;
  }

  locate(chunk: number): ChunkLocation | undefined | Promise<ChunkLocation | undefined> {
    this.#check();
    const found = this.index.locate(chunk);
    return found instanceof Promise ? found.then((record) => this.#location(record)) : this.#location(found);
  }

  isZero(offset: number, byteLength: number): boolean | undefined {
    checkRead(this, offset, byteLength);
    const until = Math.ceil((offset + byteLength) / this.chunkBytes);
    for (let chunk = Math.floor(offset / this.chunkBytes); chunk < until; chunk++) {
      const record = this.index.peek(chunk);
      if (record !== undefined) return record === "unknown" ? undefined : false;
    }
    return true;
  }

  async readChunk(chunk: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.#checkTarget(target);
    signal?.throwIfAborted();
    const found = this.index.locate(chunk);
    const record = found instanceof Promise ? await found : found;
    if (record === undefined) {
      target.fill(0);
      return;
    }
    const place = { ...record, contentBytes: this.chunkBytes };
    const pack = this.index.root.packs.name(record.pack);
    await this.packs.contentInto(pack, place, target, () => this.#chunkText(chunk), signal);
  }

  /**
   * Chunks that follow one another, by one read if they lie so in one pack: false if they don't. Tells how each has
   * ended; its target is written before, and not after.
   */
  async readChunks(
    first: number,
    targets: readonly Uint8Array[],
    signal: AbortSignal,
    end: (index: number, result: "bytes" | "failed", error?: unknown) => void,
  ): Promise<boolean> {
    const records: IndexRecord[] = [];
    for (const [index, target] of targets.entries()) {
      this.#checkTarget(target);
      const found = this.index.locate(first + index);
      const record = found instanceof Promise ? await found : found;
      const last = records.at(-1);
      if (record === undefined) return false;
      const follows = record.pack === last?.pack && record.offset === last.offset + last.storedBytes;
      if (last !== undefined && !follows) return false;
      records.push(record);
    }
    const [{ offset, pack }] = records as [IndexRecord];
    const places = records.map((record) => ({ ...record, contentBytes: this.chunkBytes }));
    const name = this.index.root.packs.name(pack);
    const text = (index: number) => this.#chunkText(first + index);
    await this.packs.contentsInto(name, offset, places, targets, text, signal, end);
    return true;
  }

  readChunkSync(chunk: number, target: Uint8Array): boolean {
    this.#checkTarget(target);
    let record = this.index.peek(chunk);
    if (record === "unknown") {
      const page = Math.floor(chunk / PAGE_CHUNKS);
      if (!this.index.loadSync(page)) return false;
      record = this.index.peek(chunk);
    }
    if (record === undefined) target.fill(0);
    if (record === undefined || record === "unknown") return record === undefined;
    const place = { ...record, contentBytes: this.chunkBytes };
    const pack = this.index.root.packs.name(record.pack);
    return this.packs.contentIntoSync(pack, place, target, () => this.#chunkText(chunk));
  }

  isCached(offset: number): boolean | undefined {
    const record = this.index.peek(Math.floor(offset / this.chunkBytes));
    if (record === undefined || record === "unknown") return record === undefined ? true : undefined;
    const pack = this.packs.atHand(this.index.root.packs.name(record.pack));
    return pack?.isCached?.(record.offset + record.storedBytes - 1);
  }

  expect(offset: number, byteLength: number): void {
    const until = Math.ceil(Math.min(this.byteLength, offset + byteLength) / this.chunkBytes);
    for (let chunk = Math.floor(offset / this.chunkBytes); chunk < until; chunk++) {
      const record = this.index.peek(chunk);
      if (record === undefined || record === "unknown") continue;
      this.packs.expect(this.index.root.packs.name(record.pack), record.offset, record.storedBytes);
    }
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.#check();
    checkRead(this, offset, target.byteLength);
    let at = offset;
    const until = offset + target.byteLength;
    while (at < until) {
      const chunkStart = roundDown(at, this.chunkBytes);
      const end = Math.min(until, chunkStart + this.chunkBytes);
      const part = target.subarray(at - offset, end - offset);
      await this.#readPart(chunkStart / this.chunkBytes, at - chunkStart, part, signal);
      at = end;
    }
  }

  workingSets(): readonly string[] {
    return this.manifest.workingSets.map(({ name }) => name);
  }

  readWorkingSet(name: string, signal?: AbortSignal): AsyncIterable<WorkingSetRun> {
    this.#workingSet(name);
    return readWorkingSet(() => this.framesOf(name, signal));
  }

  /** The same frame by frame; what can be read ahead is from now on. */
  framesOf(name: string, signal?: AbortSignal): FrameReader {
    const set = this.#workingSet(name);
    const { frames } = this.#begun;
    if (frames?.set !== set) return new FrameReader(this.packs, set, this.byteLength, signal);
    delete this.#begun.frames;
    return frames;
  }

  async readAttachment(name: string, signal?: AbortSignal): Promise<Uint8Array> {
    this.#check();
    const found = this.manifest.attachments.find((each) => each.name === name);
    if (found === undefined) throw missing(`${this.name} has no attachment ${name}`);
    const begun = this.#begun.attachments?.get(name);
    this.#begun.attachments?.delete(name);
    return begun ?? readAttachment(this.packs, found, this.name, signal);
  }

  /** The content of a chunk that is stored, verified. */
  contentOf(chunk: number, record: IndexRecord, signal?: AbortSignal): Promise<Uint8Array> {
    const place = { ...record, contentBytes: this.chunkBytes };
    const pack = this.index.root.packs.name(record.pack);
    return this.packs.content(pack, place, () => this.#chunkText(chunk), signal);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.packs.close();
    await this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #readPart(chunk: number, from: number, part: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const found = this.index.locate(chunk);
    const record = found instanceof Promise ? await found : found;
    if (record === undefined) part.fill(0);
    else part.set((await this.contentOf(chunk, record, signal)).subarray(from, from + part.byteLength));
  }

  #workingSet(name: string): ManifestWorkingSet {
    this.#check();
    const set = this.manifest.workingSets.find((each) => each.name === name);
    if (set === undefined) throw missing(`${this.name} has no working set ${name}`);
    return set;
  }

  #location(record: IndexRecord | undefined): ChunkLocation | undefined {
    return record && { ...record, pack: this.index.root.packs.name(record.pack) };
  }

  #chunkText(chunk: number): string {
    return `chunk ${chunk} of ${this.name}`;
  }

  #checkTarget(target: Uint8Array): void {
    this.#check();
    if (target.byteLength === this.chunkBytes) return;
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `A chunk of ${this.name} has ${this.chunkBytes} bytes, not ${target.byteLength}`,
    );
  }

  #check(): void {
    if (this.#closed) throw new MinorfaultError("ERR_CLOSED", `${this.name} has been closed`);
  }
}

/** What was asked for before the index had come; each is taken once. */
interface Begun {
  readonly attachments?: Map<string, Promise<Uint8Array>>;
  frames?: FrameReader;
}

function beginReading(
  packs: PackReader,
  manifest: Manifest,
  { attachments = [], workingSet }: ReadFirst,
  signal: AbortSignal | undefined,
): Begun {
  const { workingSets } = manifest;
  const set = workingSet === true ? workingSets[0] : workingSets.find(({ name }) => name === workingSet);
  const frames = set && { frames: new FrameReader(packs, set, manifest.byteLength, signal) };
  // What is at hand is read when it is asked for.
  if (packs.isAtHand) return { ...frames };
  const found = manifest.attachments.filter(({ name }) => attachments.includes(name));
  const readings = found.map((entry) => {
    const reading = readAttachment(packs, entry, manifest.name, signal);
    // Whoever asks for it is told.
    reading.catch(() => {});
    return [entry.name, reading] as const;
  });
  return { attachments: new Map(readings), ...frames };
}

function readAttachment(
  packs: PackReader,
  entry: ManifestAttachment,
  image: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const place = { ...entry, hash: fromHex(entry.sha256), contentBytes: entry.byteLength };
  return packs.content(entry.pack, place, () => `attachment ${entry.name} of ${image}`, signal);
}

function checkDigest({ manifest, digest: actual }: LoadedManifest, digest: string | undefined): void {
  if (digest === undefined || digest === actual) return;
  throw wrongBytes(`The manifest of ${manifest.name} has the SHA-256 ${actual} instead of ${digest}`);
}

function missing(message: string): MinorfaultError {
  return new MinorfaultError("ERR_SOURCE_MISSING", message, {
    hint: "`minorfault image inspect` lists what an image has",
  });
}
