// Opens what a descriptor names, as something that gives whole units: an image, a raw object, or a module's source.

import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { PACK_BYTES, PAGE_CHUNKS } from "../../image/limits.ts";
// Not from the layers' doors: each module that a thread does not load brings the first fault nearer.
import { OpenedImage, openImageIn } from "../../image/open-image.ts";
import { FileSource } from "../../source/file-source.ts";
import { FolderStore } from "../../source/folder-store.ts";
import { harden } from "../../source/hardened-source.ts";
import { hardenStore } from "../../source/hardened-store.ts";
import type { ObjectStore } from "../../source/object-store.ts";
import { openSource, openStore, splitImageUrl } from "../../source/open-store.ts";
import type { PageSource } from "../../source/page-source.ts";
import { plain } from "../../source/plain-url.ts";
import { schemeOf } from "../../source/scheme.ts";
import type { SourceDescriptor } from "./options.ts";

/** LIMIT: units that are read as one from far away: two MiB of those of 64 KiB. */
export const GATHERED_MAX = 32;

/** How one unit of a run has ended. */
export type RunEnd = (index: number, result: "bytes" | "zero" | "failed", error?: unknown) => void;

/** Gives units of a source, the last one completed with zeros. */
export interface UnitReader {
  readonly name: string;
  readonly byteLength: number;
  readonly unitBytes: number;
  /** Names this very content, if that is known. */
  readonly identity: string | undefined;
  /** As the identity, but for what does not change its bytes: an image that was given a working set is no other. */
  readonly content: string | undefined;
  /** Undefined for a source that has no such thing. */
  readonly image: OpenedImage | undefined;
  /**
   * Fills the target at once and answers what it is; undefined when that would have to wait. Of what has to be verified
   * the target is one unit, else any number of them.
   */
  readSync(unit: number, target: Uint8Array): "bytes" | "zero" | undefined;
  read(unit: number, target: Uint8Array, signal: AbortSignal): Promise<"bytes" | "zero">;
  /** Units of which one page of the index tells whether they are holes. */
  readonly spanUnits: number;
  /** Whether everything is read at once. */
  readonly isLocal: boolean;
  /**
   * Reads units that lie side by side, as many as there is room for in the target, and tells how each has ended: from then on
   * its part of the target is somebody else's. What it throws is the end of those that it has not told of.
   */
  readRun(first: number, target: Uint8Array, signal: AbortSignal, end: RunEnd): Promise<void>;
  /** Bytes in which the source is stored, about. */
  readonly storedBytes: number;
  /** What lies in this machine's files, in the order in which it is best read. Each is good until the next one is asked for. */
  atHand(): Iterable<PageSource>;
  /** Whether a unit is read without waiting for a disk; undefined: that is not known. */
  isCached(unit: number): boolean | undefined;
  /** It will be read soon: sets the disk to work, where there is one. */
  expect(unit: number): void;
  /** Whether a unit is zeros, by what is in memory; undefined when that does not tell. */
  isHole(unit: number): boolean | undefined;
  /** Of one that `openUnitsSync` has opened, every descriptor is closed when this returns. */
  close(): Promise<void>;
}

/** How the identity of an image begins; its digest follows. */
const IMAGE = "image ";
/** Bytes of a raw object that are read at once. */
const RAW_UNIT_BYTES = 64 * 1024;

/** `replay`: the working set that will be read first, true for the image's first. */
export async function openUnits(
  descriptor: SourceDescriptor,
  unitBytesMin: number,
  replay: boolean | string = false,
): Promise<UnitReader> {
  if ("module" in descriptor) {
    const loaded = (await import(descriptor.module)) as {
      openSource?: (argument: unknown) => Promise<PageSource>;
    };
    if (loaded.openSource === undefined) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `${descriptor.module} exports no openSource`);
    }
    return new RawUnits(await loaded.openSource(descriptor.argument), Math.max(RAW_UNIT_BYTES, unitBytesMin));
  }
  const { url, kind, digest } = descriptor;
  if (kind !== "raw") {
    try {
      return await openImageUnits(url, digest, unitBytesMin, replay);
    } catch (error) {
      const isMissing = error instanceof MinorfaultError && error.code === "ERR_SOURCE_MISSING";
      if (kind === "image" || digest !== undefined || !isMissing) throw error;
    }
  }
  return new RawUnits(hardened(await openRaw(url)), Math.max(RAW_UNIT_BYTES, unitBytesMin));
}

