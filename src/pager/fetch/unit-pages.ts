// Where the pages of a unit are in a guest's memory, and in which unit a page is.

import { nextClear } from "../../base/bitmap.ts";
import { type Part, untilPage } from "../regions.ts";

/** A unit's pages in one region's part. */
export interface PartPages {
  readonly part: Part;
  readonly first: number;
  readonly until: number;
}

export function unitOf({ region }: Part, page: number, unitBytes: number): number {
  return Math.floor((region.imageOffset + page * region.pageSize) / unitBytes);
}

/** The pages of units that lie side by side, wherever they are in these parts. */
export function* pagesOf(
  parts: readonly Part[],
  unit: number,
  unitBytes: number,
  count = 1,
): Generator<PartPages> {
  for (const part of parts) {
    const pages = pagesWithin(part, unit, unitBytes, count);
    if (pages.first < pages.until) yield pages;
  }
}

/** The pages of units in a part; none where `first` is not below `until`. */
export function pagesWithin(part: Part, unit: number, unitBytes: number, count = 1): PartPages {
  const { imageOffset, pageSize } = part.region;
  const from = Math.floor((unit * unitBytes - imageOffset) / pageSize);
  const until = Math.min(untilPage(part), from + (count * unitBytes) / pageSize);
  return { part, first: Math.max(part.firstPage, from), until };
}

export function isResident({ part, first, until }: PartPages): boolean {
  return nextClear(part.region.resident, first, until) >= until;
}

/** The pages of a unit that is a hole read as zeros, in the region of this part. */
export function knowZeros({ region }: Part, unit: number, unitBytes: number): void {
  const { imageOffset, pageSize, pageCount } = region;
  const first = Math.floor((unit * unitBytes - imageOffset) / pageSize);
  region.knowZeros(Math.max(0, first), Math.min(pageCount, first + unitBytes / pageSize));
}
