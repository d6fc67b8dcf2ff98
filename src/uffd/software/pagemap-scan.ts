// PAGEMAP_SCAN: finds the pages of a range by category, and protects what it found again in the same step.
//
// Categories of a page are compared with masks; adjacent pages of equal answers become one region. The scan ends when
// the caller's vector or its limit of pages is full, and says how far it came.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE, TASK_SIZE } from "../../abi/memory.ts";
import { pageRegion, pmScanArg } from "../../abi/structs.ts";
import { PAGE_IS, PM_SCAN } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import { FEATURE } from "./context.ts";
import { FRAME_SHIFT, LEAF_ENTRIES, PTE } from "./page-table.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { copyIn, copyOut } from "./user-access.ts";
import { VMA, type Vma } from "./vma.ts";
import { setMarks, usesMarkers } from "./write-protect.ts";

const CATEGORIES = Object.values(PAGE_IS).reduce((mask, bit) => mask | bit, 0n);
const FLAGS = PM_SCAN.WP_MATCHING | PM_SCAN.CHECK_WPASYNC;
const IS = Object.fromEntries(Object.entries(PAGE_IS).map(([name, bit]) => [name, Number(bit)])) as Record<
  keyof typeof PAGE_IS,
  number
>;

interface Region {
  readonly start: number;
  end: number;
  readonly categories: number;
}

class Scan {
  readonly space: AddressSpace;
  readonly protect: boolean;
  readonly #inverted: number;
  readonly mask: number;
  readonly #anyOf: number;
  readonly #answer: number;
  readonly #regionsMax: number;
  readonly #pagesMax: number;
  readonly regions: Region[] = [];
  #pages = 0;
  /** Where it stopped before the end; 0 when it did not. */
  stoppedAt = 0;

  constructor(space: AddressSpace, argument: Record<string, bigint>) {
    this.space = space;
    this.protect = (argument.flags! & PM_SCAN.WP_MATCHING) !== 0n;
    this.#inverted = Number(argument.category_inverted);
    this.mask = Number(argument.category_mask);
    this.#anyOf = Number(argument.category_anyof_mask);
    this.#answer = Number(argument.return_mask);
    this.#regionsMax = Number(argument.vec_len);
    this.#pagesMax = argument.max_pages === 0n ? Number.MAX_SAFE_INTEGER : Number(argument.max_pages);
  }

  /** Without a vector, protecting is all that is asked. */
  get protectsOnly(): boolean {
    return this.protect && this.#regionsMax === 0;
  }

