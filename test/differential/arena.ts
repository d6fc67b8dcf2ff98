// The memory that random programs play in: the same addresses on both systems.
//
//   ARENA ┬ area 0  private anonymous        16 pages each, of which the last four are a gap that is never mapped:
//         ├ area 1  private anonymous        areas never merge, and there is room to grow
//         ├ area 2  the shared object
//         ├ area 3  the shared object again
//         ├ area 4  a private mapping of the shared object
//         ├ area 5  where the sources of COPY are, no byte of them zero
//         └ ...
//   HUGE  ─ area 6  private huge pages (only in some programs)
//
// The object has ten pages, so the last two pages of a mapping of twelve lie beyond its end.

import { HUGE_PAGE_SIZE, MAP, PAGE_SIZE } from "../../src/abi/memory.ts";

export const ARENA = 0x2000_0000_0000;
const HUGE = 0x2100_0000_0000;
/** A page that can only be read, for arguments. */
export const SEALED = 0x2200_0000_0000;
const STRIDE_PAGES = 16;

export type AreaKind = "private" | "object" | "copy" | "source" | "huge";

export interface Area {
  readonly index: number;
  readonly kind: AreaKind;
  readonly start: number;
  readonly pageBytes: number;
  /** Pages of it that programs may use. */
  readonly pages: number;
  /** Pages that are mapped when a program begins. */
  readonly mapped: number;
}

const KINDS: readonly AreaKind[] = ["private", "private", "object", "object", "copy", "source"];
export const SOURCE_AREA = 5;
export const HUGE_AREA = 6;
export const OBJECT_PAGES = 10;

export const AREAS: readonly Area[] = [
  ...KINDS.map((kind, index) => ({
    index,
    kind,
    start: ARENA + index * STRIDE_PAGES * PAGE_SIZE,
    pageBytes: PAGE_SIZE,
    pages: 12,
    mapped: kind === "source" ? 4 : 8,
  })),
  { index: HUGE_AREA, kind: "huge", start: HUGE, pageBytes: HUGE_PAGE_SIZE, pages: 3, mapped: 2 },
];

/** Small pages from the first to the last area, for one read of the page map. */
export const ARENA_PAGES: number = KINDS.length * STRIDE_PAGES;

/** mmap's flags for a piece of an area. */
export function mapFlags(area: Area): number {
  switch (area.kind) {
    case "private":
    case "source":
      return MAP.PRIVATE | MAP.ANONYMOUS;
    case "huge":
      return MAP.PRIVATE | MAP.ANONYMOUS | MAP.HUGETLB | MAP.NORESERVE;
    case "object":
      return MAP.SHARED;
    case "copy":
      return MAP.PRIVATE;
    default:
      return area.kind satisfies never;
  }
}

export const isOfObject = (area: Area): boolean => area.kind === "object" || area.kind === "copy";

/** "2:3+0x10" for byte 16 of page 3 of area 2; hexadecimal elsewhere. */
export function placeName(address: number | bigint): string {
  const at = Number(address);
  for (const area of AREAS) {
    const offset = at - area.start;
    const room = area.kind === "huge" ? 16 * area.pageBytes : STRIDE_PAGES * PAGE_SIZE;
    if (offset < 0 || offset >= room) continue;
    const page = Math.floor(offset / area.pageBytes);
    const rest = offset % area.pageBytes;
    return `${area.index}:${page}${rest === 0 ? "" : `+0x${rest.toString(16)}`}`;
  }
  return `0x${BigInt(address).toString(16)}`;
}
