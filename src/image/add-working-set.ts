// Stores a working set with an image: pages in the order in which they were touched, taken from the image itself.
//
// The image's manifest is replaced, and nothing else changes: whoever has the image open goes on reading.

import { MinorfaultError } from "../base/errors.ts";
import { roundDown } from "../base/range.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { smallerOf } from "./cruncher.ts";
import { sha256, toHex } from "./hash.ts";
import { FRAME_BYTES_MAX, PAGE_BYTES, WORKING_SET_PAGES_MAX, WORKING_SETS_MAX } from "./limits.ts";
import { encodeManifest, type Manifest, type ManifestWorkingSet } from "./manifest.ts";
import { checkName, manifestKey, packKey } from "./names.ts";
import { loadManifest, type OpenedImage, openImageIn } from "./open-image.ts";
import { type Nonce, PackWriter } from "./pack-writer.ts";
import { encodeList, type Frame, type PageRun } from "./working-set.ts";

/** The most pages of one run: what its length has room for, and one frame. */
const RUN_PAGES_MAX = FRAME_BYTES_MAX / PAGE_BYTES;

export interface WorkingSetOptions {
  /** Takes the place of a working set of the same name. Default false. */
  readonly replace?: boolean;
  readonly signal?: AbortSignal;
  readonly nonce?: Nonce;
}

/** `offsets`: of pages in the flat space, in the order in which they were first touched; repeated ones are left out. */
export async function addWorkingSet(
  store: ObjectStore,
  imageName: string,
  name: string,
  offsets: Iterable<number>,
  options: WorkingSetOptions = {},
): Promise<ManifestWorkingSet> {
  checkName("a working set", name);
  const { signal } = options;
  const image = await openImageIn(store, imageName, signal && { signal });
  const writing = { ...(signal && { signal }), ...(options.nonce && { nonce: options.nonce }) };
  const writer = new PackWriter(store, { ...writing, packBytes: Number.MAX_SAFE_INTEGER });
  let mayBePublished = false;
  try {
    checkRoom(image.manifest, name, options.replace ?? false);
    const runs = await runsOf(image, pagesOf(image, offsets));
    const set = await writeSet(image, name, runs, writer, signal);
    // A failure from here on may be one of the answer alone: the pack must stay then.
    mayBePublished = true;
    await replaceManifest(store, imageName, (manifest) => ({
      ...manifest,
      workingSets: [...manifest.workingSets.filter((each) => each.name !== name), set],
    }));
    return set;
  } catch (error) {
    const packs = mayBePublished ? [] : writer.written;
    for (const { name: pack } of packs) await store.delete(packKey(pack)).catch(() => {});
    throw error;
  } finally {
    await image.close();
  }
}

/** Takes a working set away; its pack is deleted by `prune`. */
export async function removeWorkingSet(store: ObjectStore, imageName: string, name: string): Promise<void> {
  await replaceManifest(store, imageName, (manifest) => {
    const workingSets = manifest.workingSets.filter((each) => each.name !== name);
    if (workingSets.length === manifest.workingSets.length) {
      throw new MinorfaultError("ERR_SOURCE_MISSING", `${imageName} has no working set ${name}`);
    }
    return { ...manifest, workingSets };
  });
}

async function replaceManifest(
  store: ObjectStore,
  name: string,
  change: (manifest: Manifest) => Manifest,
): Promise<void> {
  const { manifest } = await loadManifest(store, name);
  await store.put(manifestKey(name), encodeManifest(change(manifest)));
}

function checkRoom({ name: image, workingSets }: Manifest, name: string, replace: boolean): void {
  const isThere = workingSets.some((each) => each.name === name);
  if (isThere && !replace) {
    throw new MinorfaultError("ERR_STORE_EXISTS", `${image} has a working set ${name} already`);
  }
  if (!isThere && workingSets.length >= WORKING_SETS_MAX) {
    throw new MinorfaultError("ERR_LIMIT", `An image has at most ${WORKING_SETS_MAX} working sets`);
  }
}

