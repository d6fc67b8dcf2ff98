// The memory of one process: its VMAs, its page tables, and what keeps the two in step.
//
// Who changes what a page table entry allows or which frame it names tells it through `invalidate`, as processors
// are told to forget translations: a paged memory keeps such translations (PagedMemory).

import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../abi/memory.ts";
import type { Context } from "./context.ts";
import type { FramePool } from "./frame-pool.ts";
import { FRAME_SHIFT, PageTable, PTE, WP_MARKER } from "./page-table.ts";
import type { Profile } from "./profile.ts";
import { type Vma, VmaList } from "./vma.ts";

/** What a zap leaves behind. */
export const ZAP = {
  /** munmap: nothing. */
  UNMAP: 0,
  /** MADV_DONTNEED: guards; wp marks where the memory has an object behind it. */
  DISCARD: 1,
  /** A hole was punched into the object: like DISCARD, and private copies stay too. */
  HOLE: 2,
  /** The object was cut off: nothing, private copies go too, but guards stay. */
  TRUNCATE: 3,
} as const;

/** mmap without a wish goes below this. Page numbers below 2^31 keep the engine on small integers. */
const MMAP_CEILING = 0x7f0_0000_0000;
/** What the system maps by itself (scratch memory) lies above, where it is in nobody's way. */
const SYSTEM_CEILING = 0x7ff_0000_0000;
/** vm.mmap_min_addr. */
export const MMAP_FLOOR = 0x10000;

export class AddressSpace {
  readonly profile: Profile;
  readonly pool: FramePool;
  readonly vmas = new VmaList();
  readonly table = new PageTable();
  /** Entries of hugetlb memory, one for each 2 MiB, by address / 2 MiB. */
  readonly hugeTable = new PageTable();
  /** The process, and under old kernels its contexts. At zero the memory is given back. */
  #users = 1;
  #groups = 0;
  alive = true;
  /** Told which pages have changed under a translation: [from, until) in page numbers. */
  onInvalidate: ((from: number, until: number) => void) | undefined = undefined;

  constructor(profile: Profile, pool: FramePool) {
    this.profile = profile;
    this.pool = pool;
  }

  retain(): void {
    this.#users++;
  }

  /** The process has ended, or a context that kept its memory. */
  release(): void {
    if (--this.#users > 0) return;
    this.alive = false;
    for (const vma of [...this.vmas]) this.#drop(vma);
  }

  /** Byte offset of an address in the pool if the page table allows the access (a PTE bit), else -1. */
  translate(address: number, bit: number): number {
    const within = address & (PAGE_SIZE - 1);
    const entry = this.table.get((address - within) / PAGE_SIZE);
    if ((entry & bit) !== 0) return (entry >>> FRAME_SHIFT) * PAGE_SIZE + within;
    return entry === 0 ? this.#translateHuge(address, bit) : -1;
  }

  #translateHuge(address: number, bit: number): number {
    const within = address & (HUGE_PAGE_SIZE - 1);
    const entry = this.hugeTable.get((address - within) / HUGE_PAGE_SIZE);
    if ((entry & bit) === 0) return -1;
    return (entry >>> FRAME_SHIFT) * PAGE_SIZE + within;
  }

  /** The entry that governs an address: of the huge table in hugetlb memory. */
  entryAt(vma: Vma, address: number): number {
    if (vma.huge) return this.hugeTable.get(Math.floor(address / HUGE_PAGE_SIZE));
    return this.table.get(Math.floor(address / PAGE_SIZE));
  }

  /** Gives the VMA a group for its anonymous pages: a neighbour's that it could be merged with, or a new one. */
  prepareAnonymous(vma: Vma): void {
    if (vma.anonGroup !== 0) return;
    const next = this.vmas.after(vma);
    const previous = this.vmas.before(vma);
    if (next !== undefined && next.anonGroup > 0 && alike(vma, next)) vma.anonGroup = next.anonGroup;
    else if (previous !== undefined && previous.anonGroup > 0 && alike(previous, vma)) {
      vma.anonGroup = previous.anonGroup;
    } else vma.anonGroup = ++this.#groups;
  }

  /** A group for memory that a fork inherited. */
  inheritedGroup(): number {
    return -++this.#groups;
  }

  /** Makes both ends of a range borders of VMAs and of huge pages. */
  split(start: number, end: number): void {
    this.vmas.split(start);
    this.vmas.split(end);
    this.table.splitEdges(start / PAGE_SIZE, end / PAGE_SIZE);
  }

