// A memory whose pages a handler brings when they are first touched: the software system as a library.
//
//   const memory = new PagedMemory(2 ** 30, (page) => bytesOf(page));
//   memory.load8(123456);                     // resident, or brought by the handler meanwhile
//   await memory.read(offset, target);        // also where the handler is asynchronous
//
// It is a mapping in a process of a software system, registered with a userfaultfd: a touch of a missing page is a
// fault, its message is taken, the handler asked, the page installed by COPY, and the access done again. Resident
// pages are found in a flat map (translations.ts) and cost an array look-up.

import { PAGE_SIZE } from "../../abi/memory.ts";
import { ACCESS } from "./fault.ts";
import type { PageHandler } from "./page-service.ts";
import { PagedMapping, type PagedMemoryOptions } from "./paged-mapping.ts";
import { forkRegion } from "./paged-region.ts";
import { MAP_BYTES } from "./translations.ts";

export class PagedMemory extends PagedMapping {
  // The hot path: the maps of the first 2 GiB, where they end, and the pool's bytes. All have their value from the
  // start, and only the bytes of a pool that grows are ever set again: so the engine takes them for constants.
  readonly #loads: Int32Array = this.readable.first;
  readonly #stores: Int32Array = this.writable.first;
  readonly #near: number = Math.min(this.byteLength, MAP_BYTES);
  #bytes: Uint8Array = this.region.space.pool.bytes;
  #view: DataView = new DataView(this.#bytes.buffer);

  /**
   * A memory of so many bytes, all of it missing. The handler is given a page's number (offset / 4096) and answers
   * its 4096 bytes, or undefined for zeros, at once or as a promise.
   */
  constructor(byteLength: number, handler: PageHandler, options: PagedMemoryOptions = {}) {
    super(byteLength, handler, options);
  }

  protected override grown(): void {
    this.#bytes = this.region.space.pool.bytes;
    this.#view = new DataView(this.#bytes.buffer);
  }

  // ── synchronous access: resident pages, and missing ones that the handler brings at once ──

  /**
   * The byte at an offset, a whole number: on this path a fraction is cut off, as nothing is spent on looking for one.
   * @throws ERR_FAULT_PENDING when the page is missing and the handler needs time.
   */
  load8(offset: number): number {
    // `| 0` tells the engine that both ways give a small integer: a loop of loads is then twice as fast.
    if (!(offset < this.#near)) return this.#loadSlowly(offset) | 0;
    const at = this.#loads[offset >>> 12]!;
    if (!(at > 0)) return this.#loadSlowly(offset) | 0;
    return this.#bytes[at | (offset & 4095)]!;
  }

  /** 16 bits, little-endian, at any offset. */
  load16(offset: number): number {
    const within = offset & (PAGE_SIZE - 1);
    if (within > PAGE_SIZE - 2) return this.load8(offset) | (this.load8(offset + 1) << 8);
    return this.#view.getUint16(this.#pageOf(offset, ACCESS.READ, 2) + within, true);
  }

  /** 32 bits, unsigned, little-endian, at any offset. */
  load32(offset: number): number {
    const within = offset & (PAGE_SIZE - 1);
    if (within > PAGE_SIZE - 4) return (this.load16(offset) | (this.load16(offset + 2) << 16)) >>> 0;
    return this.#view.getUint32(this.#pageOf(offset, ACCESS.READ, 4) + within, true);
  }

  store8(offset: number, value: number): void {
    this.#bytes[this.#pageOf(offset, ACCESS.WRITE, 1) + (offset & (PAGE_SIZE - 1))] = value;
  }

  store16(offset: number, value: number): void {
    const within = offset & (PAGE_SIZE - 1);
    if (within <= PAGE_SIZE - 2) {
      this.#view.setUint16(this.#pageOf(offset, ACCESS.WRITE, 2) + within, value, true);
      return;
    }
    // Both pages first: a store happens as a whole or not at all.
    this.#pageOf(offset + 1, ACCESS.WRITE, 1);
    this.store8(offset, value);
    this.store8(offset + 1, value >>> 8);
  }

  store32(offset: number, value: number): void {
    const within = offset & (PAGE_SIZE - 1);
    if (within <= PAGE_SIZE - 4) {
      this.#view.setUint32(this.#pageOf(offset, ACCESS.WRITE, 4) + within, value, true);
      return;
    }
    this.#pageOf(offset + 3, ACCESS.WRITE, 1);
    this.store16(offset, value);
    this.store16(offset + 2, value >>> 16);
  }

  /** Where in the pool's bytes the page of an offset begins. */
  #pageOf(offset: number, access: number, size: number): number {
    if (offset + size <= this.#near) {
      const at = (access === ACCESS.WRITE ? this.#stores : this.#loads)[offset >>> 12]!;
      if (at > 0) return at;
    }
    return this.locate(offset, access, size);
  }

  #loadSlowly(offset: number): number {
    const page = this.locate(offset, ACCESS.READ);
    return this.#bytes[page + (offset & (PAGE_SIZE - 1))]!;
  }

  // ── asynchronous access: waits for what is missing ──

  /** Copies memory from an offset on into `target`, waiting for pages that are missing. */
  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.checkBytes(offset, target);
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const length = Math.min(target.length - done, PAGE_SIZE - (at % PAGE_SIZE));
      const page = await this.reach(at, ACCESS.READ, signal);
      const from = page + (at % PAGE_SIZE);
      target.set(this.#bytes.subarray(from, from + length), done);
      done += length;
    }
  }

  /** Copies `bytes` into memory from an offset on. Pages that are missing are brought first, even if all is replaced. */
  async write(offset: number, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.checkBytes(offset, bytes);
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const length = Math.min(bytes.length - done, PAGE_SIZE - (at % PAGE_SIZE));
      const page = await this.reach(at, ACCESS.WRITE, signal);
      this.#bytes.set(bytes.subarray(done, done + length), page + (at % PAGE_SIZE));
      done += length;
    }
  }

  /** This memory as it is now, as a memory of its own: pages are shared until one of both writes. */
  snapshot(handler: PageHandler = this.handler): PagedMemory {
    this.checkRange(0, 1);
    return new PagedMemory(this.byteLength, handler, { region: forkRegion(this.region) });
  }
}
