// Where the pages of a unit are in a guest's memory, and in which unit a page is.

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

/** The pages of a unit wherever they are in these parts. */
export function* pagesOf(parts: readonly Part[], unit: number, unitBytes: number): Generator<PartPages> {
  const start = unit * unitBytes;
  for (const part of parts) {
    const { imageOffset, pageSize } = part.region;
    const from = Math.floor((start - imageOffset) / pageSize);
    const first = Math.max(part.firstPage, from);
    const until = Math.min(untilPage(part), from + unitBytes / pageSize);
    if (first < until) yield { part, first, until };
  }
}

/** The pages of a unit that is a hole read as zeros, in the region of this part. */
export function knowZeros({ region }: Part, unit: number, unitBytes: number): void {
  const { imageOffset, pageSize, pageCount } = region;
  const first = Math.floor((unit * unitBytes - imageOffset) / pageSize);
  region.knowZeros(Math.max(0, first), Math.min(pageCount, first + unitBytes / pageSize));
}