  /** Drops the content of a part of one VMA. */
  zap(vma: Vma, start: number, end: number, how: number): void {
    if (vma.huge) {
      this.hugeTable.update(start / HUGE_PAGE_SIZE, end / HUGE_PAGE_SIZE, (entry) => {
        const left = this.#leftover(vma, entry, how);
        if (left !== entry && (entry & PTE.PRESENT) !== 0) this.pool.releaseHuge(entry >>> FRAME_SHIFT);
        return left;
      });
      return;
    }
    const from = start / PAGE_SIZE;
    const until = end / PAGE_SIZE;
    this.invalidateRange(from, until);
    this.table.splitEdges(from, until);
    const drop = (entry: number): void => {
      if ((entry & PTE.PRESENT) !== 0) this.pool.release(entry >>> FRAME_SHIFT);
    };
    if (how === ZAP.UNMAP) {
      this.table.clear(from, until, drop);
      return;
    }
    this.table.update(from, until, (entry, page) => {
      const left = this.#leftover(vma, entry, how);
      if (left !== entry) {
        drop(entry);
        this.table.split(page);
      }
      return left;
    });
  }

  /** What a zap makes of an entry. */
  #leftover(vma: Vma, entry: number, how: number): number {
    if (how === ZAP.UNMAP) return 0;
    // In memory of an object a mark outlives its page, even the object's end; only huge objects take it along.
    const keeps = !vma.anonymous && !(how === ZAP.TRUNCATE && vma.huge);
    const left = keeps && vma.writeProtect && (entry & PTE.WP) !== 0 ? WP_MARKER : 0;
    if ((entry & PTE.MARKER) !== 0) {
      if ((entry & PTE.GUARD) !== 0) return entry;
      if ((entry & PTE.POISON) !== 0) return how === ZAP.HOLE ? entry : left;
      return keeps ? entry : 0;
    }
    return how === ZAP.HOLE && (entry & PTE.ANON) !== 0 ? entry : left;
  }

  /** Removes all mappings of a range. */
  unmap(start: number, end: number): void {
    this.split(start, end);
    for (const vma of this.vmas.overlapping(start, end)) this.#drop(vma);
  }

  #drop(vma: Vma): void {
    this.zap(vma, vma.start, vma.end, ZAP.UNMAP);
    this.vmas.remove(vma);
  }

  findFree(byteLength: number, alignment: number): number {
    return this.vmas.findFree(byteLength, alignment, MMAP_FLOOR, MMAP_CEILING);
  }

  /** A place for memory of the system itself. */
  findSystemPlace(byteLength: number): number {
    return this.vmas.findFree(byteLength, PAGE_SIZE, MMAP_CEILING, SYSTEM_CEILING);
  }

  isFree(start: number, end: number): boolean {
    const vma = this.vmas.from(start);
    return vma === undefined || vma.start >= end;
  }

  /** The page tables of a range allow what the (new) protection of its VMA allows, or less. */
  narrow(vma: Vma, start: number, end: number): void {
    const denied = (vma.readable ? 0 : PTE.READ) | (vma.writable ? 0 : PTE.WRITE);
    if (denied === 0) return;
    const change = (entry: number): number => ((entry & PTE.PRESENT) === 0 ? entry : entry & ~denied);
    if (vma.huge) this.hugeTable.update(start / HUGE_PAGE_SIZE, end / HUGE_PAGE_SIZE, change);
    else this.table.update(start / PAGE_SIZE, end / PAGE_SIZE, change);
    this.invalidateRange(start / PAGE_SIZE, end / PAGE_SIZE);
  }

  /** The VMAs that are registered with a context. */
  registeredWith(ctx: Context): Vma[] {
    return [...this.vmas].filter((vma) => vma.ctx === ctx);
  }

  invalidate(page: number): void {
    this.onInvalidate?.(page, page + 1);
  }

  invalidateRange(from: number, until: number): void {
    this.onInvalidate?.(from, until);
  }
}

/** Whether two neighbours are alike but for the protection, so that they may share a group of anonymous pages. */
function alike(vma: Vma, next: Vma): boolean {
  return (
    vma.end === next.start &&
    vma.shared === next.shared &&
    vma.object === next.object &&
    vma.flags === next.flags &&
    vma.modes === next.modes &&
    vma.pageOffset + (vma.end - vma.start) / PAGE_SIZE === next.pageOffset
  );
}
