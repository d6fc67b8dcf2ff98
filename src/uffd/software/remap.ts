// mremap: growing, shrinking and moving memory, and the events that go with it.
//
//   MREMAP_FIXED: the target is unmapped first (UNMAP event, delivered first)
//   shrink:       the tail is unmapped (UNMAP event)
//   move:         pages go to the new place (REMAP event), then the old range is unmapped (UNMAP event, last)

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, MREMAP, PAGE_SIZE, TASK_SIZE } from "../../abi/memory.ts";
import { roundUp } from "../../base/range.ts";
import type { AddressSpace } from "./address-space.ts";
import { populateLocked } from "./advice.ts";
import { type Context, FEATURE } from "./context.ts";
import { notifyRemap, notifyUnmap, prepareUnmap, type UnmapNotice } from "./events.ts";
import { touchesSpecial } from "./mapping.ts";
import type { PageTable } from "./page-table.ts";
import { clearMarks } from "./register.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { VMA, type Vma } from "./vma.ts";

const FLAGS = MREMAP.MAYMOVE | MREMAP.FIXED | MREMAP.DONTUNMAP;

interface Remap {
  readonly space: AddressSpace;
  readonly from: number;
  oldLength: number;
  newLength: number;
  readonly flags: number;
  readonly to: number;
  /** Events to deliver at the end, in this order. */
  readonly early: UnmapNotice[];
  remapped: { readonly ctx: Context; readonly to: number } | undefined;
  readonly late: UnmapNotice[];
}

/** mremap: the address of the memory afterwards, or a negative errno. */
export function* remapMemory(
  thread: SoftwareThread,
  from: number,
  oldBytes: number,
  newBytes: number,
  flags: number,
  to: number,
): Blocking<number> {
  const { space } = thread.process;
  const remap: Remap = {
    space,
    from,
    oldLength: Math.ceil(oldBytes / PAGE_SIZE) * PAGE_SIZE,
    newLength: roundUp(newBytes, PAGE_SIZE),
    flags,
    to,
    early: [],
    remapped: undefined,
    late: [],
  };
  const refused = checkArguments(remap);
  const result = refused !== 0 ? refused : isPureMove(remap) ? moveAll(remap) : remapOne(remap);
  // A shrunken move tells the length that was moved.
  const moved = remap.oldLength;
  if (result >= 0) yield* populateGrowth(thread, result, moved, remap.newLength);
  yield* notifyUnmap(thread, remap.early);
  if (remap.remapped !== undefined) {
    yield* notifyRemap(thread, remap.remapped.ctx, from, remap.remapped.to, moved);
  }
  yield* notifyUnmap(thread, remap.late);
  return result;
}

/** What grew in locked memory is made resident. */
function* populateGrowth(thread: SoftwareThread, at: number, before: number, now: number): Blocking<void> {
  const { space } = thread.process;
  const vma = space.vmas.at(at);
  if (now <= before || vma === undefined || !vma.has(VMA.LOCKED)) return;
  yield* populateLocked(thread, at + before, at + now);
}

function checkArguments({ space, from, oldLength, newLength, flags, to }: Remap): number {
  if ((flags & ~FLAGS) !== 0 || from % PAGE_SIZE !== 0) return -ERRNO.EINVAL;
  if (newLength === 0 || newLength > TASK_SIZE) return -ERRNO.EINVAL;
  if (touchesSpecial(space, from, from + Math.max(oldLength, 1))) return -ERRNO.EINVAL;
  if ((flags & (MREMAP.FIXED | MREMAP.DONTUNMAP)) === 0) return 0;
  if (to > TASK_SIZE - newLength || to % PAGE_SIZE !== 0) return -ERRNO.EINVAL;
  if ((flags & MREMAP.MAYMOVE) === 0) return -ERRNO.EINVAL;
  if ((flags & MREMAP.DONTUNMAP) !== 0 && oldLength !== newLength) return -ERRNO.EINVAL;
  // A length that wraps around overlaps nothing.
  const end = from + (oldLength >= 2 ** 63 ? oldLength - 2 ** 64 : oldLength);
  const overlap = to < end && from < to + newLength;
  if (overlap || touchesSpecial(space, to, to + newLength)) return -ERRNO.EINVAL;
  return 0;
}

/** A move to a fixed place without a change of size takes along what it finds, also several VMAs. */
function isPureMove({ oldLength, newLength, flags }: Remap): boolean {
  return (flags & MREMAP.FIXED) !== 0 && oldLength === newLength;
}

function moveAll(remap: Remap): number {
  const { space, from, oldLength, to } = remap;
  const end = from + oldLength;
  const vmas = space.vmas.overlapping(from, end);
  const [first] = vmas;
  if (first === undefined || first.start > from) return -ERRNO.EFAULT;
  if (first.end >= end) return remapOne(remap);
  for (const vma of vmas) {
    // An event would have to be told in the middle of it.
    if (vma.ctx !== undefined) return -ERRNO.EFAULT;
    const start = Math.max(from, vma.start);
    const length = Math.min(end, vma.end) - start;
    const part = { ...remap, from: start, oldLength: length, newLength: length, to: to + (start - from) };
    const result = remapOne(part);
    if (result < 0) return result;
  }
  return to;
}

