// A page fault: an access that the page table does not allow as it stands. What follows is decided here.
//
//   no VMA ─▶ SIGSEGV     forbidden ─▶ SIGSEGV     guard ─▶ SIGSEGV     beyond the end, poison ─▶ SIGBUS
//   empty:    registered MISSING (or MINOR and cached) ─▶ the thread waits      else ─▶ filled
//   present:  written while uffd-wp ─▶ the thread waits       else ─▶ copied or made writable
//
// `fault` never blocks: its answer says that the access can be repeated, that the thread now stands in the queue
// of a context (and is to be suspended), or which signal it gets.

import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../abi/memory.ts";
import { UFFD_PAGEFAULT_FLAG } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import { type Context, type FaultWaiter, FEATURE } from "./context.ts";
import { HUGE_FRAMES, ZERO_FRAME } from "./frame-pool.ts";
import { hugeFault } from "./huge-fault.ts";
import { FRAME_SHIFT, LEAF_ENTRIES, PTE } from "./page-table.ts";
import { VMA, type Vma } from "./vma.ts";

export const ACCESS = { READ: 0, WRITE: 1, EXECUTE: 2 } as const;

/**
 * How a fault ends. UNMAPPED and FORBIDDEN are SIGSEGV with SEGV_MAPERR and SEGV_ACCERR, BUS and POISON are SIGBUS
 * with BUS_ADRERR.
 */
export const FAULT = { DONE: 0, WAIT: 1, UNMAPPED: 2, FORBIDDEN: 3, BUS: 4, POISON: 5 } as const;

/** Pages that a read fault in a cached object maps at once (fault-around). */
const AROUND = 16;

/** Who faults: its place in a queue, and whether a system call makes the access. */
export interface Faulter {
  readonly waiter: FaultWaiter;
}

export function fault(
  space: AddressSpace,
  faulter: Faulter,
  address: number,
  access: number,
  kernelMode: boolean,
): number {
  const vma = space.vmas.at(address);
  if (vma === undefined) return FAULT.UNMAPPED;
  if (!allows(vma, access)) return FAULT.FORBIDDEN;
  if (vma.wired !== undefined) return FAULT.DONE;
  if (vma.huge) return hugeFault(space, vma, faulter, address, access === ACCESS.WRITE, kernelMode);
  const page = Math.floor(address / PAGE_SIZE);
  let entry = space.table.get(page);
  if ((entry & PTE.MARKER) !== 0) {
    if ((entry & PTE.POISON) !== 0) return FAULT.POISON;
    if ((entry & PTE.GUARD) !== 0) return FAULT.UNMAPPED;
    if (!vma.writeProtect) {
      // A mark that outlived its registration.
      space.table.set(page, 0);
      entry = 0;
    }
  }
  const write = access === ACCESS.WRITE;
  if ((entry & PTE.PRESENT) === 0) {
    if (vma.anonymous) return fillAnonymous(space, vma, faulter, address, page, write, kernelMode);
    return fillFromObject(space, vma, faulter, address, page, write, kernelMode);
  }
  if (write && (entry & PTE.WRITE) === 0) {
    return makeWritable(space, vma, faulter, address, page, entry, kernelMode);
  }
  // Present, but the protection was narrower when it was mapped.
  space.table.set(page, entry | PTE.READ);
  return FAULT.DONE;
}

function allows(vma: Vma, access: number): boolean {
  // The processor tells a fetch from a read only where the page is present: see `performAccess`.
  return access === ACCESS.WRITE ? vma.writable : vma.readable;
}

/** Queues the faulter with the context of the VMA; refused where the context does not want such faults. */
export function raise(
  space: AddressSpace,
  vma: Vma,
  faulter: Faulter,
  address: number,
  flags: number,
  kernelMode: boolean,
): number {
  const ctx = vma.ctx as Context;
  if (ctx.has(FEATURE.SIGBUS) || (kernelMode && ctx.userModeOnly)) return FAULT.BUS;
  const exact = space.profile.exactAddress || ctx.has(FEATURE.EXACT_ADDRESS);
  const unit = vma.huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
  ctx.enqueue(faulter.waiter, exact ? address : address - (address & (unit - 1)), flags);
  return FAULT.WAIT;
}

