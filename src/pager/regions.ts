// What a pager knows of the guest's memory: which addresses belong to which region, and of each page
// whether it is resident and whether it should be zeros.
//
// A region keeps its pages for ever; where in the guest's memory they lie may change. So addresses point to parts:
//
//   addresses   ├─ part ─┤   (unmapped)   ├── part ──┤      (moved) ├─ part ─┤
//                   │                          │                        │
//   region      [ pages 0 ... 9 ][10 ... 19 ][ pages 20 ... 31 ]    [ pages of another region ]
//
// remove, unmap and remap follow the kernel's events; fork copies everything for the child.

import { PAGE_SIZE } from "../abi/memory.ts";
import { clearBits, setBits, wordsFor } from "../base/bitmap.ts";
import { roundDown, roundUp } from "../base/range.ts";
import type { AdaptiveWidth } from "./width.ts";
import type { Writes } from "./writes.ts";

export interface RegionPages {
  readonly pageSize: number;
  readonly pageCount: number;
  /** Bytes from the beginning of the image to the content of page 0. */
  readonly imageOffset: number;
  /** Pages to install around a missing one; 1 for huge pages. */
  readonly windowPages: number;
  /** Pages that have been installed. */
  readonly resident: Uint32Array;
  /** Pages whose content is zeros, whatever the image says: known before, or discarded by the guest. */
  readonly zero: Uint32Array;
  /** Whether `zero` has a bit. */
  readonly hasZeros: boolean;
  /** Where writes are tracked. */
  readonly writes?: Writes | undefined;
  /** Pages are evicted here: one that is missing although it has been resident is fetched again, and is no zeros. */
  readonly isEvictable?: boolean;
  /** Pages are installed write-protected, which ZEROPAGE can't. */
  readonly isProtected?: boolean;
}

export class Region implements RegionPages {
  readonly pageSize: number;
  readonly pageCount: number;
  readonly imageOffset: number;
  windowPages: number;
  readonly resident: Uint32Array;
  readonly zero: Uint32Array;
  /** Where the window follows the faults. */
  width: AdaptiveWidth | undefined;
  /** Whether `zero` has ever had a bit: most regions need not look. */
  hasZeros: boolean;
  /** Huge pages of hugetlb do not take UFFDIO_ZEROPAGE, nor does it protect: zeros are copied there. */
  readonly takesZeropage: boolean;
  readonly writes: Writes | undefined;
  readonly isEvictable: boolean;
  readonly isProtected: boolean;
  /** Pages that could not be brought and are poisoned; absent while there has been none. */
  poisoned: Uint32Array | undefined;

  constructor(pages: RegionPages) {
    this.pageSize = pages.pageSize;
    this.pageCount = pages.pageCount;
    this.imageOffset = pages.imageOffset;
    this.windowPages = pages.windowPages;
    this.resident = pages.resident;
    this.zero = pages.zero;
    this.hasZeros = pages.hasZeros;
    this.takesZeropage = pages.pageSize === PAGE_SIZE && !pages.isProtected;
    this.writes = pages.writes;
    this.isEvictable = pages.isEvictable ?? false;
    this.isProtected = pages.isProtected ?? false;
  }

  /** A page has faulted, and [first, until) was installed for it: the window follows. */
  served(page: number, first: number, until: number): void {
    if (this.width === undefined) return;
    this.width.served(page, first, until);
    this.windowPages = this.width.pages;
  }

  /** A page was poisoned. */
  poison(page: number): void {
    this.poisoned ??= new Uint32Array(wordsFor(this.pageCount));
    setBits(this.poisoned, page, page + 1);
  }

  /** Pages that are zeros in the image, as it turned out. */
  knowZeros(first: number, until: number): void {
    setBits(this.zero, first, until);
    this.hasZeros = true;
  }

  /** Pages that the guest has dropped: their content is zeros from now on. */
  discard(first: number, until: number): void {
    clearBits(this.resident, first, until);
    if (this.poisoned !== undefined) clearBits(this.poisoned, first, until);
    this.knowZeros(first, until);
  }
}

/** Addresses [start, until) are the pages from `firstPage` on. */
export interface Part {
  readonly start: number;
  readonly until: number;
  readonly firstPage: number;
  readonly region: Region;
}

/** A part of a fresh region: what a pager starts with. */
export function wholePart(start: number, region: Region): Part {
  return { start, until: start + region.pageCount * region.pageSize, firstPage: 0, region };
}

