// A memory whose pages a handler brings when they are first touched: the software system as a library.
//
//   const memory = new PagedMemory(2 ** 30, (page) => bytesOf(page));
//   memory.load8(123456);                     // resident, or brought by the handler meanwhile
//   await memory.read(offset, target);        // also where the handler is asynchronous
//
// It is a mapping in a process of a software system, registered with a userfaultfd: a touch of a missing page is a
// fault, its message is taken, the handler asked, the page installed by COPY, and the access done again. Resident
// pages are found in a flat map (translations.ts) and cost an array look-up.

import { MADV, PAGE_SIZE } from "../../abi/memory.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { ACCESS } from "./fault.ts";
import { type PageHandler, PageService } from "./page-service.ts";
import { FRAME_SHIFT, PTE } from "./page-table.ts";
import { forkRegion, openRegion, type PagedRegion } from "./paged-region.ts";
import type { SoftwareProcess } from "./process.ts";
import { createSystem, type SoftwareSystem } from "./system.ts";
import { MAP_BYTES, Translations } from "./translations.ts";
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

export class PagedMemory {
  readonly byteLength: number;
  readonly #handler: PageHandler;
  readonly #region: PagedRegion;
  readonly #service: PageService;
  #readable: Translations;
  #writable: Translations;
  // The hot path, as plain fields: the maps of the first 2 GiB, where they end, and the pool's bytes.
  #loads: Int32Array;
  #stores: Int32Array;
  #near: number;
  #bytes: Uint8Array;
  #view: DataView;
  readonly #onGrow: () => void;
  #closed = false;

