// REGISTER and UNREGISTER: all checks before any change, in the order of the kernel.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../abi/memory.ts";
import { UFFDIO_NR, UFFDIO_REGISTER_MODE } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import { type Context, FEATURE } from "./context.ts";
import { PTE, WP_MARKER } from "./page-table.ts";
import { VMA, type Vma } from "./vma.ts";

const { MISSING, WP, MINOR } = UFFDIO_REGISTER_MODE;

/** Registers [start, end), which the caller has checked to be a range of user space: 0 or a negative errno. */
export function register(ctx: Context, start: number, end: number, modes: number): number {
  const { space } = ctx;
  const checked = checkRange(space, start, end);
  if (checked !== 0) return checked;
  const vmas = space.vmas.overlapping(start, end);
  for (const vma of vmas) {
    if (!canRegister(ctx, vma, modes)) return -ERRNO.EINVAL;
    if (!vma.mayWrite) return -ERRNO.EPERM;
    if (cutsHugePage(vma, end)) return -ERRNO.EINVAL;
    if (vma.ctx !== undefined && vma.ctx !== ctx) return -ERRNO.EBUSY;
  }
  for (const vma of vmas) {
    // What has all the modes already stays as it is, other modes included.
    if (vma.ctx === ctx && (vma.modes & modes) === modes) continue;
    setRegistration(space, Math.max(start, vma.start), Math.min(end, vma.end), ctx, modes);
  }
  return 0;
}

/** Unregisters what is registered in [start, end): 0 or a negative errno. */
export function unregister(ctx: Context, start: number, end: number): number {
  const { space } = ctx;
  const checked = checkRange(space, start, end);
  if (checked !== 0) return checked;
  const vmas = space.vmas.overlapping(start, end);
  for (const vma of vmas) {
    if (vma.ctx !== undefined && vma.ctx !== ctx) return -ERRNO.EINVAL;
    if (!canRegister(ctx, vma, vma.modes)) return -ERRNO.EINVAL;
  }
  for (const vma of vmas) {
    if (vma.ctx === undefined) continue;
    const from = Math.max(start, vma.start);
    const until = Math.min(end, vma.end);
    // Who waits in memory that had only WP or MINOR goes on waiting.
    if (vma.missing && space.profile.unregisterWakes) vma.ctx.wake(from, until);
    clearRegistration(space, vma, from, until);
  }
  return 0;
}

/** The last descriptor of a context is gone: its memory becomes ordinary, and whoever waits goes on. */
export function releaseContext(ctx: Context): void {
  ctx.released = true;
  for (const vma of ctx.space.registeredWith(ctx)) {
    if (vma.ctx === ctx) clearRegistration(ctx.space, vma, vma.start, vma.end);
  }
  ctx.wake(0, Number.POSITIVE_INFINITY);
  for (const event of [...ctx.events]) {
    if (event.child !== undefined) releaseContext(event.child);
    ctx.completeEvent(event);
  }
  ctx.readers.wakeAll();
  if (ctx.space.profile.keepsMemory) ctx.space.release();
}

/** The ioctls that REGISTER answers. */
export function rangeIoctls(space: AddressSpace, start: number, end: number, modes: number): bigint {
  const huge = space.vmas.overlapping(start, end).some((vma) => vma.huge);
  let mask = huge ? space.profile.hugeRangeIoctls : space.profile.rangeIoctls;
  if ((modes & WP) === 0) mask &= ~(1n << BigInt(UFFDIO_NR.WRITEPROTECT));
  if ((modes & MINOR) === 0) mask &= ~(1n << BigInt(UFFDIO_NR.CONTINUE));
  return mask;
}

function checkRange(space: AddressSpace, start: number, end: number): number {
  if (!space.alive) return -ERRNO.ENOMEM;
  const first = space.vmas.from(start);
  if (first === undefined && space.profile.unmappedIsNoMemory) return -ERRNO.ENOMEM;
  if (first === undefined || first.start >= end) return -ERRNO.EINVAL;
  return first.huge && start % HUGE_PAGE_SIZE !== 0 ? -ERRNO.EINVAL : 0;
}

function cutsHugePage(vma: Vma, end: number): boolean {
  return vma.huge && end > vma.start && end <= vma.end && end % HUGE_PAGE_SIZE !== 0;
}

/** Whether memory of this kind can have these modes (none of them, when it is unregistered). */
function canRegister(ctx: Context, vma: Vma, modes: number): boolean {
  if (vma.has(VMA.DROPPABLE | VMA.SPECIAL)) return false;
  if (ctx.space.profile.anonymousOnly) return vma.anonymous;
  if ((modes & MINOR) !== 0 && !vma.huge && !vma.shmem) return false;
  // With asynchronous write protection any memory will do, if that is all that is asked.
  if (ctx.has(FEATURE.WP_ASYNC) && modes === WP) return true;
  return vma.anonymous || vma.huge || vma.shmem;
}

/** Gives a range that lies in one VMA to a context, with exactly these modes. */
export function setRegistration(
  space: AddressSpace,
  start: number,
  end: number,
  ctx: Context | undefined,
  modes: number,
): void {
  space.split(start, end);
  for (const vma of space.vmas.overlapping(start, end)) {
    vma.ctx = ctx;
    vma.modes = modes & (MISSING | WP | MINOR);
  }
  space.vmas.merge(start, end);
}

function clearRegistration(space: AddressSpace, vma: Vma, start: number, end: number): void {
  if (vma.writeProtect) clearMarks(space, vma, start, end);
  setRegistration(space, start, end, undefined, 0);
}

/**
 * Removes uffd-wp from what is present, and the markers that stand for it. Poison and guards stay, with the mark
 * that PAGEMAP_SCAN may have given them, unless `fromAll`.
 */
export function clearMarks(space: AddressSpace, vma: Vma, start: number, end: number, fromAll = false): void {
  const change = (entry: number): number => {
    if (entry === WP_MARKER) return 0;
    return (entry & PTE.MARKER) === 0 || fromAll ? entry & ~PTE.WP : entry;
  };
  if (vma.huge) space.hugeTable.update(start / HUGE_PAGE_SIZE, end / HUGE_PAGE_SIZE, change);
  else space.table.update(start / PAGE_SIZE, end / PAGE_SIZE, change);
}
