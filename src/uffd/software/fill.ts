// The fills: COPY, ZEROPAGE, CONTINUE and POISON, from the look-up of the memory to the last page.
//
// All of them go page by page and stop at the first that cannot be filled; what was done until then stays. The
// argument checks that come before belong to the ioctl layer. A fill answers how many bytes it did and why it
// stopped, in two fields of one reused object: this runs once a fault.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../abi/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import type { Context } from "./context.ts";
import { mapCached } from "./fault.ts";
import { ZERO_FRAME } from "./frame-pool.ts";
import { hugeIndexOf, mapHugeCached, mapHugePrivate } from "./huge-fault.ts";
import { FRAME_SHIFT, POISON_MARKER, PTE } from "./page-table.ts";
import type { Vma } from "./vma.ts";

export const FILL = { COPY: 0, ZERO: 1, CONTINUE: 2, POISON: 3 } as const;

/** Where COPY takes its bytes from: the memory of whoever calls. */
export interface CopySource {
  /** Whether `byteLength` bytes from an address can be read without a fault. */
  isResident(address: number, byteLength: number): boolean;
  /** Reads them into the frame pool's bytes. */
  readInto(pool: Uint8Array, at: number, address: number, byteLength: number): void;
}

/** Asks the caller to make the source resident (a fault, perhaps a wait) and to go on from where the fill stopped. */
export const NEEDS_SOURCE = 1;

export interface FillProgress {
  /** Bytes done. */
  done: number;
  /** 0, a negative errno, or NEEDS_SOURCE. */
  stop: number;
}

/** Everything that stays the same over the pages of one fill. */
export interface FillRequest {
  readonly kind: number;
  readonly ctx: Context;
  readonly target: number;
  readonly byteLength: number;
  /** COPY and CONTINUE with their mode WP. */
  readonly protect: boolean;
  readonly source: CopySource | undefined;
  readonly sourceAddress: number;
}

/** Goes on with a fill from `progress.done`. */
export function fill(request: FillRequest, progress: FillProgress): void {
  const { ctx, target, byteLength } = request;
  const { space } = ctx;
  progress.stop = 0;
  const vma = space.vmas.at(target);
  // Found, it is prepared for private pages, even if it turns out not to be registered.
  if (vma !== undefined && !vma.shared) space.prepareAnonymous(vma);
  if (vma === undefined || vma.ctx === undefined || target + byteLength > vma.end || isForeign(vma, ctx)) {
    progress.stop = space.profile.unregisteredIsNoEntry ? -ERRNO.ENOENT : -ERRNO.EINVAL;
    return;
  }
  if (ctx.changing > 0) {
    progress.stop = -ERRNO.EAGAIN;
    return;
  }
  progress.stop = checkKind(request, vma);
  if (progress.stop !== 0) return;
  const unit = vma.huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
  while (progress.done < byteLength) {
    const address = target + progress.done;
    const result = vma.huge
      ? fillHugePage(request, space, vma, address, progress.done)
      : fillPage(request, space, vma, address, progress.done);
    if (result !== 0) {
      progress.stop = result;
      return;
    }
    progress.done += unit;
  }
}

function isForeign(vma: Vma, ctx: Context): boolean {
  return vma.ctx !== ctx && !ctx.space.profile.fillsForeign;
}

function checkKind({ kind, target, byteLength, protect }: FillRequest, vma: Vma): number {
  if (protect && !vma.writeProtect) return -ERRNO.EINVAL;
  if (vma.huge) {
    if (kind === FILL.ZERO) return -ERRNO.EINVAL;
    if (target % HUGE_PAGE_SIZE !== 0 || byteLength % HUGE_PAGE_SIZE !== 0) return -ERRNO.EINVAL;
    return 0;
  }
  if (!vma.anonymous && !vma.shmem) return -ERRNO.EINVAL;
  return kind === FILL.CONTINUE && !vma.shmem ? -ERRNO.EINVAL : 0;
}

function fillPage(
  request: FillRequest,
  space: AddressSpace,
  vma: Vma,
  address: number,
  done: number,
): number {
  const page = address / PAGE_SIZE;
  if (space.table.isHuge(page)) return -ERRNO.EEXIST;
  switch (request.kind) {
    case FILL.COPY:
      return copyPage(request, space, vma, address, page, done);
    case FILL.ZERO:
      return zeroPage(space, vma, address, page);
    case FILL.CONTINUE:
      return continuePage(space, vma, address, page, request.protect);
    default:
      return poisonPage(space, vma, address, page);
  }
}

function isBeyond(vma: Vma, address: number): boolean {
  return vma.object?.isBeyond(vma.indexOf(address)) ?? false;
}

/** An empty entry, or one that is only a marker. */
function isVacant(entry: number): boolean {
  return (entry & PTE.PRESENT) === 0;
}

