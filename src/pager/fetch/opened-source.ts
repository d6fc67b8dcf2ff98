// Opens what a descriptor names, as something that gives whole units: an image, a raw object, or a module's source.

import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { type Image, type OpenedImage, openImageIn } from "../../image/index.ts";
import {
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
  /** Undefined for a source that has no such thing. */
  readonly image: Image | undefined;
  /** Fills the target at once and answers what it is; undefined when that would have to wait. */
  readSync(unit: number, target: Uint8Array): "bytes" | "zero" | undefined;
  read(unit: number, target: Uint8Array, signal: AbortSignal): Promise<"bytes" | "zero">;
  /** Opens what `readSync` needs, where that is possible. */
  openAll(): Promise<void>;
  /** Whether a unit is known to be zeros, without reading anything. */
  isHole(unit: number): boolean;
  close(): Promise<void>;
}

/** LIMIT: packs that are opened before they are needed: an image of some GiB. */
const PACKS_MAX = 100;
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

/** What goes over a network is asked again, hedged and limited. */
function hardened(source: PageSource): PageSource {
  return source.readSync === undefined ? harden(source, { coalesce: false }) : source;
}

class RawUnits implements UnitReader {
  readonly name: string;
  readonly byteLength: number;
  readonly unitBytes: number;
  readonly image = undefined;
  readonly #source: PageSource;

  constructor(source: PageSource, unitBytes: number) {
    this.#source = source;
    this.name = source.name;
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

  async openAll(): Promise<void> {}

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
  readonly image: OpenedImage;
  readonly #store: ObjectStore;
  readonly #chunks: number;

  constructor(image: OpenedImage, store: ObjectStore, unitBytes: number) {
    this.image = image;
    this.#store = store;
    this.name = image.name;
    this.byteLength = image.byteLength;
    this.unitBytes = roundUp(unitBytes, image.chunkBytes);
    this.#chunks = image.byteLength / image.chunkBytes;
  }

  readSync(unit: number, target: Uint8Array): "bytes" | "zero" | undefined {
    for (const [chunk, part] of this.#parts(unit, target)) {
      if (chunk >= this.#chunks) part.fill(0);
      else if (!this.image.readChunkSync(chunk, part)) return undefined;
    }
    return this.isHole(unit) ? "zero" : "bytes";
  }

  async read(unit: number, target: Uint8Array, signal: AbortSignal): Promise<"bytes" | "zero"> {
    for (const [chunk, part] of this.#parts(unit, target)) {
      if (chunk >= this.#chunks) part.fill(0);
      else await this.image.readChunk(chunk, part, signal);
    }
    return this.isHole(unit) ? "zero" : "bytes";
  }

  async openAll(): Promise<void> {
    const { packs } = this.image;
    const { packs: names } = this.image.index.root;
    for (let index = 0; index < Math.min(names.count, PACKS_MAX); index++) {
      await packs.read(names.name(index), 0, new Uint8Array(1));
    }
  }

  isHole(unit: number): boolean {
    const offset = unit * this.unitBytes;
    return this.image.isZero(offset, Math.min(this.unitBytes, this.byteLength - offset)) === true;
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
