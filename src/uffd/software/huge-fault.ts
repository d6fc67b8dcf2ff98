// Faults in hugetlb memory: the rules of `fault`, one entry for each 2 MiB.
//
// A private mapping of such memory takes its first touch from the object's cache too, if something is there, but a
// page that it allocates itself never enters the cache.

import { HUGE_PAGE_SIZE } from "../../abi/memory.ts";
import { UFFD_PAGEFAULT_FLAG } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import { FAULT, type Faulter, raise, raiseProtected } from "./fault.ts";
import { FRAME_SHIFT, PTE } from "./page-table.ts";
import type { Vma } from "./vma.ts";

export function hugeFault(
  space: AddressSpace,
  vma: Vma,
  faulter: Faulter,
  address: number,
  write: boolean,
  kernelMode: boolean,
): number {
  const page = Math.floor(address / HUGE_PAGE_SIZE);
  const entry = space.hugeTable.get(page);
  if ((entry & PTE.POISON) !== 0 && (entry & PTE.MARKER) !== 0) return FAULT.POISON;
  if ((entry & PTE.PRESENT) === 0) return fillHugePage(space, vma, faulter, address, page, write, kernelMode);
  if (!write || (entry & PTE.WRITE) !== 0) {
    space.hugeTable.set(page, entry | PTE.READ);
    return FAULT.DONE;
  }
  return makeHugeWritable(space, vma, faulter, address, page, entry, kernelMode);
}

/** Index of the huge page of the object that an address shows. */
export function hugeIndexOf(vma: Vma, address: number): number {
  return Math.floor(vma.indexOf(address) / (HUGE_PAGE_SIZE / 4096));
}

function fillHugePage(
  space: AddressSpace,
  vma: Vma,
  faulter: Faulter,
  address: number,
  page: number,
  write: boolean,
  kernelMode: boolean,
): number {
  const object = vma.object!;
  const index = hugeIndexOf(vma, address);
  const flags = write ? UFFD_PAGEFAULT_FLAG.WRITE : 0;
  const mark = space.hugeTable.get(page) & PTE.WP;
  let frame = object.frameOf(index);
  if (frame >= 0) {
    if (vma.minor) {
      return raise(space, vma, faulter, address, flags | UFFD_PAGEFAULT_FLAG.MINOR, kernelMode);
    }
  } else {
    if (object.isBeyond(index)) return FAULT.BUS;
    if (vma.missing) return raise(space, vma, faulter, address, flags, kernelMode);
    frame = vma.shared ? object.frameFor(index) : space.pool.allocateHuge();
    if (frame <= 0) return FAULT.BUS;
    if (!vma.shared) return mapHugePrivate(space, vma, page, frame, mark);
  }
  if (!vma.shared && write && mark === 0) {
    const copy = space.pool.allocateHuge();
    if (copy === 0) return FAULT.BUS;
    space.pool.copy(copy, frame, HUGE_PAGE_SIZE);
    return mapHugePrivate(space, vma, page, copy, mark);
  }
  mapHugeCached(space, vma, page, frame, mark);
  return FAULT.DONE;
}

export function mapHugePrivate(
  space: AddressSpace,
  vma: Vma,
  page: number,
  frame: number,
  mark: number,
): number {
  space.prepareAnonymous(vma);
  const write = vma.writable && mark === 0 ? PTE.WRITE : 0;
  const bits = PTE.PRESENT | PTE.READ | PTE.ANON | PTE.EXCLUSIVE | write | mark;
  space.hugeTable.set(page, (frame << FRAME_SHIFT) | bits);
  return FAULT.DONE;
}

export function mapHugeCached(
  space: AddressSpace,
  vma: Vma,
  page: number,
  frame: number,
  mark: number,
): void {
  space.pool.share(frame);
  const write = vma.shared && vma.writable && mark === 0 ? PTE.WRITE : 0;
  space.hugeTable.set(page, (frame << FRAME_SHIFT) | PTE.PRESENT | PTE.READ | write | mark);
}

function makeHugeWritable(
  space: AddressSpace,
  vma: Vma,
  faulter: Faulter,
  address: number,
  page: number,
  found: number,
  kernelMode: boolean,
): number {
  const protection = raiseProtected(space, vma, faulter, address, found, kernelMode);
  if (protection !== undefined) return protection;
  const entry = vma.writeProtect ? found & ~PTE.WP : found;
  const { pool } = space;
  const frame = entry >>> FRAME_SHIFT;
  const own = (entry & PTE.ANON) !== 0 && ((entry & PTE.EXCLUSIVE) !== 0 || pool.users(frame) === 1);
  if (vma.shared || own) {
    const exclusive = own ? PTE.EXCLUSIVE : 0;
    space.hugeTable.set(page, entry | PTE.READ | PTE.WRITE | exclusive);
    return FAULT.DONE;
  }
  const copy = pool.allocateHuge();
  if (copy === 0) return FAULT.BUS;
  pool.copy(copy, frame, HUGE_PAGE_SIZE);
  pool.releaseHuge(frame);
  return mapHugePrivate(space, vma, page, copy, 0);
}
