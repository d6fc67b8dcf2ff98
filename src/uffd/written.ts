// Which pages have been written since they were last protected: PAGEMAP_SCAN over memory whose userfaultfd has WP_ASYNC.

import { pageRegion, pmScanArg, readUnsigned } from "../abi/structs.ts";
import type { Caller } from "../abi/system.ts";
import { PAGE_IS, PAGEMAP_SCAN, PM_SCAN } from "../abi/userfaultfd.ts";
import type { WrittenRange } from "./contract.ts";

/** What the 64 KiB of a caller's scratch have room for. */
const REGIONS_PER_SCAN = 2048;

export interface ScanOptions {
  /** Protects again, in the same step, what it finds. */
  readonly protect?: boolean;
  /** Leaves out pages that are not there: they count as written, because nothing protects them. */
  readonly populatedOnly?: boolean;
}

/** The ranges, or the negative errno of a scan that failed. `pagemapFd` is the process's /proc/self/pagemap. */
export function scanWritten(
  caller: Caller,
  pagemapFd: number,
  start: number,
  byteLength: number,
  options: ScanOptions = {},
): WrittenRange[] | number {
  const { scratch } = caller;
  const vector = pmScanArg.size;
  const ranges: WrittenRange[] = [];
  const until = start + byteLength;
  for (let from = start; from < until; ) {
    pmScanArg.write(scratch.view, 0, {
      size: pmScanArg.size,
      flags: options.protect ? PM_SCAN.WP_MATCHING | PM_SCAN.CHECK_WPASYNC : 0,
      start: from,
      end: until,
      walk_end: 0,
      vec: scratch.address + vector,
      vec_len: REGIONS_PER_SCAN,
      max_pages: 0,
      category_inverted: 0,
      category_mask: PAGE_IS.WRITTEN,
      category_anyof_mask: options.populatedOnly ? PAGE_IS.PRESENT | PAGE_IS.SWAPPED : 0,
      return_mask: PAGE_IS.WRITTEN,
    });
    const found = caller.ioctl(pagemapFd, PAGEMAP_SCAN, scratch.address);
    if (found < 0) return found;
    // Many small ranges are the usual case: no bigints here.
    const { view } = scratch;
    const untilAt = pageRegion.offset.end;
    for (let at = vector; at < vector + found * pageRegion.size; at += pageRegion.size) {
      ranges.push({ start: readUnsigned(view, at), until: readUnsigned(view, at + untilAt) });
    }
    from = readUnsigned(view, pmScanArg.offset.walk_end);
    if (found < REGIONS_PER_SCAN) break;
  }
  return ranges;
}
