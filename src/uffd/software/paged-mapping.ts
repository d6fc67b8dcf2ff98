// The mapping under a paged memory: which pages are here, which were written, where each stands, and how it is brought.
//
// PagedMemory adds the accesses. They are apart because of how engines work: what a class finds ready in its base
// it can take for constant, and the loads of resident pages live on that.

import { MADV, PAGE_SIZE } from "../../abi/memory.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { ARENA_MAX } from "./arena.ts";
import { ACCESS } from "./fault.ts";
import { type PageHandler, PageService } from "./page-service.ts";
import { FRAME_SHIFT, PTE } from "./page-table.ts";
import { openRegion, type PagedRegion } from "./paged-region.ts";
import type { SoftwareProcess } from "./process.ts";
import { createSystem, type SoftwareSystem } from "./system.ts";
import { Translations } from "./translations.ts";
import { protectEntry } from "./write-protect.ts";

export interface PagedMemoryOptions {
  /** The system whose physical memory it takes its pages from, shared with others. Default: one of its own. */
  readonly system?: SoftwareSystem;
  /** @internal A region that exists already. */
  readonly region?: PagedRegion;
}

/** Bytes from start until `until` of a memory: whole pages. */
export interface PageRange {
  readonly start: number;
  readonly until: number;
}

export class PagedMapping {
  readonly byteLength: number;
  protected readonly handler: PageHandler;
  protected readonly region: PagedRegion;
  protected readonly readable: Translations;
  protected readonly writable: Translations;
  readonly #service: PageService;
  readonly #onGrow: () => void;
  #closed = false;

  constructor(byteLength: number, handler: PageHandler, options: PagedMemoryOptions = {}) {
    if (!Number.isSafeInteger(byteLength) || byteLength < 1) {
      const got = String(byteLength);
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `A memory needs a length in bytes, got ${got}`);
    }
    if (typeof handler !== "function") {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", "A memory needs a handler that brings its pages");
    }
    this.byteLength = byteLength;
    this.handler = handler;
    this.region = options.region ?? openRegion(options.system ?? ownSystem(byteLength), byteLength);
    this.#service = new PageService(this.region, handler);
    this.readable = new Translations(byteLength);
    this.writable = new Translations(byteLength);
    const { space, address } = this.region;
    const base = address / PAGE_SIZE;
    space.onInvalidate = (from, until) => this.#forget(from - base, until - base);
    this.#onGrow = () => this.grown();
    space.pool.onGrow.add(this.#onGrow);
  }

  /** The process whose memory it is, for userfaultfd by hand; the memory begins at `address` there. */
  get process(): SoftwareProcess {
    return this.region.process;
  }
  get address(): number {
    return this.region.address;
  }

  /** The pool's bytes are another object now. */
  protected grown(): void {}

  // ── finding and bringing pages ──

  /** Where in the pool's bytes the page of an offset begins, after a fault if need be. */
  protected locate(offset: number, access: number, size = 1): number {
    this.checkRange(offset, size);
    const page = Math.floor(offset / PAGE_SIZE);
    const known = (access === ACCESS.WRITE ? this.writable : this.readable).get(page);
    if (known !== 0) return known >>> 0;
    const found = this.#translate(page, access);
    if (found >= 0) return found;
    for (;;) {
      this.#service.touchNow(this.region.address + page * PAGE_SIZE, access);
      const now = this.#translate(page, access);
      if (now >= 0) return now;
    }
  }