function fillAnonymous(
  space: AddressSpace,
  vma: Vma,
  faulter: Faulter,
  address: number,
  page: number,
  write: boolean,
  kernelMode: boolean,
): number {
  if (write) space.prepareAnonymous(vma);
  if (vma.missing) {
    const flags = write ? UFFD_PAGEFAULT_FLAG.WRITE : 0;
    return raise(space, vma, faulter, address, flags, kernelMode);
  }
  if (vma.has(VMA.HUGE_ADVICE) && fillHuge(space, vma, page, write)) return FAULT.DONE;
  // A mark on the empty page stays: the first write is then a write-protect fault.
  const mark = space.table.get(page) & PTE.WP;
  if (!write) {
    space.table.set(page, (ZERO_FRAME << FRAME_SHIFT) | PTE.PRESENT | PTE.READ | mark);
    return FAULT.DONE;
  }
  return mapAnonymous(space, vma, page, space.pool.allocateZeroed(), mark);
}

/** Maps a fresh private frame; the fault is not resolved while it is marked. */
function mapAnonymous(space: AddressSpace, vma: Vma, page: number, frame: number, mark: number): number {
  if (frame === 0) return FAULT.BUS;
  const write = vma.writable && mark === 0 ? PTE.WRITE : 0;
  const bits = PTE.PRESENT | PTE.READ | PTE.ANON | PTE.EXCLUSIVE | write | mark;
  space.table.set(page, (frame << FRAME_SHIFT) | bits);
  return FAULT.DONE;
}

/** Transparent huge page: fills the aligned 2 MiB around an address if they lie in the VMA and are all empty. */
function fillHuge(space: AddressSpace, vma: Vma, page: number, write: boolean): boolean {
  const first = page - (page % LEAF_ENTRIES);
  if (first * PAGE_SIZE < vma.start || (first + LEAF_ENTRIES) * PAGE_SIZE > vma.end) return false;
  const leaf = space.table.leaf(first / LEAF_ENTRIES);
  if (leaf.some((entry) => entry !== 0)) return false;
  if (!write) {
    leaf.fill((ZERO_FRAME << FRAME_SHIFT) | PTE.PRESENT | PTE.READ);
  } else {
    for (let index = 0; index < HUGE_FRAMES; index++) {
      mapAnonymous(space, vma, first + index, space.pool.allocateZeroed(), 0);
    }
  }
  space.table.markHuge(page);
  return true;
}

function fillFromObject(
  space: AddressSpace,
  vma: Vma,
  faulter: Faulter,
  address: number,
  page: number,
  write: boolean,
  kernelMode: boolean,
): number {
  const object = vma.object!;
  const index = vma.indexOf(address);
  if (write && !vma.shared) space.prepareAnonymous(vma);
  // Fault-around maps what is cached nearby before anybody asks what the page itself wants.
  if (!write && !vma.writeProtect && !vma.minor) mapAround(space, vma, page);
  if (object.isBeyond(index)) return FAULT.BUS;
  let frame = object.frameOf(index);
  const flags = write ? UFFD_PAGEFAULT_FLAG.WRITE : 0;
  if (frame < 0 && vma.missing) return raise(space, vma, faulter, address, flags, kernelMode);
  if (frame >= 0 && vma.minor) {
    return raise(space, vma, faulter, address, flags | UFFD_PAGEFAULT_FLAG.MINOR, kernelMode);
  }
  if (frame < 0) frame = object.frameFor(index);
  if (frame < 0) return FAULT.BUS;
  const mark = space.table.get(page) & PTE.WP;
  if (write && !vma.shared) {
    const copy = space.pool.allocate();
    if (copy !== 0) space.pool.copy(copy, frame, PAGE_SIZE);
    return mapAnonymous(space, vma, page, copy, mark);
  }
  mapCached(space, page, frame, mark | (write && mark === 0 ? PTE.WRITE : 0));
  return FAULT.DONE;
}

