// MOVE: takes pages away from one place and gives them to another, without copying.

import { ERRNO } from "../../abi/errno.ts";
import { PAGE_SIZE } from "../../abi/memory.ts";
import type { Context } from "./context.ts";
import type { FillProgress } from "./fill.ts";
import { FRAME_SHIFT, PTE } from "./page-table.ts";
import { VMA, type Vma } from "./vma.ts";

/** Moves page by page upwards; `progress` says how far it came and why it stopped (0: it did all). */
export function movePages(
  ctx: Context,
  target: number,
  source: number,
  byteLength: number,
  allowHoles: boolean,
  progress: FillProgress,
): void {
  progress.done = 0;
  progress.stop = checkPlaces(ctx, target, source, byteLength);
  while (progress.stop === 0 && progress.done < byteLength) {
    const at = progress.done;
    progress.stop = movePage(ctx, (target + at) / PAGE_SIZE, (source + at) / PAGE_SIZE, allowHoles);
    if (progress.stop === 0) progress.done += PAGE_SIZE;
  }
  if (progress.done > 0) {
    const from = source / PAGE_SIZE;
    ctx.space.invalidateRange(from, from + progress.done / PAGE_SIZE);
  }
}

function checkPlaces(ctx: Context, target: number, source: number, byteLength: number): number {
  const { vmas } = ctx.space;
  const to = vmas.at(target);
  if (to === undefined) return -ERRNO.ENOENT;
  if (!to.shared) ctx.space.prepareAnonymous(to);
  const from = vmas.at(source);
  if (from === undefined) return -ERRNO.ENOENT;
  if (ctx.changing > 0) return -ERRNO.EAGAIN;
  if (!isOwn(from, source, byteLength) || !isOwn(to, target, byteLength)) return -ERRNO.EINVAL;
  if (from.prot !== to.prot || from.has(VMA.LOCKED) !== to.has(VMA.LOCKED)) return -ERRNO.EINVAL;
  if (!from.writable || !from.anonymous || !to.anonymous) return -ERRNO.EINVAL;
  if (from.has(VMA.SPECIAL) || to.has(VMA.SPECIAL) || to.ctx !== ctx) return -ERRNO.EINVAL;
  return 0;
}

function isOwn(vma: Vma, start: number, byteLength: number): boolean {
  return !vma.shared && start + byteLength <= vma.end;
}

function movePage(ctx: Context, to: number, from: number, allowHoles: boolean): number {
  const { table } = ctx.space;
  // The destination is looked at before the source.
  if (table.get(to) !== 0) return -ERRNO.EEXIST;
  const entry = table.get(from);
  if (entry === 0) return allowHoles ? 0 : -ERRNO.ENOENT;
  if ((entry & PTE.MARKER) !== 0) return -ERRNO.EFAULT;
  table.split(from);
  if (entry >>> FRAME_SHIFT === 0) {
    table.set(to, PTE.PRESENT | PTE.READ);
  } else {
    if ((entry & PTE.EXCLUSIVE) === 0) return -ERRNO.EBUSY;
    // Writable and without its mark: the place decides about protection, not the page.
    table.set(to, (entry | PTE.READ | PTE.WRITE) & ~PTE.WP);
  }
  table.set(from, 0);
  return 0;
}
