// A VMA: a range of addresses that have the same backing, protection and registration; and the sorted list of them.
//
// Operations on a range first split the list at its ends, then change the VMAs inside, then merge neighbours that
// have become alike, so that the list is the same whichever way it was reached (the corner that Linux has,
// private bookkeeping of anonymous memory, is `anonGroup`).

import { PAGE_SIZE, PROT } from "../../abi/memory.ts";
import { UFFDIO_REGISTER_MODE } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import type { Context } from "./context.ts";
import type { SharedObject } from "./shared-object.ts";

/** Properties of a VMA that are one bit each. Neighbours that differ in one are not merged. */
export const VMA = {
  LOCKED: 1,
  DONT_FORK: 2,
  HUGE_ADVICE: 4,
  NO_HUGE_ADVICE: 8,
  DROPPABLE: 16,
  WIPE_ON_FORK: 32,
  NO_RESERVE: 64,
  DONT_DUMP: 128,
  /** Not the process's own to change: its scratch memory. */
  SPECIAL: 256,
  RANDOM: 512,
  SEQUENTIAL: 1024,
  MERGEABLE: 2048,
  /** Its pages count against the memory that is promised: private and writable when it was mapped. */
  ACCOUNT: 4096,
} as const;

export interface VmaInit {
  readonly space: AddressSpace;
  readonly start: number;
  readonly end: number;
  readonly prot: number;
  readonly shared: boolean;
  readonly object?: SharedObject | undefined;
  /** In pages: of the object, or (anonymous) where the memory was when it was mapped. */
  readonly pageOffset: number;
  readonly mayWrite?: boolean;
  readonly flags?: number;
  readonly wired?: Uint8Array;
  /** What /proc/PID/maps calls memory without an object. */
  readonly name?: string;
}

export class Vma {
  readonly space: AddressSpace;
  start = 0;
  end = 0;
  prot = 0;
  readonly shared: boolean = false;
  readonly object: SharedObject | undefined;
  pageOffset = 0;
  /** False for a shared mapping of a file that was opened read-only. */
  readonly mayWrite: boolean = true;
  flags = 0;
  /** The context that this range is registered with, and how. */
  ctx: Context | undefined = undefined;
  modes = 0;
  /**
   * 0 until it has anonymous pages; VMAs of different groups are never merged. Negative: inherited by a fork, and
   * then not even merged with memory that has no group yet.
   */
  anonGroup = 0;
  /** Bytes that always stand here, outside the page table: scratch memory. */
  readonly wired: Uint8Array | undefined;
  readonly wiredView: DataView | undefined;
  readonly name: string;

  constructor(init: VmaInit) {
    this.space = init.space;
    this.start = init.start;
    this.end = init.end;
    this.prot = init.prot;
    this.shared = init.shared;
    this.object = init.object;
    this.pageOffset = init.pageOffset;
    this.mayWrite = init.mayWrite ?? true;
    this.flags = init.flags ?? 0;
    this.wired = init.wired;
    this.wiredView = init.wired === undefined ? undefined : new DataView(init.wired.buffer);
    this.name = init.name ?? "";
  }

  /** Private memory without an object behind it. */
  get anonymous(): boolean {
    return this.object === undefined && this.wired === undefined;
  }
  get huge(): boolean {
    return this.object !== undefined && this.object.kind === "huge";
  }
  get shmem(): boolean {
    return this.object !== undefined && this.object.kind === "shmem";
  }
  get readable(): boolean {
    // On x86-64 what can be written or executed can be read.
    return this.prot !== PROT.NONE;
  }
  get writable(): boolean {
    return (this.prot & PROT.WRITE) !== 0;
  }
  get missing(): boolean {
    return (this.modes & UFFDIO_REGISTER_MODE.MISSING) !== 0;
  }
  get writeProtect(): boolean {
    return (this.modes & UFFDIO_REGISTER_MODE.WP) !== 0;
  }
  get minor(): boolean {
    return (this.modes & UFFDIO_REGISTER_MODE.MINOR) !== 0;
  }
  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  /** The page of the object (or of the original place) that an address shows. */
  indexOf(address: number): number {
    return this.pageOffset + Math.floor((address - this.start) / PAGE_SIZE);
  }

  /** The same properties over another range, still unlinked. */
  copyOf(start: number, end: number, space: AddressSpace = this.space): Vma {
    const copy = new Vma({
      space,
      start,
      end,
      prot: this.prot,
      shared: this.shared,
      object: this.object,
      pageOffset: this.pageOffset + (start - this.start) / PAGE_SIZE,
      mayWrite: this.mayWrite,
      flags: this.flags,
    });
    copy.ctx = this.ctx;
    copy.modes = this.modes;
    copy.anonGroup = this.anonGroup;
    return copy;
  }