/** Maps a frame of a page cache. */
export function mapCached(space: AddressSpace, page: number, frame: number, bits: number): void {
  space.pool.share(frame);
  space.table.set(page, (frame << FRAME_SHIFT) | PTE.PRESENT | PTE.READ | bits);
}

/** Maps the cached pages around one that is read: within its aligned 64 KiB, its VMA and its object. */
function mapAround(space: AddressSpace, vma: Vma, page: number): void {
  const first = Math.max(page - (page % AROUND), vma.start / PAGE_SIZE);
  const until = Math.min(page - (page % AROUND) + AROUND, vma.end / PAGE_SIZE);
  for (let near = first; near < until; near++) {
    if (near === page || space.table.get(near) !== 0) continue;
    const index = vma.indexOf(near * PAGE_SIZE);
    if (vma.object!.isBeyond(index)) return;
    const frame = vma.object!.frameOf(index);
    if (frame >= 0) mapCached(space, near, frame, 0);
  }
}

/** Tells of a store to a protected page, unless nobody is to be told (WP_ASYNC): undefined then, and where it is not protected. */
export function raiseProtected(
  space: AddressSpace,
  vma: Vma,
  faulter: Faulter,
  address: number,
  entry: number,
  kernelMode: boolean,
): number | undefined {
  if ((entry & PTE.WP) === 0 || !vma.writeProtect || vma.ctx!.has(FEATURE.WP_ASYNC)) return undefined;
  const flags = UFFD_PAGEFAULT_FLAG.WRITE | UFFD_PAGEFAULT_FLAG.WP;
  return raise(space, vma, faulter, address, flags, kernelMode);
}

function makeWritable(
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
  space.table.split(page);
  if (vma.shared) {
    space.table.set(page, entry | PTE.READ | PTE.WRITE);
    return FAULT.DONE;
  }
  const frame = entry >>> FRAME_SHIFT;
  if ((entry & PTE.ANON) !== 0 && ((entry & PTE.EXCLUSIVE) !== 0 || space.pool.users(frame) === 1)) {
    space.table.set(page, entry | PTE.READ | PTE.WRITE | PTE.EXCLUSIVE);
    return FAULT.DONE;
  }
  return copyOnWrite(space, vma, page, entry);
}

/** Replaces a zero page, a page of a cache or a page shared since a fork by a private copy. */
function copyOnWrite(space: AddressSpace, vma: Vma, page: number, entry: number): number {
  const { pool } = space;
  const old = entry >>> FRAME_SHIFT;
  space.prepareAnonymous(vma);
  const frame = old === ZERO_FRAME ? pool.allocateZeroed() : pool.allocate();
  if (frame === 0) return FAULT.BUS;
  if (old !== ZERO_FRAME) pool.copy(frame, old, PAGE_SIZE);
  pool.release(old);
  space.invalidate(page);
  const bits = PTE.PRESENT | PTE.READ | PTE.WRITE | PTE.ANON | PTE.EXCLUSIVE;
  space.table.set(page, (frame << FRAME_SHIFT) | bits);
  return FAULT.DONE;
}

/** Gives a process a page of its own, marks and all, where it shares one since a fork: for a reader from outside. */
export function unshare(space: AddressSpace, address: number): void {
  const vma = space.vmas.at(address);
  if (vma === undefined || vma.shared || vma.huge) return;
  const page = Math.floor(address / PAGE_SIZE);
  const entry = space.table.get(page);
  if ((entry & PTE.PRESENT) === 0 || (entry & PTE.ANON) === 0 || (entry & PTE.EXCLUSIVE) !== 0) return;
  const { pool } = space;
  const old = entry >>> FRAME_SHIFT;
  space.table.split(page);
  if (pool.users(old) === 1) {
    space.table.set(page, entry | PTE.EXCLUSIVE);
    return;
  }
  const frame = pool.allocate();
  if (frame === 0) return;
  pool.copy(frame, old, PAGE_SIZE);
  pool.release(old);
  space.invalidate(page);
  const bits = PTE.PRESENT | PTE.READ | PTE.ANON | PTE.EXCLUSIVE | (entry & PTE.WP);
  space.table.set(page, (frame << FRAME_SHIFT) | bits);
}
