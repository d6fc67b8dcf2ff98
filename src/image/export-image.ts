// Writes a region of an image as a raw, sparse file: pages that are zeros take no room in it. The file is there
// whole or not at all.

import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { MinorfaultError } from "../base/errors.ts";
import { fileCall } from "../source/file-failure.ts";
import type { Image } from "./image.ts";
import { PAGE_BYTES } from "./limits.ts";
import type { ManifestRegion } from "./manifest.ts";

export interface ExportOptions {
  /** The region's name; not needed when there is only one. */
  readonly region?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
}

export interface ExportReport {
  readonly region: string;
  readonly byteLength: number;
  /** Bytes that were written: the rest are holes. */
  readonly dataBytes: number;
  readonly ms: number;
}

export async function exportImage(
  image: Image,
  name: string,
  options: ExportOptions = {},
): Promise<ExportReport> {
  const began = performance.now();
  const region = regionOf(image, options.region);
  const path = placeOf(name);
  const unfinished = `${path}.unfinished-${process.pid}`;
  const fd = fileCall("create", path, () => openSync(unfinished, "wx", 0o644));
  let isOpen = true;
  try {
    fileCall("truncate", path, () => ftruncateSync(fd, region.dataBytes));
    const dataBytes = await writeRegion(image, region, fd, path, options);
    fileCall("fsync", path, () => fsyncSync(fd));
    closeSync(fd);
    isOpen = false;
    fileCall("rename", path, () => renameSync(unfinished, path));
    return { region: region.name, byteLength: region.dataBytes, dataBytes, ms: performance.now() - began };
  } catch (error) {
    if (isOpen) closeSync(fd);
    rmSync(unfinished, { force: true });
    throw error;
  }
}

/** The file itself where a name is a link. Nothing but a file is replaced: not a device, not a folder. */
function placeOf(name: string): string {
  const stat = fileCall("stat", name, () => statSync(name, { throwIfNoEntry: false }));
  if (stat === undefined) return name;
  if (stat.isFile()) return realpathSync(name);
  throw new MinorfaultError("ERR_BAD_ARGUMENT", `${name} is there, and is not a regular file`, {
    hint: "An export is a sparse file that is there whole or not at all: name a new file, or one to be replaced",
  });
}

function regionOf(image: Image, name: string | undefined): ManifestRegion {
  const { regions } = image.manifest;
  const names = regions.map((region) => region.name).join(", ");
  if (name === undefined && regions.length > 1) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${image.name} has several regions: ${names}`, {
      hint: "Say which one with --region",
    });
  }
  const region = name === undefined ? regions[0] : regions.find((each) => each.name === name);
  if (region !== undefined) return region;
  throw new MinorfaultError("ERR_BAD_ARGUMENT", `${image.name} has no region ${name}; it has ${names}`);
}

async function writeRegion(
  image: Image,
  region: ManifestRegion,
  fd: number,
  path: string,
  { signal, onProgress }: ExportOptions,
): Promise<number> {
  const chunk = new Uint8Array(image.chunkBytes);
  const totalBytes = region.dataBytes;
  let written = 0;
  for (let at = 0; at < totalBytes; at += image.chunkBytes) {
    signal?.throwIfAborted();
    const place = (region.offset + at) / image.chunkBytes;
    const location = image.locate(place);
    if ((location instanceof Promise ? await location : location) !== undefined) {
      await image.readChunk(place, chunk, signal);
      written += writePages(fd, path, chunk.subarray(0, Math.min(chunk.byteLength, totalBytes - at)), at);
    }
    if (at % (16 * 2 ** 20) === 0) await new Promise(setImmediate);
    onProgress?.({ doneBytes: Math.min(totalBytes, at + image.chunkBytes), totalBytes });
  }
  return written;
}

/** Writes runs of pages that are not zeros. */
function writePages(fd: number, path: string, bytes: Uint8Array, at: number): number {
  let written = 0;
  let start = 0;
  const flush = (until: number): void => {
    while (start < until) {
      const count = fileCall("write", path, () => writeSync(fd, bytes, start, until - start, at + start));
      start += count;
      written += count;
    }
  };
  for (let page = 0; page < bytes.byteLength; page += PAGE_BYTES) {
    if (!isZeroPage(bytes.subarray(page, page + PAGE_BYTES))) continue;
    flush(page);
    start = page + PAGE_BYTES;
  }
  flush(bytes.byteLength);
  return written;
}

const ZEROS = new Uint8Array(PAGE_BYTES);

export function isZeroPage(page: Uint8Array): boolean {
  return Buffer.compare(page, ZEROS.subarray(0, page.byteLength)) === 0;
}