  /** Whether `next`, which begins where this ends, can become a part of this. */
  continuesIn(next: Vma): boolean {
    return (
      this.end === next.start &&
      this.prot === next.prot &&
      this.shared === next.shared &&
      this.object === next.object &&
      this.mayWrite === next.mayWrite &&
      this.flags === next.flags &&
      !this.has(VMA.SPECIAL) &&
      this.ctx === next.ctx &&
      this.modes === next.modes &&
      groupsMatch(this.anonGroup, next.anonGroup) &&
      this.pageOffset + (this.end - this.start) / PAGE_SIZE === next.pageOffset
    );
  }
}

function groupsMatch(a: number, b: number): boolean {
  return a === b || (a === 0 && b > 0) || (b === 0 && a > 0);
}

export class VmaList {
  readonly #vmas: Vma[] = [];
  #last: Vma | undefined;

  [Symbol.iterator](): IterableIterator<Vma> {
    return this.#vmas.values();
  }
  get size(): number {
    return this.#vmas.length;
  }

  /** The VMA that holds an address. */
  at(address: number): Vma | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.start && address < last.end) return last;
    const vma = this.#vmas[this.#indexFrom(address)];
    if (vma === undefined || vma.start > address) return undefined;
    this.#last = vma;
    return vma;
  }

  /** The first VMA that ends above an address. */
  from(address: number): Vma | undefined {
    return this.#vmas[this.#indexFrom(address)];
  }

  /** Those that have a part in [start, end), in address order. */
  overlapping(start: number, end: number): Vma[] {
    const found: Vma[] = [];
    if (start >= end) return found;
    for (let index = this.#indexFrom(start); index < this.#vmas.length; index++) {
      const vma = this.#vmas[index]!;
      if (vma.start >= end) break;
      found.push(vma);
    }
    return found;
  }

  /** Neighbours of a VMA in the list, mapped side by side or not. */
  before(vma: Vma): Vma | undefined {
    return this.#vmas[this.#indexFrom(vma.start) - 1];
  }
  after(vma: Vma): Vma | undefined {
    return this.#vmas[this.#indexFrom(vma.start) + 1];
  }

  insert(vma: Vma): void {
    this.#vmas.splice(this.#indexFrom(vma.start), 0, vma);
    vma.object?.attach(vma);
  }

  remove(vma: Vma): void {
    this.#vmas.splice(this.#indexFrom(vma.start), 1);
    if (this.#last === vma) this.#last = undefined;
    vma.object?.detach(vma);
  }

  /** Makes an address a border between VMAs, if it lies inside one. */
  split(address: number): void {
    const vma = this.at(address);
    if (vma === undefined || vma.start === address) return;
    const upper = vma.copyOf(address, vma.end);
    vma.end = address;
    this.#last = undefined;
    this.insert(upper);
  }

  /** Joins what has become alike from `start` to `end`, both borders included. */
  merge(start: number, end: number): void {
    let index = Math.max(0, this.#indexFrom(start) - 1);
    while (index + 1 < this.#vmas.length) {
      const vma = this.#vmas[index]!;
      const next = this.#vmas[index + 1]!;
      if (next.start > end) return;
      if (!vma.continuesIn(next)) {
        index++;
        continue;
      }
      this.remove(next);
      vma.end = next.end;
      if (vma.anonGroup === 0) vma.anonGroup = next.anonGroup;
    }
  }

  /** The highest free range of that length below `ceiling`, or 0. Free: no VMA, not below `floor`. */
  findFree(byteLength: number, alignment: number, floor: number, ceiling: number): number {
    let top = ceiling;
    for (let index = this.#vmas.length - 1; index >= -1; index--) {
      const vma = this.#vmas[index];
      if (vma !== undefined && vma.start >= ceiling) continue;
      const bottom = vma === undefined ? floor : Math.min(top, vma.end);
      const start = top - byteLength - ((top - byteLength) % alignment);
      if (start >= bottom && start >= floor) return start;
      if (vma !== undefined) top = Math.min(top, vma.start);
    }
    return 0;
  }

  /** Index of the first VMA that ends above an address. */
  #indexFrom(address: number): number {
    let low = 0;
    let high = this.#vmas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#vmas[middle]!.end > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
