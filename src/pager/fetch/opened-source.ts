// Opens what a descriptor names, as something that gives whole units: an image, a raw object, or a module's source.

import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { OpenedImage, openImageIn } from "../../image/index.ts";
import { PAGE_CHUNKS } from "../../image/limits.ts";
import {
  FileSource,
  FolderStore,
  harden,
  hardenStore,
  type ObjectStore,
  openSource,
  openStore,
  type PageSource,
  splitImageUrl,
} from "../../source/index.ts";
import type { SourceDescriptor } from "./options.ts";

/** Gives units of a source, the last one completed with zeros. */
export interface UnitReader {
  readonly name: string;
  readonly byteLength: number;
  readonly unitBytes: number;
  /** Names this very content, if that is known. */
  readonly identity: string | undefined;
  /** Undefined for a source that has no such thing. */
  readonly image: OpenedImage | undefined;
  /** Fills the target at once and answers what it is; undefined when that would have to wait. */
  readSync(unit: number, target: Uint8Array): "bytes" | "zero" | undefined;
  read(unit: number, target: Uint8Array, signal: AbortSignal): Promise<"bytes" | "zero">;
  /** Units of which one page of the index tells whether they are holes. */
  readonly spanUnits: number;
  /** Whether a unit is zeros, by what is in memory; undefined when that does not tell. */
  isHole(unit: number): boolean | undefined;
  close(): Promise<void>;
}

/** How the identity of an image begins; its digest follows. */
const IMAGE = "image ";
/** Bytes of a raw object that are read at once. */
const RAW_UNIT_BYTES = 64 * 1024;

export async function openUnits(descriptor: SourceDescriptor, unitBytesMin: number): Promise<UnitReader> {
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
      return await openImageUnits(url, digest, unitBytesMin);
    } catch (error) {
      const isMissing = error instanceof MinorfaultError && error.code === "ERR_SOURCE_MISSING";
      if (kind === "image" || digest !== undefined || !isMissing) throw error;
    }
  }
  return new RawUnits(hardened(await openSource(url)), Math.max(RAW_UNIT_BYTES, unitBytesMin));
}

async function openImageUnits(
  url: string,
  digest: string | undefined,
  unitBytesMin: number,
): Promise<UnitReader> {
  const { store: storeUrl, name } = splitImageUrl(url);
  // Chunks are smaller than blocks and lie anywhere: reading whole blocks would read most of them twice.
  const store = hardenStore(await openStore(storeUrl), { coalesce: false });
  try {
    const image = await openImageIn(store, name, digest === undefined ? {} : { digest });
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
  // A scheme means a network, or something that says itself where it is.
  if (!("url" in descriptor) || /^[a-z][a-z0-9+.-]+:/i.test(descriptor.url) || identity === undefined) return;
  const { url } = descriptor;
  if (!identity.startsWith(IMAGE)) {
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

/** What goes over a network is asked again, hedged and limited. */
function hardened(source: PageSource): PageSource {
  return source.readSync === undefined ? harden(source, { coalesce: false }) : source;
}

class RawUnits implements UnitReader {
  readonly name: string;
  readonly byteLength: number;
  readonly unitBytes: number;
  readonly identity: string | undefined;
  readonly image = undefined;
  readonly spanUnits = 1;
  readonly #source: PageSource;

  constructor(source: PageSource, unitBytes: number) {
    this.#source = source;
    this.name = source.name;
    this.identity = source.identity;
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

  isHole(): boolean {
    return false;
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  #partOf(unit: number, target: Uint8Array): Uint8Array {
    const byteLength = Math.min(this.unitBytes, this.byteLength - unit * this.unitBytes);
    target.fill(0, byteLength);
    return target.subarray(0, byteLength);
  }
}

class ImageUnits implements UnitReader {
  readonly name: string;
  readonly byteLength: number;
  readonly unitBytes: number;
  readonly identity: string;
  readonly image: OpenedImage;
  readonly spanUnits: number;
  readonly #store: ObjectStore;
  readonly #chunks: number;

  constructor(image: OpenedImage, store: ObjectStore, unitBytes: number) {
    this.image = image;
    this.#store = store;
    this.name = image.name;
    this.identity = IMAGE + image.digest;
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