async function openRaw(url: string): Promise<PageSource> {
  try {
    return await openSource(url);
  } catch (cause) {
    if (!(cause instanceof MinorfaultError) || cause.code !== "ERR_SOURCE_MISSING") throw cause;
    throw new MinorfaultError("ERR_SOURCE_MISSING", `There is no image and no file ${plain(url)}`, {
      cause,
      hint: "An image is named by its store and its name: folder/name",
    });
  }
}

async function openImageUnits(
  url: string,
  digest: string | undefined,
  unitBytesMin: number,
  replay: boolean | string,
): Promise<UnitReader> {
  const { store: storeUrl, name } = splitImageUrl(url);
  // Chunks are smaller than blocks and lie anywhere: reading whole blocks would read most of them twice.
  const store = hardenStore(await openStore(storeUrl), { coalesce: false });
  try {
    // What has to be waited for is read by whoever can be stopped.
    const isAhead = replay !== false && store.openSync !== undefined;
    const image = await openImageIn(store, name, {
      ...(digest !== undefined && { digest }),
      ...(isAhead && { ahead: { workingSet: replay } }),
    });
    return new ImageUnits(image, store, Math.max(image.chunkBytes, RAW_UNIT_BYTES, unitBytesMin));
  } catch (error) {
    await store.close();
    throw error;
  }
}

/**
 * The same at once, for what lies in this machine's files; `identity` is what it must be. Undefined for what has to be
 * waited for; throws what opening it throws.
 */
export function openUnitsSync(
  descriptor: SourceDescriptor,
  unitBytes: number,
  identity: string | undefined,
): UnitReader | undefined {
  if (!isAtHand(descriptor, identity) || identity === undefined) return;
  const { url } = descriptor;
  if (isPlainFile(descriptor, identity)) {
    const file = FileSource.open(url);
    if (file.identity === identity) return new RawUnits(file, unitBytes);
    void file.close();
    return undefined;
  }
  const { store: storeUrl, name } = splitImageUrl(url);
  const store = new FolderStore(storeUrl);
  const image = OpenedImage.openSync(store, name, identity.slice(IMAGE.length));
  return image && new ImageUnits(image, store, unitBytes);
}

/** Whether that is a file of this machine as it is: there is nothing to verify, and nothing to decode. */
export function isPlainFile(descriptor: SourceDescriptor, identity: string | undefined): boolean {
  return isAtHand(descriptor, identity) && !identity?.startsWith(IMAGE);
}

/** Whether it lies in this machine's files. A scheme means a network, or something that says itself where it is. */
export function isAtHand(
  descriptor: SourceDescriptor,
  identity: string | undefined,
): descriptor is SourceDescriptor & { readonly url: string } {
  return identity !== undefined && "url" in descriptor && schemeOf(descriptor.url) === undefined;
}

/** What goes over a network is asked again, hedged and limited. */
function hardened(source: PageSource): PageSource {
  return source.readSync === undefined ? harden(source, { coalesce: false }) : source;
}

export class RawUnits implements UnitReader {
  readonly name: string;
  readonly byteLength: number;
  readonly unitBytes: number;
  readonly identity: string | undefined;
  readonly content: string | undefined;
  readonly image = undefined;
  readonly spanUnits = 1;
  readonly isLocal: boolean;
  readonly #source: PageSource;

  constructor(source: PageSource, unitBytes: number) {
    this.#source = source;
    this.name = source.name;
    this.identity = source.identity;
    this.content = source.identity;
    this.isLocal = source.readSync !== undefined;
    this.byteLength = source.byteLength;
    this.unitBytes = unitBytes;
  }