/** Page numbers, each once. */
function pagesOf(image: OpenedImage, offsets: Iterable<number>): number[] {
  const pages = new Set<number>();
  for (const offset of offsets) {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset >= image.byteLength) {
      throw new MinorfaultError("ERR_OUT_OF_RANGE", `Offset ${offset} is not in ${image.name}`);
    }
    pages.add(Math.floor(offset / PAGE_BYTES));
    if (pages.size > WORKING_SET_PAGES_MAX) {
      throw new MinorfaultError("ERR_LIMIT", `A working set has at most ${WORKING_SET_PAGES_MAX} pages`);
    }
  }
  if (pages.size === 0) throw new MinorfaultError("ERR_BAD_ARGUMENT", "A working set has at least one page");
  return [...pages];
}

/** Joins pages that follow one another, as long as they fit a frame. Frames are filled run by run. */
async function runsOf(image: OpenedImage, pages: readonly number[]): Promise<PageRun[]> {
  const runs: { page: number; pages: number; isZero: boolean }[] = [];
  /** Pages in the frame that the last run with bytes ends in. */
  let framePages = 0;
  for (const page of pages) {
    const isZero = (await image.locate(Math.floor((page * PAGE_BYTES) / image.chunkBytes))) === undefined;
    const last = runs[runs.length - 1];
    if (!isZero && framePages === RUN_PAGES_MAX) framePages = 0;
    const joins =
      last !== undefined &&
      last.isZero === isZero &&
      last.page + last.pages === page &&
      last.pages < RUN_PAGES_MAX &&
      (isZero || framePages > 0);
    if (joins) last.pages++;
    else runs.push({ page, pages: 1, isZero });
    if (!isZero) framePages++;
  }
  return runs;
}

async function writeSet(
  image: OpenedImage,
  name: string,
  runs: readonly PageRun[],
  writer: PackWriter,
  signal: AbortSignal | undefined,
): Promise<ManifestWorkingSet> {
  const level = image.manifest.level;
  const frames: Frame[] = [];
  const stored: Uint8Array[] = [];
  const hashes: Uint8Array[] = [];
  for (const content of framesOf(runs)) {
    const bytes = new Uint8Array(content.reduce((sum, { pages }) => sum + pages, 0) * PAGE_BYTES);
    await readRuns(image, content, bytes, signal);
    const smaller = smallerOf(bytes, level);
    stored.push(smaller);
    hashes.push(sha256(bytes));
    frames.push({
      check: sha256(smaller),
      encoding: smaller === bytes ? "raw" : "zstd",
      storedBytes: smaller.byteLength,
      contentBytes: bytes.byteLength,
    });
  }
  const list = encodeList({ frames, runs });
  const hash = sha256(list);
  const contentBytes = list.byteLength;
  await writer.add(list, { hash, encoding: "raw", contentBytes, kind: "working set" });
  for (const [index, frame] of frames.entries()) {
    await writer.add(stored[index]!, { ...frame, hash: hashes[index]!, kind: "working set frame" });
  }
  await writer.finish();
  const [pack] = writer.written;
  return {
    name,
    pack: pack!.name,
    packBytes: pack!.byteLength,
    pages: runs.reduce((sum, { pages }) => sum + pages, 0),
    listBytes: contentBytes,
    listSha256: toHex(hash),
  };
}

/** The runs with bytes, frame by frame. */
function* framesOf(runs: readonly PageRun[]): Generator<PageRun[]> {
  let frame: PageRun[] = [];
  let pages = 0;
  for (const run of runs) {
    if (run.isZero) continue;
    frame.push(run);
    pages += run.pages;
    if (pages < RUN_PAGES_MAX) continue;
    yield frame;
    frame = [];
    pages = 0;
  }
  if (pages > 0) yield frame;
}

/** Chunks that several runs need one after the other are read once. */
async function readRuns(
  image: OpenedImage,
  runs: readonly PageRun[],
  target: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  const chunk = new Uint8Array(image.chunkBytes);
  let loaded = -1;
  let at = 0;
  for (const run of runs) {
    const until = (run.page + run.pages) * PAGE_BYTES;
    for (let offset = run.page * PAGE_BYTES; offset < until; ) {
      const start = roundDown(offset, image.chunkBytes);
      if (start !== loaded) await image.readChunk(start / image.chunkBytes, chunk, signal);
      loaded = start;
      const part = chunk.subarray(offset - start, Math.min(image.chunkBytes, until - start));
      target.set(part, at);
      at += part.byteLength;
      offset += part.byteLength;
    }
  }
}
