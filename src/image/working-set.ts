// A working set: the pages that a guest touched, in the order in which it touched them, stored once more in that
// order so that a replay is one sequential read.
//
//   pack    ┌ list ┬ frame 0 ┬ frame 1 ┬ … ┬ table ┐      frames of at most 256 KiB, hashed and compressed as one
//
//   list    ┌ header, 32 bytes ┬ frames: 48 bytes each ┬ runs: 8 bytes each ┐
//
// A run is pages that follow one another in memory and were touched one after the other. Runs of chunks that are
// zeros in the image are marked and have no bytes; all others have theirs in the frames, one run after the other,
// and no run goes over the end of a frame.

import { badImage, checkBinaryVersion, ENCODINGS, type Encoding, hashAt } from "./content.ts";
import { FORMAT_VERSION, FRAME_BYTES_MAX, HASH_BYTES, PAGE_BYTES, WORKING_SET_PAGES_MAX } from "./limits.ts";

const MAGIC = "MFLTWSET";
const HEADER_BYTES = 32;
const FRAME_BYTES = 48;
const RUN_BYTES = 8;

export interface PageRun {
  /** In pages of 4 KiB of the flat space. */
  readonly page: number;
  readonly pages: number;
  readonly isZero: boolean;
}

export interface Frame {
  /** SHA-256 of the stored bytes: a frame is only ever read, never looked for. */
  readonly check: Uint8Array;
  readonly storedBytes: number;
  readonly contentBytes: number;
  readonly encoding: Encoding;
}

/** The list of a working set, as it is written. */
export interface WorkingSetList {
  readonly frames: readonly Frame[];
  readonly runs: readonly PageRun[];
}

/** The same as it is read: its runs are many, and mostly single pages, so there is no object for each. */
export interface DecodedList {
  readonly frames: readonly Frame[];
  /** Two words a run: the page; how many, with `ZERO_RUN` where they are zeros. */
  readonly runs: Uint32Array;
}

/** How many pages a run has: these bits of its second word. */
export const RUN_PAGES = 0xffff;
export const ZERO_RUN = 0x10000;

/** The most bytes that the list of a working set of so many pages can have. */
export function listBytesMax(pages: number): number {
  return HEADER_BYTES + pages * (FRAME_BYTES + RUN_BYTES);
}

export function encodeList({ frames, runs }: WorkingSetList): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + frames.length * FRAME_BYTES + runs.length * RUN_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(8, FORMAT_VERSION, true);
  view.setUint32(12, frames.length, true);
  view.setUint32(16, runs.length, true);
  view.setUint32(20, PAGE_BYTES, true);
  let at = HEADER_BYTES;
  for (const frame of frames) {
    bytes.set(frame.check, at);
    view.setUint32(at + HASH_BYTES, frame.storedBytes, true);
    view.setUint32(at + HASH_BYTES + 4, frame.contentBytes, true);
    bytes[at + HASH_BYTES + 8] = ENCODINGS.indexOf(frame.encoding);
    at += FRAME_BYTES;
  }
  for (const run of runs) {
    view.setUint32(at, run.page, true);
    view.setUint32(at + 4, run.isZero ? run.pages | ZERO_RUN : run.pages, true);
    at += RUN_BYTES;
  }
  return bytes;
}

/** The list from bytes whose hash has been checked; `imageBytes` bounds its pages. */
export function decodeList(bytes: Uint8Array, imageBytes: number, what: string): DecodedList {
  if (bytes.byteLength < HEADER_BYTES || new TextDecoder().decode(bytes.subarray(0, 8)) !== MAGIC) {
    throw badImage(`${what} does not begin like one`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  checkBinaryVersion(view.getUint32(8, true), what);
  const frameCount = view.getUint32(12, true);
  const runCount = view.getUint32(16, true);
  const expected = HEADER_BYTES + frameCount * FRAME_BYTES + runCount * RUN_BYTES;
  if (bytes.byteLength !== expected || view.getUint32(20, true) !== PAGE_BYTES) {
    throw badImage(`${what} has ${bytes.byteLength} bytes for ${frameCount} frames and ${runCount} runs`);
  }
  const frames = Array.from({ length: frameCount }, (_, index) =>
    frameAt(bytes, view, HEADER_BYTES + index * FRAME_BYTES, what),
  );
  const runs = new Uint32Array(2 * runCount);
  const runsAt = HEADER_BYTES + frameCount * FRAME_BYTES;
  for (let word = 0; word < runs.length; word++) runs[word] = view.getUint32(runsAt + 4 * word, true);
  checkRuns(runs, imageBytes / PAGE_BYTES, what);
  checkTogether(frames, runs, what);
  return { frames, runs };
}

function frameAt(bytes: Uint8Array, view: DataView, at: number, what: string): Frame {
  const storedBytes = view.getUint32(at + HASH_BYTES, true);
  const contentBytes = view.getUint32(at + HASH_BYTES + 4, true);
  const encoding = ENCODINGS[view.getUint8(at + HASH_BYTES + 8)];
  const isRight = contentBytes <= FRAME_BYTES_MAX && contentBytes % PAGE_BYTES === 0 && contentBytes > 0;
  if (encoding === undefined || !isRight || storedBytes > contentBytes || storedBytes === 0) {
    throw badImage(`${what} has a frame of ${storedBytes} bytes for ${contentBytes}`);
  }
  if (encoding === "raw" && storedBytes !== contentBytes)
    throw badImage(`${what} has a raw frame that is short`);
  return { check: hashAt(bytes, at), storedBytes, contentBytes, encoding };
}

function checkRuns(runs: Uint32Array, pagesMax: number, what: string): void {
  for (let at = 0; at < runs.length; at += 2) {
    const page = runs[at]!;
    const pages = runs[at + 1]! & RUN_PAGES;
    if (pages === 0 || page + pages > pagesMax || runs[at + 1]! - pages > ZERO_RUN) {
      throw badImage(`${what} has a run of ${pages} pages at page ${page}`);
    }
  }
}

/** The runs with bytes fill the frames exactly, and none goes over the end of one. */
function checkTogether(frames: readonly Frame[], runs: Uint32Array, what: string): void {
  let frame = 0;
  let filled = 0;
  let pages = 0;
  for (let at = 1; at < runs.length; at += 2) {
    const runPages = runs[at]! & RUN_PAGES;
    pages += runPages;
    if (runs[at]! >= ZERO_RUN) continue;
    filled += runPages * PAGE_BYTES;
    const contentBytes = frames[frame]?.contentBytes ?? 0;
    if (filled > contentBytes) throw badImage(`${what} has runs that do not fit its frames`);
    if (filled < contentBytes) continue;
    frame++;
    filled = 0;
  }
  if (frame !== frames.length || filled !== 0 || pages > WORKING_SET_PAGES_MAX) {
    throw badImage(`${what} has runs that do not fit its frames`);
  }
}