/** The page of a region that lies at an address of a part. */
export function pageAt(part: Part, address: number): number {
  return part.firstPage + Math.floor((address - part.start) / part.region.pageSize);
}

/** The guest's address of a page of a part. */
export function addressOfPage(part: Part, page: number): number {
  return part.start + (page - part.firstPage) * part.region.pageSize;
}

/** One past the last page of a part. */
export function untilPage(part: Part): number {
  return part.firstPage + (part.until - part.start) / part.region.pageSize;
}

export class RegionMap {
  #parts: readonly Part[];
  /** The part of the last look-up: the next fault is mostly in the same one. */
  #last: Part | undefined;

  constructor(parts: readonly Part[]) {
    this.#parts = parts;
    this.#last = parts[0];
  }

  get parts(): readonly Part[] {
    return this.#parts;
  }

  find(address: number): Part | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.start && address < last.until) return last;
    const found = this.#parts.find((part) => address >= part.start && address < part.until);
    if (found !== undefined) this.#last = found;
    return found;
  }

  /** The contents of [start, until) are being dropped. */
  remove(start: number, until: number): void {
    for (const part of this.#parts) {
      const from = Math.max(start, part.start);
      const to = Math.min(until, part.until);
      if (from < to) part.region.discard(pageAt(part, from), pageAt(part, to - 1) + 1);
    }
  }

  /** The mapping of [start, until) is gone. */
  unmap(start: number, until: number): void {
    this.#replace(this.#parts.flatMap((part) => cut(part, start, until).outside));
  }

  /**
   * Memory moved. What lay at the new place is gone. The old place may still be there (MREMAP_DONTUNMAP), and then
   * reads as zeros; the event does not tell, so it is kept as such until an unmap event or a fault says otherwise.
   */
  remap(from: number, to: number, byteLength: number): void {
    this.unmap(to, to + byteLength);
    const kept: Part[] = [];
    const moved: Part[] = [];
    const left: Part[] = [];
    for (const part of this.#parts) {
      const { inside, outside } = cut(part, from, from + byteLength);
      kept.push(...outside);
      for (const piece of inside) {
        moved.push({ ...piece, start: piece.start - from + to, until: piece.until - from + to });
        left.push(zeros(piece));
      }
    }
    // Overlapping ranges can't be moved, so the old place and the new one are apart.
    this.#replace([...kept, ...moved, ...left]);
  }

  /** The memory of a child of fork(2), as it was at that moment. */
  fork(): RegionMap {
    const copies = new Map<Region, Region>();
    for (const { region } of this.#parts) {
      if (copies.has(region)) continue;
      const { pageSize, pageCount, imageOffset, windowPages, hasZeros } = region;
      const [resident, zero] = [region.resident.slice(), region.zero.slice()];
      copies.set(
        region,
        new Region({ pageSize, pageCount, imageOffset, windowPages, resident, zero, hasZeros }),
      );
    }
    return new RegionMap(this.#parts.map((part) => ({ ...part, region: copies.get(part.region)! })));
  }

  #replace(parts: readonly Part[]): void {
    this.#parts = parts;
    this.#last = undefined;
  }
}

/** The pieces of a part inside and outside of a range; pages that are cut in two count as inside. */
function cut(part: Part, start: number, until: number): { inside: Part[]; outside: Part[] } {
  const { pageSize } = part.region;
  const from = Math.max(part.start, roundDown(start, pageSize));
  const to = Math.min(part.until, roundUp(until, pageSize));
  if (from >= to) return { inside: [], outside: [part] };
  const piece = (low: number, high: number): Part[] =>
    low < high ? [{ start: low, until: high, firstPage: pageAt(part, low), region: part.region }] : [];
  return {
    inside: piece(from, to),
    outside: [...piece(part.start, from), ...piece(to, part.until)],
  };
}

/** Empty memory in the place of a part. */
function zeros(part: Part): Part {
  const { pageSize, windowPages } = part.region;
  return emptyPart(part.start, part.until, pageSize, windowPages);
}

/** Memory that is zeros. */
export function emptyPart(start: number, until: number, pageSize: number, windowPages = 1): Part {
  const pageCount = (until - start) / pageSize;
  const zero = new Uint32Array(wordsFor(pageCount)).fill(0xffffffff);
  const resident = new Uint32Array(wordsFor(pageCount));
  const region = new Region({
    pageSize,
    pageCount,
    imageOffset: 0,
    windowPages,
    resident,
    zero,
    hasZeros: true,
  });
  return wholePart(start, region);
}
