// Which pages to install for a fault: the missing one, and its neighbours while we are there.
//
//   window of 8 pages around page 21, pages 16-18 and 22 are resident:
//
//   16 17 18 19 20 21 22 23
//   ■  ■  ■  ·  ·  ▲  ■  ·        run: 19, 20, 21
//
// One ioctl for sixteen pages costs little more than one for a page, and saves fifteen faults if the guest goes on
// there. The run never leaves the aligned window, the region's part, or the gap between resident pages: a
// fill over a present page would stop with EEXIST. Pure.

import { clearRunStart, nextClear, nextSet, setRunStart } from "../base/bitmap.ts";
import type { RegionPages } from "./regions.ts";
import type { AddressableSource } from "./source.ts";
import type { Writes } from "./writes.ts";

/** LIMIT: pages of a window. One fill holds the guest's mapping for its whole length: 2 MiB is 0.4 ms. */
export const WINDOW_PAGES_MAX = 512;

/** Pages from first up to, not including, until. Written by the functions here, so that a fault allocates nothing. */
export interface PageRun {
  first: number;
  until: number;
}

/**
 * Puts into `run` the missing pages around `page` inside its aligned window of `windowPages` (a power of two), inside
 * [from, until). `page` itself must be missing.
 */
export function planRun(
  page: number,
  from: number,
  until: number,
  windowPages: number,
  resident: Uint32Array,
  run: PageRun,
): void {
  if (windowPages === 1) {
    run.first = page;
    run.until = page + 1;
    return;
  }
  const windowFirst = page & -windowPages;
  const lowest = windowFirst > from ? windowFirst : from;
  const windowUntil = windowFirst + windowPages;
  run.until = nextSet(resident, page, windowUntil < until ? windowUntil : until);
  run.first = clearRunStart(resident, lowest, page + 1);
}

/** Cuts the run down to the pages around `page` that are zero pages as it is, or that are not as it is not. */
export function clipToKind(page: number, isZero: boolean, zero: Uint32Array, run: PageRun): void {
  const { first, until } = run;
  if (isZero) {
    run.until = nextClear(zero, page, until);
    run.first = setRunStart(zero, first, page + 1);
  } else {
    run.until = nextSet(zero, page, until);
    run.first = clearRunStart(zero, first, page + 1);
  }
}

/** Cuts the run down to the pages whose bytes lie in one piece with those of `page`. */
export function clipToPiece(
  page: number,
  { imageOffset, pageSize }: Pick<RegionPages, "imageOffset" | "pageSize">,
  source: AddressableSource,
  run: PageRun,
): void {
  if (source.reach === undefined || source.reachBack === undefined) return;
  const offset = imageOffset + page * pageSize;
  run.until = Math.min(run.until, page + Math.max(1, Math.floor(source.reach(offset) / pageSize)));
  run.first = Math.max(run.first, page - Math.floor(source.reachBack(offset) / pageSize));
}

/** Cuts the run down to the pages that have their bytes where `page` has them; answers whether that is the swap file. */
export function planSwap(page: number, writes: Writes, run: PageRun): boolean {
  const isSwapped = writes.isSwapped(page);
  clipToKind(page, isSwapped, writes.bits.swapped, run);
  return isSwapped;
}
