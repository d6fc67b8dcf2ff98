// Writes a working set as a pack of its own: pages of an image, in the order in which they were touched.

import { roundDown } from "../base/range.ts";
import { smallerOf } from "./cruncher.ts";
import { sha256, toHex } from "./hash.ts";
import { FRAME_BYTES_MAX, PAGE_BYTES } from "./limits.ts";
import type { ManifestWorkingSet } from "./manifest.ts";
import type { OpenedImage } from "./open-image.ts";
import type { PackWriter } from "./pack-writer.ts";
import { encodeList, type Frame, type PageRun } from "./working-set.ts";

/** The most pages of one run: what its length has room for, and one frame. */
const RUN_PAGES_MAX = FRAME_BYTES_MAX / PAGE_BYTES;

/** `pages`: numbers of pages of 4 KiB, each once. `writer` makes one pack of whatever length. */
export async function writeWorkingSet(
  image: OpenedImage,
  name: string,
  pages: readonly number[],
  writer: PackWriter,
  signal: AbortSignal | undefined,
): Promise<ManifestWorkingSet> {
  const runs = await runsOf(image, pages);
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
