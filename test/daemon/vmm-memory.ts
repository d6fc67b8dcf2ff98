// The guest memory of a stand-in VMM: one mapping a region, as Firecracker makes them, apart from each other.
//
//   guest-physical   0 ┌──────────┐         pages as we number them   0 ... n-1
//                      │ region 0 │
//                      └──────────┘
//                        gap (256 MiB, as x86's below 4 GiB)
//                      ┌──────────┐                                   n ...
//                      │ region 1 │
//                      └──────────┘
//
// A page is 4 KiB everywhere here, also where the memory under it comes in pieces of 2 MiB; pages are numbered through
// all regions, as they lie in a memory file.

import { MAP, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import type { Process } from "../../src/abi/system.ts";
import { roundUp } from "../../src/base/range.ts";
import type { RamPiece } from "../../src/guest/kvm/index.ts";
import { HUGE_2MB, mmap } from "../../src/linux/index.ts";
import type { MessageRegion } from "./vmm-message.ts";

const GAP_BYTES = 256 * 2 ** 20;

export interface VmmRegion {
  readonly byteLength: number;
  /** 4 KiB (default) or 2 MiB: hugetlb memory, whose pool must have enough. */
  readonly pageSize?: number;
  /** Default: behind the region before. */
  readonly imageOffset?: number;
}

export interface MappedRegion extends Required<MessageRegion>, RamPiece {
  /** Number of its first page. */
  readonly firstPage: number;
}

/** Maps them; nothing of them is there. */
export function mapRegions(process: Process, regions: readonly VmmRegion[]): MappedRegion[] {
  let [guestAddress, imageOffset, firstPage] = [0, 0, 0];
  return regions.map(({ byteLength, pageSize = PAGE_SIZE, imageOffset: offset = imageOffset }) => {
    const address = mapApart(process, byteLength, pageSize);
    const region = { address, byteLength, pageSize, imageOffset: offset, guestAddress, firstPage };
    guestAddress = roundUp(guestAddress + byteLength, GAP_BYTES) + GAP_BYTES;
    imageOffset = offset + byteLength;
    firstPage += byteLength / PAGE_SIZE;
    return region;
  });
}

/** Private anonymous memory between two pages that nobody may touch. */
function mapApart(process: Process, byteLength: number, pageSize: number): number {
  const room = byteLength + 2 * pageSize;
  const reserved = mmap(process, room, {
    protection: PROT.NONE,
    flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE,
  });
  const at = roundUp(reserved + PAGE_SIZE, pageSize);
  const huge = pageSize === PAGE_SIZE ? 0 : MAP.HUGETLB | HUGE_2MB;
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE | MAP.FIXED | huge;
  return mmap(process, byteLength, { at, flags });
}

export function pageCountOf(regions: readonly { readonly byteLength: number }[]): number {
  return regions.reduce((sum, { byteLength }) => sum + byteLength / PAGE_SIZE, 0);
}

/** The region that has a page. */
export function regionOf(regions: readonly MappedRegion[], page: number): MappedRegion {
  const found = regions.findLast(({ firstPage }) => firstPage <= page);
  if (found === undefined || page >= found.firstPage + found.byteLength / PAGE_SIZE) {
    throw new RangeError(`The guest has no page ${page}`);
  }
  return found;
}
