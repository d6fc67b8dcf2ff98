// fork: the child's memory and descriptors, and EVENT_FORK, for which the parent waits before the child runs.
//
// Private pages are shared by both until one of them writes: their entries lose WRITE and EXCLUSIVE on both sides.
// Where a page fault would find everything again (memory that has no private pages and keeps no marks), the
// child begins with empty page tables.

import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../abi/memory.ts";
import { UFFD_EVENT } from "../../abi/userfaultfd.ts";
import { AddressSpace } from "./address-space.ts";
import { Context, EventWaiter, FEATURE } from "./context.ts";
import { deliver } from "./events.ts";
import { FRAME_SHIFT, type PageTable, PTE, WP_MARKER } from "./page-table.ts";
import { SoftwareProcess } from "./process.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { VMA, Vma } from "./vma.ts";

/** The body of a fork: the child's pid. `born` is told the child when it can run. */
export function* forkProcess(
  thread: SoftwareThread,
  born: (child: SoftwareProcess) => void,
): Blocking<number> {
  const parent = thread.process;
  // The descriptors are copied first: a context can't end in the parent while the fork waits.
  const descriptors = parent.descriptors.copy();
  const contexts = new Map<Context, Context>();
  const space = copySpace(parent.space, contexts);
  let finished = false;
  const told = new Set<Context>();
  try {
    for (const [ctx, copy] of contexts) {
      told.add(ctx);
      yield* deliver(ctx, new EventWaiter(UFFD_EVENT.FORK, thread, [0, 0, 0], copy));
    }
    finished = true;
  } finally {
    if (!finished) {
      for (const ctx of contexts.keys()) if (!told.has(ctx)) ctx.changing--;
      space.release();
      descriptors.closeAll();
    }
  }
  const child = parent.system.adopt(new SoftwareProcess(parent.system, { parent, space, descriptors }));
  parent.children.add(child);
  born(child);
  return child.pid;
}

function copySpace(parent: AddressSpace, contexts: Map<Context, Context>): AddressSpace {
  const space = new AddressSpace(parent.profile, parent.pool);
  for (const vma of parent.vmas) {
    if (vma.has(VMA.DONT_FORK)) continue;
    space.vmas.insert(vma.wired === undefined ? copyVma(space, vma, contexts) : shareWired(space, vma));
  }
  return space;
}

/** Scratch memory is the same bytes in both: the child's own scratch is another area. */
function shareWired(space: AddressSpace, vma: Vma): Vma {
  const { start, end, prot, shared, pageOffset, flags, wired, name } = vma;
  return new Vma({ space, start, end, prot, shared, pageOffset, flags, wired: wired!, name });
}

function copyVma(space: AddressSpace, vma: Vma, contexts: Map<Context, Context>): Vma {
  const copy = vma.copyOf(vma.start, vma.end, space);
  copy.flags &= ~VMA.LOCKED;
  if (copy.anonGroup !== 0) copy.anonGroup = space.inheritedGroup();
  if (vma.ctx?.has(FEATURE.EVENT_FORK)) {
    copy.ctx = childContext(vma.ctx, space, contexts);
  } else {
    copy.ctx = undefined;
    copy.modes = 0;
  }
  if (vma.has(VMA.WIPE_ON_FORK)) {
    copy.anonGroup = 0;
    return copy;
  }
  // Without private pages and marks, page faults fill the child's tables as needed.
  if (copy.writeProtect || vma.anonGroup !== 0) copyPages(vma, copy);
  return copy;
}

function childContext(ctx: Context, space: AddressSpace, contexts: Map<Context, Context>): Context {
  let copy = contexts.get(ctx);
  if (copy === undefined) {
    copy = new Context(space, ctx.userModeOnly);
    copy.features = ctx.features;
    copy.enabled = true;
    copy.openFlags = ctx.openFlags;
    ctx.changing++;
    contexts.set(ctx, copy);
  }
  return copy;
}

function copyPages(from: Vma, to: Vma): void {
  const { pool } = from.space;
  const unit = from.huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
  const table: PageTable = from.huge ? from.space.hugeTable : from.space.table;
  const target: PageTable = to.huge ? to.space.hugeTable : to.space.table;
  const first = from.start / unit;
  const until = from.end / unit;
  table.update(first, until, (entry, page) => {
    const [left, copied] = share(entry, from.shared, to.writeProtect);
    if (copied !== 0) target.set(page, copied);
    if ((copied & PTE.PRESENT) !== 0) pool.share(copied >>> FRAME_SHIFT);
    return left;
  });
  if (!from.huge) from.space.invalidateRange(first, until);
}

/** What becomes of an entry in the parent and in the child. */
function share(entry: number, shared: boolean, keepsMarks: boolean): readonly [number, number] {
  if ((entry & PTE.MARKER) !== 0) {
    if (entry !== WP_MARKER) return [entry, entry & ~PTE.WP];
    return [entry, keepsMarks ? entry : 0];
  }
  const left = shared ? entry : entry & ~(PTE.WRITE | PTE.EXCLUSIVE);
  return [left, keepsMarks ? left : left & ~PTE.WP];
}
