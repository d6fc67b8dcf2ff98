// mmap, munmap, mprotect: making, removing and protecting VMAs.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, MAP, PAGE_SIZE, PROT, TASK_SIZE } from "../../abi/memory.ts";
import { roundUp } from "../../base/range.ts";
import { type AddressSpace, MMAP_FLOOR } from "./address-space.ts";
import { populateLocked } from "./advice.ts";
import { FEATURE } from "./context.ts";
import { notifyUnmap, prepareUnmap } from "./events.ts";
import { ACCESS, FAULT, fault } from "./fault.ts";
import { PTE } from "./page-table.ts";
import type { Blocking } from "./scheduler.ts";
import type { SharedObject } from "./shared-object.ts";
import type { SoftwareThread } from "./thread.ts";
import { VMA, Vma } from "./vma.ts";

/** What is mapped: an object from a page on, or nothing (anonymous memory). */
export interface Backing {
  readonly object: SharedObject | undefined;
  /** Writing through a shared mapping is allowed. */
  readonly mayWrite: boolean;
}

export interface MapRequest {
  readonly address: number;
  readonly byteLength: number;
  readonly prot: number;
  readonly flags: number;
  readonly backing: Backing;
  readonly offset: number;
}

const MAP_TYPE = 0x0f;
const MAP_SHARED_VALIDATE = 3;
const MAP_LOCKED = 0x2000;

/** mmap: the address, or a negative errno. `request.backing` is an object that the VMA then refers to itself. */
export function* mapMemory(thread: SoftwareThread, request: MapRequest): Blocking<number> {
  const { space } = thread.process;
  const { flags, prot, backing } = request;
  const unit = backing.object?.kind === "huge" ? HUGE_PAGE_SIZE : PAGE_SIZE;
  const byteLength = roundUp(request.byteLength, unit);
  const type = flags & MAP_TYPE;
  const shared = type === MAP.SHARED || type === MAP_SHARED_VALIDATE;
  const fixed = (flags & (MAP.FIXED | MAP.FIXED_NOREPLACE)) !== 0;
  const start = fixed ? request.address : chooseAddress(space, request.address, byteLength, unit, backing);
  const refused = checkPlace(space, start, byteLength, unit, flags);
  if (refused !== 0) return refused;
  if (backing.object?.kind === "huge" && byteLength > space.pool.hugePagesMax * HUGE_PAGE_SIZE) {
    return -ERRNO.ENOMEM;
  }
  const notices = prepareUnmap(space, start, start + byteLength);
  space.unmap(start, start + byteLength);
  const { object } = backing;
  const vma = new Vma({
    space,
    start,
    end: start + byteLength,
    prot: prot & (PROT.READ | PROT.WRITE | PROT.EXEC),
    shared,
    object,
    pageOffset: object === undefined ? start / PAGE_SIZE : request.offset / PAGE_SIZE,
    mayWrite: !shared || backing.mayWrite,
    flags: vmaFlags(type, flags),
  });
  vma.flags = accountFor(vma, vma.prot);
  space.vmas.insert(vma);
  space.vmas.merge(vma.start, vma.end);
  yield* notifyUnmap(thread, notices);
  if ((flags & (MAP.POPULATE | MAP_LOCKED)) !== 0 && prot !== PROT.NONE) {
    yield* populateLocked(thread, start, start + byteLength);
  }
  return start;
}

function vmaFlags(type: number, flags: number): number {
  return (
    (type === MAP.DROPPABLE ? VMA.DROPPABLE | VMA.WIPE_ON_FORK | VMA.NO_RESERVE : 0) |
    ((flags & MAP.NORESERVE) !== 0 ? VMA.NO_RESERVE : 0) |
    ((flags & MAP_LOCKED) !== 0 ? VMA.LOCKED : 0)
  );
}

/** The flags of a VMA that gets this protection: what becomes writable counts, what never was written counts no more. */
function accountFor(vma: Vma, prot: number): number {
  if ((prot & PROT.WRITE) !== 0) {
    const free = vma.shared || vma.huge || vma.has(VMA.NO_RESERVE);
    return free ? vma.flags : vma.flags | VMA.ACCOUNT;
  }
  return vma.anonymous && vma.anonGroup === 0 ? vma.flags & ~VMA.ACCOUNT : vma.flags;
}

function chooseAddress(
  space: AddressSpace,
  wish: number,
  byteLength: number,
  unit: number,
  backing: Backing,
): number {
  const hint = roundUp(wish, unit);
  if (wish !== 0 && hint >= MMAP_FLOOR && hint + byteLength <= TASK_SIZE) {
    if (space.isFree(hint, hint + byteLength)) return hint;
  }
  // Linux places anonymous memory that could be huge pages where it can be.
  const huge = unit === HUGE_PAGE_SIZE || (backing.object === undefined && byteLength % HUGE_PAGE_SIZE === 0);
  return space.findFree(byteLength, huge ? HUGE_PAGE_SIZE : PAGE_SIZE);
}

