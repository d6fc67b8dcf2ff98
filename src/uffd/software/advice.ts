// madvise, mlock and munlock.
//
// A range is walked VMA by VMA; holes are skipped and answered with ENOMEM at the end. What drops content
// tells EVENT_REMOVE first, and looks everything up again when it had to wait.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, MADV, PAGE_SIZE, PROT } from "../../abi/memory.ts";
import { roundDown, roundUp } from "../../base/range.ts";
import { type AddressSpace, ZAP } from "./address-space.ts";
import { notifyRemove } from "./events.ts";
import { ACCESS, FAULT } from "./fault.ts";
import { FRAME_SHIFT, GUARD_MARKER, isMarker, PTE } from "./page-table.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { faultIn } from "./user-access.ts";
import { VMA, type Vma } from "./vma.ts";

const UNMERGEABLE = 13;
const MERGEABLE = 12;
const DONT_DUMP = 16;
const DO_DUMP = 17;
const WIPE_ON_FORK = 18;
const KEEP_ON_FORK = 19;

/** Advice that sets and clears flags of VMAs. */
const FLAG_CHANGES: ReadonlyMap<number, { readonly set: number; readonly clear: number }> = new Map([
  [MADV.NORMAL, { set: 0, clear: VMA.RANDOM | VMA.SEQUENTIAL }],
  [MADV.RANDOM, { set: VMA.RANDOM, clear: VMA.SEQUENTIAL }],
  [MADV.SEQUENTIAL, { set: VMA.SEQUENTIAL, clear: VMA.RANDOM }],
  [MADV.DONTFORK, { set: VMA.DONT_FORK, clear: 0 }],
  [MADV.DOFORK, { set: 0, clear: VMA.DONT_FORK }],
  [MADV.HUGEPAGE, { set: VMA.HUGE_ADVICE, clear: VMA.NO_HUGE_ADVICE }],
  [MADV.NOHUGEPAGE, { set: VMA.NO_HUGE_ADVICE, clear: VMA.HUGE_ADVICE }],
  [DONT_DUMP, { set: VMA.DONT_DUMP, clear: 0 }],
  [DO_DUMP, { set: 0, clear: VMA.DONT_DUMP }],
  [WIPE_ON_FORK, { set: VMA.WIPE_ON_FORK, clear: 0 }],
  [KEEP_ON_FORK, { set: 0, clear: VMA.WIPE_ON_FORK }],
  [MERGEABLE, { set: VMA.MERGEABLE, clear: 0 }],
  [UNMERGEABLE, { set: 0, clear: VMA.MERGEABLE }],
]);

const OTHER_ADVICE: ReadonlySet<number> = new Set([
  MADV.WILLNEED,
  MADV.DONTNEED,
  MADV.DONTNEED_LOCKED,
  MADV.FREE,
  MADV.REMOVE,
  MADV.COLD,
  MADV.PAGEOUT,
  MADV.POPULATE_READ,
  MADV.POPULATE_WRITE,
  MADV.COLLAPSE,
  MADV.GUARD_INSTALL,
  MADV.GUARD_REMOVE,
]);

/** madvise: 0 or a negative errno. */
export function* advise(
  thread: SoftwareThread,
  start: number,
  byteLength: number,
  advice: number,
): Blocking<number> {
  const { space } = thread.process;
  if (!FLAG_CHANGES.has(advice) && !OTHER_ADVICE.has(advice)) return -ERRNO.EINVAL;
  const end = start + roundUp(byteLength, PAGE_SIZE);
  if (start % PAGE_SIZE !== 0 || !(end < 2 ** 64)) return -ERRNO.EINVAL;
  if (end === start) return 0;
  if (advice === MADV.POPULATE_READ || advice === MADV.POPULATE_WRITE) {
    return yield* populateAdvice(thread, start, end, advice === MADV.POPULATE_WRITE);
  }
  let unmapped = 0;
  for (let at = start; at < end; ) {
    const vma = space.vmas.from(at);
    if (vma === undefined || vma.start >= end) return -ERRNO.ENOMEM;
    if (vma.start > at) {
      unmapped = -ERRNO.ENOMEM;
      at = vma.start;
    }
    const until = Math.min(end, vma.end);
    const result = yield* adviseVma(thread, vma, at, until, advice);
    if (result < 0) return result;
    at = result > 0 ? result : until;
  }
  return unmapped;
}

/** A part of one VMA: 0, how far it came (an address) if that is less, or a negative errno. */
function* adviseVma(
  thread: SoftwareThread,
  vma: Vma,
  start: number,
  end: number,
  advice: number,
): Blocking<number> {
  const { space } = thread.process;
  const change = FLAG_CHANGES.get(advice);
  if (change !== undefined) return changeFlags(space, vma, start, end, change);
  switch (advice) {
    case MADV.DONTNEED:
    case MADV.DONTNEED_LOCKED:
    case MADV.FREE:
      return yield* discard(thread, vma, start, end, advice);
    case MADV.REMOVE:
      return yield* removePages(thread, vma, start, end);
    case MADV.GUARD_INSTALL:
      return installGuards(space, vma, start, end);
    case MADV.GUARD_REMOVE:
      return removeGuards(space, vma, start, end);
    case MADV.COLD:
    case MADV.PAGEOUT:
      return vma.has(VMA.LOCKED | VMA.SPECIAL) || vma.huge ? -ERRNO.EINVAL : 0;
    case MADV.COLLAPSE:
      return -ERRNO.EINVAL;
    default:
      return 0;
  }
}

