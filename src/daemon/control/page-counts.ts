// A guest's memory in a fixed number of parts: how many of each part's bytes are resident. Regions lie one after the
// other, as they are listed.

import { countBetween } from "../../base/bitmap.ts";
import type { Residency } from "../../pager/index.ts";

/** Bytes of each part, and how many of them are resident. */
export interface PageCounts {
  readonly totals: Float64Array;
  readonly resident: Float64Array;
}

export function countParts(regions: readonly Residency[], parts: number): PageCounts {
  const totals = new Float64Array(parts);
  const resident = new Float64Array(parts);
  const byteLength = regions.reduce((sum, { pageCount, pageSize }) => sum + pageCount * pageSize, 0);
  let before = 0;
  for (const { resident: words, pageCount, pageSize } of regions) {
    let page = 0;
    while (page < pageCount) {
      const at = before + page * pageSize;
      const part = Math.min(parts - 1, Math.floor((at / byteLength) * parts));
      // The first page that begins in a later part.
      const until = Math.ceil((((part + 1) * byteLength) / parts - before) / pageSize);
      const next = part === parts - 1 ? pageCount : Math.min(pageCount, Math.max(page + 1, until));
      totals[part]! += (next - page) * pageSize;
      resident[part]! += countBetween(words, page, next) * pageSize;
      page = next;
    }
    before += pageCount * pageSize;
  }
  return { totals, resident };
}
