// What mappings can show: shared memory (shmem, memfd), huge pages (hugetlb) and an ordinary file.
//
// An object is a size and a page cache: a table from page number to frame. The cache holds one reference to each
// frame, every page table entry that maps it another one. An object lives as long as a descriptor or a mapping
// refers to it.

import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../abi/memory.ts";
import type { FramePool } from "./frame-pool.ts";
import { FRAME_SHIFT, PageTable, PTE } from "./page-table.ts";
import type { Vma } from "./vma.ts";

export type ObjectKind = "shmem" | "huge" | "file";

export class SharedObject {
  readonly kind: ObjectKind;
  readonly name: string;
  /** Bytes of a page of its cache. */
  readonly pageSize: number;
  size: number;
  /** VMAs that show a part of it, of any process. */
  readonly mappings = new Set<Vma>();
  readonly #pool: FramePool;
  readonly #cache = new PageTable();
  #pages = 0;
  #users = 1;

  /** Counts the maker as its first user. */
  constructor(pool: FramePool, kind: ObjectKind, name: string, size: number) {
    this.#pool = pool;
    this.kind = kind;
    this.name = name;
    this.pageSize = kind === "huge" ? HUGE_PAGE_SIZE : PAGE_SIZE;
    this.size = size;
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users === 0) this.drop(0, Number.MAX_SAFE_INTEGER);
  }

  attach(vma: Vma): void {
    this.mappings.add(vma);
    this.retain();
  }

  detach(vma: Vma): void {
    this.mappings.delete(vma);
    this.release();
  }

  /** Pages in its cache. */
  get pages(): number {
    return this.#pages;
  }

  /** Whether a page (its number) lies beyond the end of the file. */
  isBeyond(index: number): boolean {
    return index * this.pageSize >= this.size;
  }

  /** The frame of a page, or -1 when it is not in the cache. */
  frameOf(index: number): number {
    const entry = this.#cache.get(index);
    return entry === 0 ? -1 : entry >>> FRAME_SHIFT;
  }

  /** Puts a frame into the cache; the cache takes over the caller's reference. */
  put(index: number, frame: number): void {
    this.#cache.set(index, (frame << FRAME_SHIFT) | PTE.PRESENT);
    this.#pages++;
  }

  /** The frame of a page, allocated as zeros if need be; -1 when memory is used up. */
  frameFor(index: number): number {
    const cached = this.frameOf(index);
    if (cached >= 0) return cached;
    const frame = this.kind === "huge" ? this.#pool.allocateHuge() : this.#pool.allocateZeroed();
    if (frame === 0) return -1;
    this.put(index, frame);
    return frame;
  }

  /** Gives up the pages from index `from` until `until`. Page tables must not map them any more. */
  drop(from: number, until: number): void {
    this.#cache.clear(from, until, (entry) => {
      this.#pages--;
      const frame = entry >>> FRAME_SHIFT;
      if (this.kind === "huge") this.#pool.releaseHuge(frame);
      else this.#pool.release(frame);
    });
  }
}