function changeFlags(
  space: AddressSpace,
  vma: Vma,
  start: number,
  end: number,
  { set, clear }: { readonly set: number; readonly clear: number },
): number {
  if (vma.has(VMA.SPECIAL)) return -ERRNO.EINVAL;
  if (set === VMA.WIPE_ON_FORK && (vma.shared || !vma.anonymous)) return -ERRNO.EINVAL;
  if (clear === VMA.WIPE_ON_FORK && vma.has(VMA.DROPPABLE)) return -ERRNO.EINVAL;
  const flags = (vma.flags & ~clear) | set;
  if (flags === vma.flags) return 0;
  space.split(start, end);
  for (const part of space.vmas.overlapping(start, end)) part.flags = flags;
  space.vmas.merge(start, end);
  return 0;
}

function* discard(
  thread: SoftwareThread,
  found: Vma,
  start: number,
  wish: number,
  advice: number,
): Blocking<number> {
  const { space } = thread.process;
  let end = wish;
  if (!canDiscard(found, start, advice)) return -ERRNO.EINVAL;
  if (found.huge) end = roundDown(end, HUGE_PAGE_SIZE);
  if (end <= start) return 0;
  let vma: Vma | undefined = found;
  let reached = 0;
  if (yield* notifyRemove(thread, vma.ctx, start, end)) {
    vma = space.vmas.at(start);
    if (vma === undefined) return -ERRNO.ENOMEM;
    if (!canDiscard(vma, start, advice)) return -ERRNO.EINVAL;
    // If the VMA was split meanwhile, the rest is walked next, and told again.
    if (vma.end < end) reached = vma.end;
    end = Math.min(end, vma.end);
  }
  if (advice === MADV.FREE && !vma.anonymous) return -ERRNO.EINVAL;
  if (advice !== MADV.FREE) space.zap(vma, start, end, ZAP.DISCARD);
  else freeLazily(space, start, end);
  return reached;
}

/** MADV_FREE leaves content as long as there is memory enough, and here there always is; poison goes. */
function freeLazily(space: AddressSpace, start: number, end: number): void {
  space.table.update(start / PAGE_SIZE, end / PAGE_SIZE, (entry) =>
    isMarker(entry, PTE.POISON) ? 0 : entry,
  );
}

function canDiscard(vma: Vma, start: number, advice: number): boolean {
  if (vma.has(VMA.SPECIAL)) return false;
  if (vma.has(VMA.LOCKED) && advice !== MADV.DONTNEED_LOCKED) return false;
  return !vma.huge || (advice !== MADV.FREE && start % HUGE_PAGE_SIZE === 0);
}

/** MADV_REMOVE: a hole in the shared object. */
function* removePages(thread: SoftwareThread, vma: Vma, start: number, end: number): Blocking<number> {
  if (vma.has(VMA.LOCKED)) return -ERRNO.EINVAL;
  const { object } = vma;
  if (object === undefined || object.kind === "file") return -ERRNO.EINVAL;
  if (!vma.shared || !vma.mayWrite) return -ERRNO.EACCES;
  const { pageSize } = object;
  const offset = vma.indexOf(start) * PAGE_SIZE;
  yield* notifyRemove(thread, vma.ctx, start, end);
  punchHole(object, roundUp(offset, pageSize), roundDown(offset + (end - start), pageSize));
  return 0;
}

/** Drops [from, until), bytes of an object, from its cache and from whoever maps it. */
export function punchHole(object: NonNullable<Vma["object"]>, from: number, until: number): void {
  if (until <= from) return;
  zapMappings(object, from, until, ZAP.HOLE);
  object.drop(from / object.pageSize, until / object.pageSize);
}

/** Drops what the mappings of an object show of [from, until). */
export function zapMappings(
  object: NonNullable<Vma["object"]>,
  from: number,
  until: number,
  how: number,
): void {
  for (const vma of [...object.mappings]) {
    const shift = vma.start - vma.pageOffset * PAGE_SIZE;
    const start = Math.max(vma.start, from + shift);
    const end = Math.min(vma.end, until + shift);
    if (start < end) vma.space.zap(vma, start, end, how);
  }
}

function installGuards(space: AddressSpace, vma: Vma, start: number, end: number): number {
  if (vma.huge || vma.has(VMA.SPECIAL | VMA.LOCKED)) return -ERRNO.EINVAL;
  if (!vma.shared) space.prepareAnonymous(vma);
  space.zap(vma, start, end, ZAP.UNMAP);
  for (let page = start / PAGE_SIZE; page < end / PAGE_SIZE; page++) space.table.set(page, GUARD_MARKER);
  return 0;
}