function remapOne(remap: Remap): number {
  const { space, from, flags } = remap;
  const vma = space.vmas.at(from);
  if (vma === undefined) return -ERRNO.EFAULT;
  if (vma.huge) {
    remap.oldLength = roundUp(remap.oldLength, HUGE_PAGE_SIZE);
    remap.newLength = roundUp(remap.newLength, HUGE_PAGE_SIZE);
    if (from % HUGE_PAGE_SIZE !== 0 || remap.to % HUGE_PAGE_SIZE !== 0) return -ERRNO.EINVAL;
    if (remap.newLength > remap.oldLength) return -ERRNO.EINVAL;
  }
  const toWish = (flags & (MREMAP.FIXED | MREMAP.DONTUNMAP)) !== 0;
  if (!toWish && remap.newLength <= remap.oldLength) {
    // Shrinking in place unmaps the rest, whatever stands there.
    const refused = shrink(remap);
    return refused === 0 ? from : refused;
  }
  if (remap.oldLength === 0 && !vma.shared) return -ERRNO.EINVAL;
  // What is cut off may lie anywhere; what is moved must lie in one VMA.
  if (Math.min(remap.oldLength, remap.newLength) > vma.end - from) return -ERRNO.EFAULT;
  if (toWish) return moveToWish(remap);
  return grow(remap, vma);
}

function shrink(remap: Remap): number {
  const { space, from, oldLength, newLength } = remap;
  if (newLength >= oldLength) return 0;
  if (from + oldLength > TASK_SIZE) return -ERRNO.EINVAL;
  remap.late.push(...prepareUnmap(space, from + newLength, from + oldLength));
  space.unmap(from + newLength, from + oldLength);
  remap.oldLength = newLength;
  return 0;
}

function grow(remap: Remap, vma: Vma): number {
  const { space, from, oldLength, newLength } = remap;
  const end = from + newLength;
  if (from + oldLength === vma.end && end <= TASK_SIZE && space.isFree(vma.end, end)) {
    vma.end = end;
    space.vmas.merge(vma.start, end);
    return from;
  }
  if ((remap.flags & MREMAP.MAYMOVE) === 0) return -ERRNO.ENOMEM;
  const place = space.findFree(newLength, PAGE_SIZE);
  return place === 0 ? -ERRNO.ENOMEM : move(remap, vma, place);
}

function moveToWish(remap: Remap): number {
  const { space, from, flags, to } = remap;
  let place = to;
  if ((flags & MREMAP.FIXED) !== 0) {
    remap.early.push(...prepareUnmap(space, to, to + remap.newLength));
    space.unmap(to, to + remap.newLength);
    // The target may have been the source.
    if (space.vmas.at(from) === undefined) return -ERRNO.EFAULT;
  } else if (to === 0 || !space.isFree(to, to + remap.newLength)) {
    place = space.findFree(remap.newLength, space.vmas.at(from)!.huge ? HUGE_PAGE_SIZE : PAGE_SIZE);
    if (place === 0) return -ERRNO.ENOMEM;
  }
  const refused = shrink(remap);
  if (refused !== 0) return refused;
  return move(remap, space.vmas.at(from)!, place);
}

function move(remap: Remap, vma: Vma, to: number): number {
  const { space, from, oldLength, newLength, flags } = remap;
  const copy = vma.copyOf(from, from + oldLength);
  copy.start = to;
  copy.end = to + newLength;
  if (copy.anonymous && copy.anonGroup === 0) copy.pageOffset = to / PAGE_SIZE;
  const ctx = vma.ctx;
  const keeps = ctx?.has(FEATURE.EVENT_REMAP) === true;
  // Marks are cleared where the registration does not move along.
  if (!keeps && ctx !== undefined) clearMarks(space, vma, from, from + oldLength, true);
  space.vmas.insert(copy);
  space.vmas.merge(to, to + newLength);
  if (keeps) {
    ctx.changing++;
    remap.remapped = { ctx, to };
  } else if (ctx !== undefined) {
    // With it, as in Linux, goes the registration of a neighbour that the new place was merged with.
    const merged = space.vmas.at(to)!;
    merged.ctx = undefined;
    merged.modes = 0;
  }
  movePages(space, vma, from, to, oldLength);
  if ((flags & MREMAP.DONTUNMAP) !== 0) {
    leaveBehind(space, vma, from, oldLength);
  } else if (oldLength > 0) {
    // A length of 0 asks for a second mapping of the same object; the first stays whole.
    remap.late.push(...prepareUnmap(space, from, from + oldLength));
    space.unmap(from, from + oldLength);
  }
  return to;
}

/** MREMAP_DONTUNMAP: the old place stays, empty, with its registration. */
function leaveBehind(space: AddressSpace, vma: Vma, from: number, byteLength: number): void {
  if (vma.start === from && vma.end === from + byteLength) vma.anonGroup = 0;
  // All of what it was a part of is locked no more.
  const left = space.vmas.at(from);
  if (left !== undefined) left.flags &= ~VMA.LOCKED;
}

function movePages(space: AddressSpace, vma: Vma, from: number, to: number, byteLength: number): void {
  const unit = vma.huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
  const table = vma.huge ? space.hugeTable : space.table;
  if (!vma.huge) {
    table.splitEdges(from / unit, (from + byteLength) / unit);
    space.invalidateRange(from / unit, (from + byteLength) / unit);
  }
  shift(table, from / unit, (from + byteLength) / unit, (to - from) / unit);
}

function shift(table: PageTable, from: number, until: number, distance: number): void {
  // Source and target never overlap, so entries can be moved in any order.
  table.update(from, until, (entry, page) => {
    table.split(page);
    table.set(page + distance, entry);
    return 0;
  });
}