  /** The same if no fault is needed, else -1; remembered for the next time. */
  #translate(page: number, access: number): number {
    const { space, address } = this.region;
    const bit = access === ACCESS.WRITE ? PTE.WRITE : PTE.READ;
    const at = space.translate(address + page * PAGE_SIZE, bit);
    if (at < 0) return -1;
    // Offset 0 says "unknown" in the maps: the zero page has a twin that can be named.
    const named = at === 0 ? space.pool.zeroTwin * PAGE_SIZE : at;
    (access === ACCESS.WRITE ? this.writable : this.readable).set(page, named | 0);
    return named;
  }

  /** The bytes of a read or write, and that they have a place at the offset. */
  protected checkBytes(offset: number, bytes: Uint8Array): void {
    if (!(bytes instanceof Uint8Array)) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", "Bytes are read into, and written from, a Uint8Array");
    }
    this.checkRange(offset, bytes.length);
  }

  protected checkRange(offset: number, byteLength: number): void {
    if (this.#closed) throw new MinorfaultError("ERR_CLOSED", "This memory has been closed");
    if (!Number.isInteger(offset) || !Number.isInteger(byteLength)) {
      throw new MinorfaultError(
        "ERR_BAD_ARGUMENT",
        `An offset must be a whole number, got ${String(offset)}`,
      );
    }
    if (offset < 0 || byteLength < 0 || offset + byteLength > this.byteLength) {
      throw new MinorfaultError(
        "ERR_OUT_OF_RANGE",
        `Bytes ${offset} to ${offset + byteLength} are not in a memory of ${this.byteLength} bytes`,
        { address: offset, byteLength },
      );
    }
  }

  protected async reach(offset: number, access: number, signal?: AbortSignal): Promise<number> {
    const page = Math.floor(offset / PAGE_SIZE);
    for (;;) {
      this.checkRange(offset, 1);
      const found = this.#translate(page, access);
      if (found >= 0) return found;
      await this.#service.touch(this.region.address + page * PAGE_SIZE, access, signal);
    }
  }

  // ── what is there ──

  /** Whether the page of an offset is here. */
  resident(offset: number): boolean {
    this.checkRange(offset, 1);
    return (this.#entry(Math.floor(offset / PAGE_SIZE)) & PTE.PRESENT) !== 0;
  }

  /** Bytes of the pages that are here, pages of zeros included. */
  get residentBytes(): number {
    return this.#pages((entry) => (entry & PTE.PRESENT) !== 0).length * PAGE_SIZE;
  }

  /** What was written since its page was brought, or since `markClean`. */
  written(): PageRange[] {
    const ranges: { start: number; until: number }[] = [];
    for (const page of this.#pages(isWritten)) {
      const start = page * PAGE_SIZE;
      const last = ranges.at(-1);
      if (last?.until === start) last.until = start + PAGE_SIZE;
      else ranges.push({ start, until: start + PAGE_SIZE });
    }
    return ranges;
  }

  /** From now on nothing counts as written. */
  markClean(): void {
    this.checkRange(0, 1);
    const { space } = this.region;
    const [first, until] = this.#allPages();
    space.table.update(first, until, protectEntry);
    space.invalidateRange(first, until);
  }

  /** Drops the pages that lie in the range as a whole: the next touch brings them again. What was written is lost. */
  discard(offset: number, byteLength: number): void {
    this.checkRange(offset, byteLength);
    const first = Math.ceil(offset / PAGE_SIZE);
    const end = offset + byteLength;
    const until = end === this.byteLength ? Math.ceil(end / PAGE_SIZE) : Math.floor(end / PAGE_SIZE);
    if (until <= first) return;
    const start = this.region.address + first * PAGE_SIZE;
    this.region.process.call("madvise", start, (until - first) * PAGE_SIZE, MADV.DONTNEED);
    this.#service.forget(first, until);
  }

  /** Hands what was written in the range to `writeBack`, page by page, then drops the range. */
  evict(offset: number, byteLength: number, writeBack: (page: number, bytes: Uint8Array) => void): void {
    this.checkRange(offset, byteLength);
    const first = Math.ceil(offset / PAGE_SIZE);
    const until = Math.ceil((offset + byteLength) / PAGE_SIZE);
    for (const page of this.#pages(isWritten)) {
      if (page < first || page >= until) continue;
      const at = (this.#entry(page) >>> FRAME_SHIFT) * PAGE_SIZE;
      writeBack(page, this.region.space.pool.bytes.slice(at, at + PAGE_SIZE));
    }
    this.discard(offset, byteLength);
  }

  #entry(page: number): number {
    return this.region.space.table.get(this.region.address / PAGE_SIZE + page);
  }

  #allPages(): readonly [number, number] {
    const first = this.region.address / PAGE_SIZE;
    return [first, first + this.region.byteLength / PAGE_SIZE];
  }

  /** The numbers of the pages whose entry is as asked, ascending. */
  #pages(isOne: (entry: number) => boolean): number[] {
    this.checkRange(0, 1);
    const [first, until] = this.#allPages();
    const found: number[] = [];
    this.region.space.table.update(first, until, (entry, page) => {
      if (isOne(entry)) found.push(page - first);
      return entry;
    });
    return found;
  }

  // ── its end ──

  #forget(from: number, until: number): void {
    this.readable.clear(from, until);
    this.writable.clear(from, until);
  }

  /** Gives all pages back. Closing twice is allowed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // Whoever still holds it finds no page, and is told why.
    this.region.process.kill();
    this.#forget(0, Number.POSITIVE_INFINITY);
    this.region.space.onInvalidate = undefined;
    this.region.space.pool.onGrow.delete(this.#onGrow);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Physical memory for all pages and for those of a snapshot, as far as there is address space for it. */
function ownSystem(byteLength: number): SoftwareSystem {
  const memoryBytes = Math.min(ARENA_MAX, 2 * roundUp(byteLength, PAGE_SIZE) + 2 ** 21);
  return createSystem({ memoryBytes, reserve: true });
}

/** Written since its mark was set; the zero page is never written, whatever its mark. */
function isWritten(entry: number): boolean {
  return (entry & (PTE.PRESENT | PTE.WP)) === PTE.PRESENT && entry >>> FRAME_SHIFT !== 0;
}