function checkPlace(
  space: AddressSpace,
  start: number,
  byteLength: number,
  unit: number,
  flags: number,
): number {
  if (start === 0 && (flags & MAP.FIXED) === 0) return -ERRNO.ENOMEM;
  if (byteLength > TASK_SIZE || start > TASK_SIZE - byteLength) return -ERRNO.ENOMEM;
  if (start % PAGE_SIZE !== 0 || start % unit !== 0) return -ERRNO.EINVAL;
  if (start < MMAP_FLOOR) return -ERRNO.EPERM;
  if (touchesSpecial(space, start, start + byteLength)) return -ERRNO.EINVAL;
  if ((flags & MAP.FIXED_NOREPLACE) !== 0 && !space.isFree(start, start + byteLength)) return -ERRNO.EEXIST;
  return 0;
}

/** Whether a range holds scratch memory, which its process can neither unmap nor move nor protect. */
export function touchesSpecial(space: AddressSpace, start: number, end: number): boolean {
  return space.vmas.overlapping(start, end).some((vma) => vma.has(VMA.SPECIAL));
}

/** Maps bytes that never fault: scratch memory, the vDSO. Its address. */
export function mapWired(
  space: AddressSpace,
  bytes: Uint8Array,
  prot: number = PROT.READ | PROT.WRITE,
  name = "",
): number {
  const byteLength = roundUp(bytes.length, PAGE_SIZE);
  const start = space.findSystemPlace(byteLength);
  const vma = new Vma({
    space,
    start,
    end: start + byteLength,
    prot,
    shared: true,
    pageOffset: 0,
    flags: VMA.SPECIAL,
    wired: bytes,
    name,
  });
  space.vmas.insert(vma);
  return start;
}

/** munmap: 0 or a negative errno. */
export function* unmapMemory(thread: SoftwareThread, start: number, byteLength: number): Blocking<number> {
  const { space } = thread.process;
  const end = start + roundUp(byteLength, PAGE_SIZE);
  if (start % PAGE_SIZE !== 0 || byteLength <= 0 || !(end <= TASK_SIZE)) return -ERRNO.EINVAL;
  if (touchesSpecial(space, start, end) || cutsHugePages(space, start, end)) return -ERRNO.EINVAL;
  const notices = prepareUnmap(space, start, end);
  space.unmap(start, end);
  yield* notifyUnmap(thread, notices);
  return 0;
}

/** Whether an end of the range lies inside a page of hugetlb memory. */
export function cutsHugePages(space: AddressSpace, start: number, end: number): boolean {
  return [start, end].some((border) => {
    const vma = space.vmas.at(border);
    return vma?.huge === true && vma.start < border && border % HUGE_PAGE_SIZE !== 0;
  });
}

/** mprotect: 0 or a negative errno. What came before a hole or a refusal keeps its new protection. */
export function protectMemory(
  thread: SoftwareThread,
  start: number,
  byteLength: number,
  prot: number,
): number {
  const { space } = thread.process;
  if (start % PAGE_SIZE !== 0) return -ERRNO.EINVAL;
  if (byteLength === 0) return 0;
  const end = start + roundUp(byteLength, PAGE_SIZE);
  if (!(end <= TASK_SIZE)) return -ERRNO.ENOMEM;
  if ((prot & ~(PROT.READ | PROT.WRITE | PROT.EXEC)) !== 0) return -ERRNO.EINVAL;
  let reached = start;
  for (const vma of space.vmas.overlapping(start, end)) {
    if (vma.start > reached) return -ERRNO.ENOMEM;
    if (vma.has(VMA.SPECIAL)) return -ERRNO.EACCES;
    if (vma.shared && (prot & PROT.WRITE) !== 0 && !vma.mayWrite) return -ERRNO.EACCES;
    const from = Math.max(start, vma.start);
    const until = Math.min(end, vma.end);
    if (vma.huge && (from % HUGE_PAGE_SIZE !== 0 || until % HUGE_PAGE_SIZE !== 0)) return -ERRNO.EINVAL;
    reached = until;
    if (vma.prot === prot) continue;
    space.split(from, until);
    for (const part of space.vmas.overlapping(from, until)) {
      part.flags = accountFor(part, prot);
      const becomesWritable = !part.writable && (prot & PROT.WRITE) !== 0;
      part.prot = prot;
      space.narrow(part, from, until);
      if (becomesWritable && part.has(VMA.LOCKED) && !part.shared) bringAtOnce(thread, part, from, until);
    }
    space.vmas.merge(from, until);
  }
  return reached < end ? -ERRNO.ENOMEM : 0;
}

/** Locked memory that becomes writable gets its pages, as far as that can be done without waiting for anybody. */
function bringAtOnce(thread: SoftwareThread, vma: Vma, from: number, until: number): void {
  const { space } = thread.process;
  for (let address = from; address < until; address += PAGE_SIZE) {
    while (space.translate(address, PTE.WRITE) < 0) {
      if (wouldWait(space, vma, address)) return;
      if (fault(space, thread, address, ACCESS.WRITE, true) !== FAULT.DONE) return;
    }
  }
}

function wouldWait(space: AddressSpace, vma: Vma, address: number): boolean {
  const entry = space.entryAt(vma, address);
  if ((entry & PTE.PRESENT) !== 0) {
    return vma.writeProtect && (entry & PTE.WP) !== 0 && !vma.ctx!.has(FEATURE.WP_ASYNC);
  }
  const isCached = vma.object !== undefined && vma.object.frameOf(vma.indexOf(address)) >= 0;
  return isCached ? vma.minor : vma.missing;
}