  isInterestingVma(categories: number): boolean {
    const required = this.mask & IS.WPALLOWED;
    return ((categories ^ this.#inverted) & required) === required;
  }

  isInteresting(categories: number): boolean {
    const seen = categories ^ this.#inverted;
    if ((seen & this.mask) !== this.mask) return false;
    return this.#anyOf === 0 || (seen & this.#anyOf) !== 0;
  }

  /** Puts [start, end) into the answer: the end of what there was room for. */
  output(categories: number, start: number, end: number): number {
    if (this.#regionsMax === 0) return end;
    const answered = categories & this.#answer;
    const room = (this.#pagesMax - this.#pages) * PAGE_SIZE;
    const until = Math.min(end, start + room);
    if (until < end) this.stoppedAt = until;
    const last = this.regions.at(-1);
    if (until === start) return start;
    if (last !== undefined && last.end === start && last.categories === answered) {
      last.end = until;
    } else if (this.regions.length >= this.#regionsMax) {
      this.stoppedAt = start;
      return start;
    } else {
      this.regions.push({ start, end: until, categories: answered });
    }
    this.#pages += (until - start) / PAGE_SIZE;
    return until;
  }
}

export function* pagemapScan(thread: SoftwareThread, space: AddressSpace, at: number): Blocking<number> {
  const own = thread.process.space;
  const bytes = new Uint8Array(pmScanArg.size);
  if ((yield* copyIn(own, thread, at, bytes)) < bytes.length) return -ERRNO.EFAULT;
  const argument = pmScanArg.read(new DataView(bytes.buffer));
  const refused = checkArgument(argument);
  if (refused !== 0) return refused;
  const scan = new Scan(space, argument);
  const start = Number(argument.start);
  const end = Math.ceil(Number(argument.end) / PAGE_SIZE) * PAGE_SIZE;
  let result = scanRange(scan, start, end, (argument.flags & PM_SCAN.CHECK_WPASYNC) !== 0n);
  const regions = new Uint8Array(scan.regions.length * pageRegion.size);
  const view = new DataView(regions.buffer);
  scan.regions.forEach((region, index) => {
    pageRegion.write(view, index * pageRegion.size, { ...region });
  });
  if ((yield* copyOut(own, thread, Number(argument.vec), regions)) < regions.length) result = -ERRNO.EFAULT;
  const walkEnd = new Uint8Array(8);
  new DataView(walkEnd.buffer).setBigUint64(0, BigInt(scan.stoppedAt === 0 ? end : scan.stoppedAt), true);
  const told = yield* copyOut(own, thread, at + pmScanArg.offset.walk_end, walkEnd);
  if (told < walkEnd.length) return -ERRNO.EFAULT;
  return result === 0 ? scan.regions.length : result;
}

function checkArgument(argument: ReturnType<typeof pmScanArg.read>): number {
  const { size, flags, start, end, vec, vec_len } = argument;
  if (size !== BigInt(pmScanArg.size) || (flags & ~FLAGS) !== 0n) return -ERRNO.EINVAL;
  const asked =
    argument.category_inverted | argument.category_mask | argument.category_anyof_mask | argument.return_mask;
  if ((asked & ~CATEGORIES) !== 0n) return -ERRNO.EINVAL;
  if (start % BigInt(PAGE_SIZE) !== 0n) return -ERRNO.EINVAL;
  if (end < start || end > BigInt(TASK_SIZE)) return -ERRNO.EFAULT;
  if (vec === 0n && vec_len !== 0n) return -ERRNO.EINVAL;
  if (vec + vec_len * BigInt(pageRegion.size) > BigInt(TASK_SIZE)) return -ERRNO.EFAULT;
  return 0;
}

function scanRange(scan: Scan, start: number, end: number, mustAllow: boolean): number {
  for (const vma of scan.space.vmas.overlapping(start, end)) {
    const allowed = vma.ctx?.has(FEATURE.WP_ASYNC) === true && usesMarkers(vma);
    if (!allowed) {
      if (mustAllow) return -ERRNO.EPERM;
      if (scan.protect) continue;
    }
    const categories = allowed ? IS.WPALLOWED : 0;
    if (vma.has(VMA.SPECIAL) || !scan.isInterestingVma(categories)) continue;
    const from = Math.max(start, vma.start);
    const until = Math.min(end, vma.end);
    const stopped = vma.huge
      ? scanHuge(scan, vma, from, until, categories)
      : scanPages(scan, vma, from, until, categories);
    if (stopped) return 0;
  }
  return 0;
}

/** Goes through the pages of one VMA; true when there is no room for more. */
function scanPages(scan: Scan, vma: Vma, start: number, end: number, base: number): boolean {
  const { table } = scan.space;
  const leafBytes = LEAF_ENTRIES * PAGE_SIZE;
  for (let address = start; address < end; ) {
    const page = address / PAGE_SIZE;
    // 2 MiB that were never touched are alike.
    const step = table.hasLeaf(page) ? PAGE_SIZE : leafBytes - (address % leafBytes);
    const until = Math.min(end, address + step);
    const entry = table.get(page);
    const categories = base | categoriesOf(entry, table.isHuge(page));
    if (scan.protectsOnly ? (entry & PTE.WP) === 0 : scan.isInteresting(categories)) {
      const done = scan.output(categories, address, until);
      if (scan.protect && (categories & IS.WRITTEN) !== 0) protectPages(scan, vma, address, done);
      if (done < until || scan.stoppedAt !== 0) return true;
    }
    address = until;
  }
  return false;
}

function protectPages({ space }: Scan, vma: Vma, start: number, end: number): void {
  if (start < end) space.table.split(start / PAGE_SIZE);
  setMarks(space, vma, start, end);
  // A scan marks poison and guards too, which nothing else does.
  const mark = (entry: number): number => ((entry & PTE.MARKER) !== 0 ? entry | PTE.WP : entry);
  space.table.update(start / PAGE_SIZE, end / PAGE_SIZE, mark);
}

function categoriesOf(entry: number, huge: boolean): number {
  const written = (entry & PTE.WP) === 0 ? IS.WRITTEN : 0;
  if (entry === 0) return written;
  if ((entry & PTE.MARKER) !== 0) {
    return IS.SWAPPED | written | ((entry & PTE.GUARD) !== 0 ? IS.GUARD : 0);
  }
  const zero = entry >>> FRAME_SHIFT === 0;
  const file = (entry & PTE.ANON) === 0 && !zero ? IS.FILE : 0;
  return IS.PRESENT | written | file | (zero ? IS.PFNZERO : 0) | (huge ? IS.HUGE : 0);
}

function scanHuge(scan: Scan, vma: Vma, start: number, end: number, base: number): boolean {
  const { hugeTable } = scan.space;
  for (let address = start; address < end; ) {
    const page = Math.floor(address / HUGE_PAGE_SIZE);
    const until = Math.min(end, (page + 1) * HUGE_PAGE_SIZE);
    const entry = hugeTable.get(page);
    // Unlike a small page, one that was never touched does not count as written.
    const categories = base | IS.HUGE | (entry === 0 ? 0 : categoriesOf(entry, true));
    if (scan.isInteresting(categories)) {
      const done = scan.output(categories, address, until);
      const whole = address % HUGE_PAGE_SIZE === 0 && done - address === HUGE_PAGE_SIZE;
      if (scan.protect && whole && (categories & IS.WRITTEN) !== 0) {
        setMarks(scan.space, vma, address, until);
      }
      if (done < until || scan.stoppedAt !== 0) return true;
    }
    address = until;
  }
  return false;
}