function removeGuards(space: AddressSpace, vma: Vma, start: number, end: number): number {
  if (vma.huge || vma.has(VMA.SPECIAL)) return -ERRNO.EINVAL;
  space.table.update(start / PAGE_SIZE, end / PAGE_SIZE, (entry) => (isMarker(entry, PTE.GUARD) ? 0 : entry));
  return 0;
}

/** MADV_POPULATE_*: every page is looked at anew, since all may have changed while one was waited for. */
function* populateAdvice(
  thread: SoftwareThread,
  start: number,
  end: number,
  write: boolean,
): Blocking<number> {
  const { space } = thread.process;
  const access = write ? ACCESS.WRITE : ACCESS.READ;
  const bit = write ? PTE.WRITE : PTE.READ;
  for (let at = start; at < end; at += PAGE_SIZE) {
    for (;;) {
      const vma = space.vmas.at(at);
      if (vma === undefined) return -ERRNO.ENOMEM;
      if (vma.has(VMA.SPECIAL)) return -ERRNO.EINVAL;
      if (write ? !vma.writable : vma.prot === PROT.NONE) return -ERRNO.EINVAL;
      if (space.translate(at, bit) >= 0) break;
      const result = yield* faultIn(space, thread, at, access);
      if (result !== FAULT.DONE) return result === FAULT.POISON ? -ERRNO.EHWPOISON : -ERRNO.EFAULT;
    }
  }
  return 0;
}

/** mlock: 0 or a negative errno. Pages of private writable memory are written, others read. */
export function* lockMemory(thread: SoftwareThread, address: number, byteLength: number): Blocking<number> {
  const { space } = thread.process;
  const start = roundDown(address, PAGE_SIZE);
  const end = roundUp(address + byteLength, PAGE_SIZE);
  if (end >= 2 ** 64) return -ERRNO.EINVAL;
  const set = setLocked(space, start, end, VMA.LOCKED);
  if (set !== 0) return set;
  return yield* populateLocked(thread, start, end, false);
}

/**
 * Makes locked memory resident. What was unmapped while a page was waited for is skipped; what cannot be brought ends
 * it, or (for who has no use for the answer) the rest of that VMA is passed over.
 */
export function* populateLocked(
  thread: SoftwareThread,
  start: number,
  end: number,
  passOver = true,
): Blocking<number> {
  const { space } = thread.process;
  for (let at = start; at < end; ) {
    const vma = space.vmas.from(at);
    if (vma === undefined || vma.start >= end) return 0;
    at = Math.max(at, vma.start);
    const write = vma.writable && !vma.shared;
    if (vma.has(VMA.SPECIAL) || space.translate(at, write ? PTE.WRITE : PTE.READ) >= 0) {
      at += PAGE_SIZE;
      continue;
    }
    const result = yield* faultIn(space, thread, at, write ? ACCESS.WRITE : ACCESS.READ);
    if (result === FAULT.DONE) continue;
    if (!passOver) return -ERRNO.ENOMEM;
    at = space.vmas.at(at)?.end ?? at + PAGE_SIZE;
  }
  return 0;
}

export function unlockMemory(space: AddressSpace, address: number, byteLength: number): number {
  const start = roundDown(address, PAGE_SIZE);
  const end = roundUp(address + byteLength, PAGE_SIZE);
  return end >= 2 ** 64 ? -ERRNO.EINVAL : setLocked(space, start, end, 0);
}

function setLocked(space: AddressSpace, start: number, end: number, flag: number): number {
  if (end === start) return 0;
  let reached = start;
  for (const vma of space.vmas.overlapping(start, end)) {
    if (vma.start > reached) return -ERRNO.ENOMEM;
    const from = Math.max(start, vma.start);
    const until = Math.min(end, vma.end);
    reached = until;
    const fixed = vma.huge || vma.has(VMA.SPECIAL | VMA.DROPPABLE);
    if (fixed || (vma.flags & VMA.LOCKED) === flag) continue;
    space.split(from, until);
    for (const part of space.vmas.overlapping(from, until)) part.flags = (part.flags & ~VMA.LOCKED) | flag;
    space.vmas.merge(from, until);
  }
  return reached < end ? -ERRNO.ENOMEM : 0;
}

/** mincore of one page: in memory, or (where an object is behind it) in its cache. */
export function isInCore(space: AddressSpace, vma: Vma, address: number): boolean {
  if (vma.wired !== undefined) return true;
  if ((space.entryAt(vma, address) & PTE.PRESENT) !== 0) return true;
  const unit = vma.object === undefined ? 1 : vma.object.pageSize / PAGE_SIZE;
  return vma.object !== undefined && vma.object.frameOf(Math.floor(vma.indexOf(address) / unit)) >= 0;
}

/** Whether an entry maps the zero page. */
export function isZeroPage(entry: number): boolean {
  return (entry & PTE.PRESENT) !== 0 && entry >>> FRAME_SHIFT === 0;
}