  /**
   * A memory of so many bytes, all of it missing. The handler is given a page's number (offset / 4096) and answers
   * its 4096 bytes, or undefined for zeros, at once or as a promise.
   */
  constructor(byteLength: number, handler: PageHandler, options: PagedMemoryOptions = {}) {
    if (!Number.isSafeInteger(byteLength) || byteLength < 1) {
      const got = String(byteLength);
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `A memory needs a length in bytes, got ${got}`);
    }
    this.byteLength = byteLength;
    this.#handler = handler;
    this.#region = options.region ?? openRegion(options.system ?? createSystem(), byteLength);
    this.#service = new PageService(this.#region, handler);
    this.#readable = new Translations(byteLength);
    this.#writable = new Translations(byteLength);
    this.#loads = this.#readable.first;
    this.#stores = this.#writable.first;
    this.#near = Math.min(byteLength, MAP_BYTES);
    const { space, address } = this.#region;
    this.#bytes = space.pool.bytes;
    this.#view = new DataView(this.#bytes.buffer);
    const base = address / PAGE_SIZE;
    space.onInvalidate = (from, until) => this.#forget(from - base, until - base);
    this.#onGrow = () => {
      this.#bytes = space.pool.bytes;
      this.#view = new DataView(this.#bytes.buffer);
    };
    space.pool.onGrow.add(this.#onGrow);
  }

  /** The process whose memory it is, for userfaultfd by hand; the memory begins at `address` there. */
  get process(): SoftwareProcess {
    return this.#region.process;
  }
  get address(): number {
    return this.#region.address;
  }

  // ── synchronous access: resident pages, and missing ones that the handler brings at once ──

  /** The byte at an offset. @throws ERR_FAULT_PENDING when it is missing and the handler needs time. */
  load8(offset: number): number {
    if (!(offset < this.#near)) return this.#loadSlowly(offset);
    const at = this.#loads[offset >>> 12]!;
    if (!(at > 0)) return this.#loadSlowly(offset);
    return this.#bytes[at | (offset & 4095)]!;
  }

  /** 16 bits, little-endian, at any offset. */
  load16(offset: number): number {
    const within = offset & (PAGE_SIZE - 1);
    if (within > PAGE_SIZE - 2) return this.load8(offset) | (this.load8(offset + 1) << 8);
    return this.#view.getUint16(this.#locate(offset, ACCESS.READ) + within, true);
  }

  /** 32 bits, unsigned, little-endian, at any offset. */
  load32(offset: number): number {
    const within = offset & (PAGE_SIZE - 1);
    if (within > PAGE_SIZE - 4) return (this.load16(offset) | (this.load16(offset + 2) << 16)) >>> 0;
    return this.#view.getUint32(this.#locate(offset, ACCESS.READ) + within, true);
  }

  store8(offset: number, value: number): void {
    const at = offset < this.#near ? this.#stores[offset >>> 12]! : 0;
    if (at > 0) this.#bytes[at | (offset & 4095)] = value;
    else this.#bytes[this.#locate(offset, ACCESS.WRITE) + (offset & 4095)] = value;
  }

  store16(offset: number, value: number): void {
    const within = offset & (PAGE_SIZE - 1);
    if (within <= PAGE_SIZE - 2) {
      this.#view.setUint16(this.#locate(offset, ACCESS.WRITE) + within, value, true);
      return;
    }
    // Both pages first: a store happens as a whole or not at all.
    this.#locate(offset + 1, ACCESS.WRITE);
    this.store8(offset, value);
    this.store8(offset + 1, value >>> 8);
  }

  store32(offset: number, value: number): void {
    const within = offset & (PAGE_SIZE - 1);
    if (within <= PAGE_SIZE - 4) {
      this.#view.setUint32(this.#locate(offset, ACCESS.WRITE) + within, value, true);
      return;
    }
    this.#locate(offset + 3, ACCESS.WRITE);
    this.store16(offset, value);
    this.store16(offset + 2, value >>> 16);
  }

  #loadSlowly(offset: number): number {
    const page = this.#locate(offset, ACCESS.READ);
    return this.#bytes[page + (offset & (PAGE_SIZE - 1))]! | 0;
  }

  /** Where in the pool's bytes the page of an offset begins, after a fault if need be. */
  #locate(offset: number, access: number): number {
    this.#checkRange(offset, 1);
    const page = Math.floor(offset / PAGE_SIZE);
    const known = (access === ACCESS.WRITE ? this.#writable : this.#readable).get(page);
    if (known !== 0) return known >>> 0;
    const found = this.#translate(page, access);
    if (found >= 0) return found;
    for (;;) {
      this.#service.touchNow(this.#region.address + page * PAGE_SIZE, access);
      const now = this.#translate(page, access);
      if (now >= 0) return now;
    }
  }

  /** The same if no fault is needed, else -1; remembered for the next time. */
  #translate(page: number, access: number): number {
    const { space, address } = this.#region;
    const bit = access === ACCESS.WRITE ? PTE.WRITE : PTE.READ;
    const at = space.translate(address + page * PAGE_SIZE, bit);
    if (at < 0) return -1;
    // Offset 0 says "unknown" in the maps: the zero page has a twin that can be named.
    const named = at === 0 ? space.pool.zeroTwin * PAGE_SIZE : at;
    (access === ACCESS.WRITE ? this.#writable : this.#readable).set(page, named | 0);
    this.#loads = this.#readable.first;
    this.#stores = this.#writable.first;
    return named;
  }

  #checkRange(offset: number, byteLength: number): void {
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

  // ── asynchronous access: waits for what is missing ──

  /** Copies memory from an offset on into `target`, waiting for pages that are missing. */
  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.#checkRange(offset, target.length);
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const length = Math.min(target.length - done, PAGE_SIZE - (at % PAGE_SIZE));
      const page = await this.#reach(at, ACCESS.READ, signal);
      const from = page + (at % PAGE_SIZE);
      target.set(this.#bytes.subarray(from, from + length), done);
      done += length;
    }
  }

  /** Copies `bytes` into memory from an offset on. Pages that are missing are brought first, even if all is replaced. */
  async write(offset: number, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.#checkRange(offset, bytes.length);
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const length = Math.min(bytes.length - done, PAGE_SIZE - (at % PAGE_SIZE));
      const page = await this.#reach(at, ACCESS.WRITE, signal);
      this.#bytes.set(bytes.subarray(done, done + length), page + (at % PAGE_SIZE));
      done += length;
    }
  }

  async #reach(offset: number, access: number, signal?: AbortSignal): Promise<number> {
    const page = Math.floor(offset / PAGE_SIZE);
    for (;;) {
      this.#checkRange(offset, 1);
      const found = this.#translate(page, access);
      if (found >= 0) return found;
      await this.#service.touch(this.#region.address + page * PAGE_SIZE, access, signal);
    }
  }

  // ── what is there ──

  /** Whether the page of an offset is here. */
  resident(offset: number): boolean {
    this.#checkRange(offset, 1);
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
    this.#checkRange(0, 1);
    const { space } = this.#region;
    const [first, until] = this.#allPages();
    space.table.update(first, until, protectEntry);
    space.invalidateRange(first, until);
  }

  /** Drops the pages that lie in the range as a whole: the next touch brings them again. What was written is lost. */
  discard(offset: number, byteLength: number): void {
    this.#checkRange(offset, byteLength);
    const first = Math.ceil(offset / PAGE_SIZE);
    const end = offset + byteLength;
    const until = end === this.byteLength ? Math.ceil(end / PAGE_SIZE) : Math.floor(end / PAGE_SIZE);
    if (until <= first) return;
    const start = this.#region.address + first * PAGE_SIZE;
    this.#region.process.call("madvise", start, (until - first) * PAGE_SIZE, MADV.DONTNEED);
    this.#service.forget(first, until);
  }

  /** Hands what was written in the range to `writeBack`, page by page, then drops the range. */
  evict(offset: number, byteLength: number, writeBack: (page: number, bytes: Uint8Array) => void): void {
    this.#checkRange(offset, byteLength);
    const first = Math.ceil(offset / PAGE_SIZE);
    const until = Math.ceil((offset + byteLength) / PAGE_SIZE);
    for (const page of this.#pages(isWritten)) {
      if (page < first || page >= until) continue;
      const at = (this.#entry(page) >>> FRAME_SHIFT) * PAGE_SIZE;
      writeBack(page, this.#bytes.slice(at, at + PAGE_SIZE));
    }
    this.discard(offset, byteLength);
  }

  /** This memory as it is now, as a memory of its own: pages are shared until one of both writes. */
  snapshot(handler: PageHandler = this.#handler): PagedMemory {
    this.#checkRange(0, 1);
    return new PagedMemory(this.byteLength, handler, { region: forkRegion(this.#region) });
  }

  #entry(page: number): number {
    return this.#region.space.table.get(this.#region.address / PAGE_SIZE + page);
  }

  #allPages(): readonly [number, number] {
    const first = this.#region.address / PAGE_SIZE;
    return [first, first + this.#region.byteLength / PAGE_SIZE];
  }

  /** The numbers of the pages whose entry is as asked, ascending. */
  #pages(isOne: (entry: number) => boolean): number[] {
    this.#checkRange(0, 1);
    const [first, until] = this.#allPages();
    const found: number[] = [];
    this.#region.space.table.update(first, until, (entry, page) => {
      if (isOne(entry)) found.push(page - first);
      return entry;
    });
    return found;
  }

  // ── its end ──

  #forget(from: number, until: number): void {
    this.#readable.clear(from, until);
    this.#writable.clear(from, until);
    this.#loads = this.#readable.first;
    this.#stores = this.#writable.first;
  }

  /** Gives all pages back. Closing twice is allowed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#near = 0;
    this.#region.space.onInvalidate = undefined;
    this.#region.space.pool.onGrow.delete(this.#onGrow);
    this.#readable = new Translations(1);
    this.#writable = new Translations(1);
    this.#loads = this.#readable.first;
    this.#stores = this.#writable.first;
    this.#region.process.kill();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Written since its mark was set; the zero page is never written, whatever its mark. */
function isWritten(entry: number): boolean {
  return (entry & (PTE.PRESENT | PTE.WP)) === PTE.PRESENT && entry >>> FRAME_SHIFT !== 0;
}