  readSync(unit: number, target: Uint8Array): "bytes" | undefined {
    if (this.#source.readSync === undefined) return undefined;
    const part = this.#partOf(unit, target);
    this.#source.readSync(unit * this.unitBytes, part);
    return "bytes";
  }

  async read(unit: number, target: Uint8Array, signal: AbortSignal): Promise<"bytes"> {
    await this.#source.read(unit * this.unitBytes, this.#partOf(unit, target), signal);
    return "bytes";
  }

  async readRun(first: number, target: Uint8Array, signal: AbortSignal, end: RunEnd): Promise<void> {
    const count = target.byteLength / this.unitBytes;
    try {
      const result = await this.read(first, target, signal);
      for (let index = 0; index < count; index++) end(index, result);
    } catch (error) {
      if (signal.aborted || count === 1) throw error;
      await eachAlone(this, first, target, signal, end);
    }
  }

  get storedBytes(): number {
    return this.byteLength;
  }

  atHand(): Iterable<PageSource> {
    return this.isLocal ? [this.#source] : [];
  }

  isCached(unit: number): boolean | undefined {
    return this.#source.isCached?.(Math.min(this.byteLength, (unit + 1) * this.unitBytes) - 1);
  }

  expect(unit: number): void {
    this.#source.expect?.(unit * this.unitBytes, this.unitBytes);
  }

  isHole(): boolean {
    return false;
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  #partOf(unit: number, target: Uint8Array): Uint8Array {
    const byteLength = Math.min(target.byteLength, this.byteLength - unit * this.unitBytes);
    target.fill(0, byteLength);
    return target.subarray(0, byteLength);
  }
}

export class ImageUnits implements UnitReader {
  readonly name: string;
  readonly byteLength: number;
  readonly unitBytes: number;
  readonly identity: string;
  readonly content: string;
  readonly isLocal: boolean;
  readonly image: OpenedImage;
  readonly spanUnits: number;
  readonly #store: ObjectStore;
  readonly #chunks: number;

  constructor(image: OpenedImage, store: ObjectStore, unitBytes: number) {
    this.image = image;
    this.#store = store;
    this.name = image.name;
    this.identity = IMAGE + image.digest;
    this.content = IMAGE + image.manifest.root.sha256;
    this.isLocal = store.openSync !== undefined;
    this.byteLength = image.byteLength;
    this.unitBytes = roundUp(unitBytes, image.chunkBytes);
    this.spanUnits = Math.max(1, (PAGE_CHUNKS * image.chunkBytes) / this.unitBytes);
    this.#chunks = image.byteLength / image.chunkBytes;
  }

  readSync(unit: number, target: Uint8Array): "bytes" | "zero" | undefined {
    for (const [chunk, part] of this.#parts(unit, target)) {
      if (chunk >= this.#chunks) part.fill(0);
      else if (!this.image.readChunkSync(chunk, part)) return undefined;
    }
    return this.isHole(unit) === true ? "zero" : "bytes";
  }

  async read(unit: number, target: Uint8Array, signal: AbortSignal): Promise<"bytes" | "zero"> {
    for (const [chunk, part] of this.#parts(unit, target)) {
      if (chunk >= this.#chunks) part.fill(0);
      else await this.image.readChunk(chunk, part, signal);
    }
    return this.isHole(unit) === true ? "zero" : "bytes";
  }

  async readRun(first: number, target: Uint8Array, signal: AbortSignal, end: RunEnd): Promise<void> {
    const { chunkBytes } = this.image;
    const count = target.byteLength / this.unitBytes;
    // A unit of many chunks is a run by itself; the end of the image is part of one.
    if (count > 1 && this.unitBytes === chunkBytes && first + count <= this.#chunks) {
      const areRead = await this.image.readChunks(first, unitsOf(target, chunkBytes), signal, end);
      if (areRead) return;
    }
    await eachAlone(this, first, target, signal, end);
  }

  get storedBytes(): number {
    return Math.min(this.byteLength, this.image.index.root.packs.count * PACK_BYTES);
  }

  *atHand(): Iterable<PageSource> {
    const { packs, index } = this.image;
    for (const pack of index.root.packs.names()) {
      const source = packs.atHand(pack);
      if (source !== undefined) yield source;
    }
  }

  isCached(unit: number): boolean | undefined {
    return this.image.isCached(unit * this.unitBytes);
  }

  expect(unit: number): void {
    this.image.expect(unit * this.unitBytes, this.unitBytes);
  }

  isHole(unit: number): boolean | undefined {
    const offset = unit * this.unitBytes;
    return this.image.isZero(offset, Math.min(this.unitBytes, this.byteLength - offset));
  }

  async close(): Promise<void> {
    await this.image.close();
    await this.#store.close();
  }

  *#parts(unit: number, target: Uint8Array): Generator<readonly [chunk: number, part: Uint8Array]> {
    const { chunkBytes } = this.image;
    const first = (unit * this.unitBytes) / chunkBytes;
    for (let at = 0; at < this.unitBytes; at += chunkBytes) {
      yield [first + at / chunkBytes, target.subarray(at, at + chunkBytes)];
    }
  }
}

/** Units one by one, all at once: what is wrong with one of them is not to be the end of the others. */
async function eachAlone(
  reader: UnitReader,
  first: number,
  target: Uint8Array,
  signal: AbortSignal,
  end: RunEnd,
): Promise<void> {
  await Promise.all(
    unitsOf(target, reader.unitBytes).map(async (part, index) => {
      try {
        end(index, await reader.read(first + index, part, signal));
      } catch (error) {
        end(index, "failed", error);
      }
    }),
  );
}

function unitsOf(target: Uint8Array, unitBytes: number): Uint8Array[] {
  const count = target.byteLength / unitBytes;
  return Array.from({ length: count }, (_, index) =>
    target.subarray(index * unitBytes, (index + 1) * unitBytes),
  );
}
