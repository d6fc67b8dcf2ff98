// Where two images differ, by comparing hashes: no content is read, and equal index pages are not looked into.

import { MinorfaultError } from "../base/errors.ts";
import type { Range } from "../base/range.ts";
import type { IndexNode, IndexRecord } from "./index-node.ts";
import { PAGE_BYTES, PAGE_CHUNKS } from "./limits.ts";
import type { OpenedImage } from "./open-image.ts";

export interface DiffReport {
  readonly same: boolean;
  /** Chunks of the flat space: with content in both, but another one; in the second only; in the first only. */
  readonly changed: number;
  readonly added: number;
  readonly removed: number;
  readonly chunkBytes: number;
  /** Pages of 4 KiB in chunks that differ: as exact as hashes of chunks are. */
  readonly pages: number;
  /** The chunks that differ, joined, in the flat space. */
  readonly ranges: readonly Range[];
}

export async function diffImages(a: OpenedImage, b: OpenedImage, signal?: AbortSignal): Promise<DiffReport> {
  checkComparable(a, b);
  const counts = { changed: 0, added: 0, removed: 0 };
  const ranges: { start: number; until: number }[] = [];
  const { chunkBytes } = a;
  for (let page = 0; page < a.index.root.node.capacity; page++) {
    if (isSamePage(a, b, page)) continue;
    const [left, right] = await Promise.all([a.index.page(page, signal), b.index.page(page, signal)]);
    for (const { place, kind } of differences(left, right)) {
      counts[kind]++;
      const start = (page * PAGE_CHUNKS + place) * chunkBytes;
      const last = ranges[ranges.length - 1];
      if (last?.until === start) last.until += chunkBytes;
      else ranges.push({ start, until: start + chunkBytes });
    }
  }
  const chunks = counts.changed + counts.added + counts.removed;
  const pages = (chunks * chunkBytes) / PAGE_BYTES;
  return { same: chunks === 0, ...counts, chunkBytes, pages, ranges };
}

function checkComparable(a: OpenedImage, b: OpenedImage): void {
  if (a.chunkBytes === b.chunkBytes && a.byteLength === b.byteLength) return;
  throw new MinorfaultError(
    "ERR_BAD_ARGUMENT",
    `${a.name} has ${a.byteLength} bytes in chunks of ${a.chunkBytes}, ${b.name} has ${b.byteLength} in chunks ` +
      `of ${b.chunkBytes}: they can not be compared chunk by chunk`,
  );
}

/** By reference. Index pages speak of packs by number, so only with equal numbers are equal bytes equal pages. */
function isSamePage(a: OpenedImage, b: OpenedImage, page: number): boolean {
  const [left, right] = [a.index.root.node.get(page), b.index.root.node.get(page)];
  return isSame(left, right);
}

function isSame(left: IndexRecord | undefined, right: IndexRecord | undefined): boolean {
  if (left === undefined || right === undefined) return left === right;
  return Buffer.compare(left.hash, right.hash) === 0;
}

function* differences(
  left: IndexNode | undefined,
  right: IndexNode | undefined,
): Generator<{ place: number; kind: "changed" | "added" | "removed" }> {
  const capacity = left?.capacity ?? right?.capacity ?? 0;
  for (let place = 0; place < capacity; place++) {
    const [before, after] = [left?.get(place), right?.get(place)];
    if (isSame(before, after)) continue;
    yield { place, kind: before === undefined ? "added" : after === undefined ? "removed" : "changed" };
  }
}
