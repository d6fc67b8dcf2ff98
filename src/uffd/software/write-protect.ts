// WRITEPROTECT: sets or removes the uffd-wp mark of each page in a range.
//
// VMAs are walked in address order and gaps are skipped; the first VMA that is not registered for it stops the
// walk, and what was changed before stays changed.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../abi/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import { FEATURE } from "./context.ts";
import { type PageTable, PTE, WP_MARKER } from "./page-table.ts";
import { clearMarks } from "./register.ts";
import type { Vma } from "./vma.ts";

/** 0 or a negative errno. */
export function writeProtect(space: AddressSpace, start: number, end: number, protect: boolean): number {
  let found = -ERRNO.ENOENT;
  for (const vma of space.vmas.overlapping(start, end)) {
    if (!vma.writeProtect) return -ERRNO.ENOENT;
    if (vma.huge && (start % HUGE_PAGE_SIZE !== 0 || end % HUGE_PAGE_SIZE !== 0)) return -ERRNO.EINVAL;
    const from = Math.max(start, vma.start);
    const until = Math.min(end, vma.end);
    if (protect) setMarks(space, vma, from, until);
    else clearMarks(space, vma, from, until);
    found = 0;
  }
  return found;
}

/** Marks what is present, and (where markers are used) what is not. */
export function setMarks(space: AddressSpace, vma: Vma, start: number, end: number): void {
  const unit = vma.huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
  const table = vma.huge ? space.hugeTable : space.table;
  const from = start / unit;
  const until = end / unit;
  if (!vma.huge) table.splitEdges(from, until);
  table.update(from, until, protectEntry);
  if (usesMarkers(vma)) markEmpty(table, from, until);
  if (!vma.huge) space.invalidateRange(from, until);
}

/** An entry with the mark: no longer writable. Poison and guards stay what they are. */
export function protectEntry(entry: number): number {
  if ((entry & PTE.PRESENT) === 0) return entry;
  return (entry | PTE.WP) & ~PTE.WRITE;
}

function markEmpty(table: PageTable, from: number, until: number): void {
  for (let page = from; page < until; page++) if (table.get(page) === 0) table.set(page, WP_MARKER);
}

/** Whether an empty page can be marked: where an object is behind it always, else by its feature. */
export function usesMarkers(vma: Vma): boolean {
  if (!vma.writeProtect) return false;
  return !vma.anonymous || vma.ctx!.has(FEATURE.WP_UNPOPULATED);
}