function copyPage(
  { source, sourceAddress, protect }: FillRequest,
  space: AddressSpace,
  vma: Vma,
  address: number,
  page: number,
  done: number,
): number {
  // The source is read first, so a bad source wins over a page that is there already.
  const from = sourceAddress + done;
  if (source === undefined || !source.isResident(from, PAGE_SIZE)) return NEEDS_SOURCE;
  if (isBeyond(vma, address)) return -ERRNO.EFAULT;
  if (vma.shared && vma.object!.frameOf(vma.indexOf(address)) >= 0) return -ERRNO.EEXIST;
  if (!isVacant(space.table.get(page))) return -ERRNO.EEXIST;
  const { pool } = space;
  const frame = pool.allocate();
  if (frame === 0) return -ERRNO.ENOMEM;
  source.readInto(pool.bytes, frame * PAGE_SIZE, from, PAGE_SIZE);
  installFrame(space, vma, address, page, frame, protect);
  return 0;
}

/** Maps a filled frame: into the page cache too where the memory is shared. */
export function installFrame(
  space: AddressSpace,
  vma: Vma,
  address: number,
  page: number,
  frame: number,
  protect: boolean,
): void {
  const allowed = (vma.readable ? PTE.READ : 0) | (vma.writable && !protect ? PTE.WRITE : 0);
  let bits = PTE.PRESENT | allowed | (protect ? PTE.WP : 0);
  if (vma.shared) {
    vma.object!.put(vma.indexOf(address), frame);
    space.pool.share(frame);
  } else {
    bits |= PTE.ANON | PTE.EXCLUSIVE;
  }
  space.table.set(page, (frame << FRAME_SHIFT) | bits);
}

function zeroPage(space: AddressSpace, vma: Vma, address: number, page: number): number {
  if (isBeyond(vma, address)) return -ERRNO.EFAULT;
  const entry = space.table.get(page);
  if (!vma.shared) {
    if (entry !== 0) return -ERRNO.EEXIST;
    const read = vma.readable ? PTE.READ : 0;
    space.table.set(page, (ZERO_FRAME << FRAME_SHIFT) | PTE.PRESENT | read);
    return 0;
  }
  if (vma.object!.frameOf(vma.indexOf(address)) >= 0 || !isVacant(entry)) return -ERRNO.EEXIST;
  const frame = space.pool.allocateZeroed();
  if (frame === 0) return -ERRNO.ENOMEM;
  installFrame(space, vma, address, page, frame, false);
  return 0;
}

function continuePage(
  space: AddressSpace,
  vma: Vma,
  address: number,
  page: number,
  protect: boolean,
): number {
  const index = vma.indexOf(address);
  if (vma.object!.isBeyond(index)) return -ERRNO.EINVAL;
  const frame = vma.object!.frameOf(index);
  if (frame < 0) return -ERRNO.EFAULT;
  if (!isVacant(space.table.get(page))) return -ERRNO.EEXIST;
  const write = vma.shared && vma.writable && !protect ? PTE.WRITE : 0;
  mapCached(space, page, frame, write | (protect ? PTE.WP : 0));
  if (!vma.readable) space.table.set(page, space.table.get(page) & ~PTE.READ);
  return 0;
}

function poisonPage(space: AddressSpace, vma: Vma, address: number, page: number): number {
  if (isBeyond(vma, address)) return -ERRNO.EFAULT;
  if (space.table.get(page) !== 0) return -ERRNO.EEXIST;
  space.table.set(page, POISON_MARKER);
  return 0;
}

/** A huge page: here presence is tested before the source is read. */
function fillHugePage(
  request: FillRequest,
  space: AddressSpace,
  vma: Vma,
  address: number,
  done: number,
): number {
  const page = address / HUGE_PAGE_SIZE;
  const entry = space.hugeTable.get(page);
  const index = hugeIndexOf(vma, address);
  const object = vma.object!;
  const mark = request.protect ? PTE.WP : 0;
  if (request.kind === FILL.POISON) {
    if (entry !== 0) return -ERRNO.EEXIST;
    space.hugeTable.set(page, POISON_MARKER);
    return 0;
  }
  if (request.kind === FILL.CONTINUE) {
    const frame = object.frameOf(index);
    if (frame < 0) return -ERRNO.EFAULT;
    if (!isVacant(entry)) return -ERRNO.EEXIST;
    mapHugeCached(space, vma, page, frame, mark);
    return 0;
  }
  if (!isVacant(entry) || (vma.shared && object.frameOf(index) >= 0)) return -ERRNO.EEXIST;
  const { source, sourceAddress } = request;
  if (source === undefined || !source.isResident(sourceAddress + done, HUGE_PAGE_SIZE)) return NEEDS_SOURCE;
  if (object.isBeyond(index)) return -ERRNO.EFAULT;
  const frame = space.pool.allocateHuge();
  if (frame === 0) return -ERRNO.ENOMEM;
  source.readInto(space.pool.bytes, frame * PAGE_SIZE, sourceAddress + done, HUGE_PAGE_SIZE);
  if (vma.shared) {
    object.put(index, frame);
    mapHugeCached(space, vma, page, frame, mark);
  } else {
    mapHugePrivate(space, vma, page, frame, mark);
  }
  return 0;
}
