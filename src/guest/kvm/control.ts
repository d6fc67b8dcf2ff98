// The memory that a walker and we have in common: its code, its orders, its answers. It is always resident.
//
//   0       4096     8192
//  ┌───────┬────────┬──────────────────────────────────────────────┬────────────────────────┐
//  │ code  │ header │ addresses, replaced by the times of accesses │ words ("read" only)    │
//  └───────┴────────┴──────────────────────────────────────────────┴────────────────────────┘
//                     one u32 each, in the order of the walk          the same, listBytes behind
//
// An entry that has changed has been visited: so progress can be watched from here, and costs the walker nothing.

import { PAGE_SHIFT, PAGE_SIZE } from "../../abi/memory.ts";
import type { Scratch } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import type { Access } from "./walker.ts";

/** Byte offsets in the control memory. */
export const HEADER_OFFSET = PAGE_SIZE;
export const LIST_OFFSET = 2 * PAGE_SIZE;

/** Byte offsets in the header: time at the beginning (u32), sum of the words read (u32). */
export const HEADER = { began: 0, sum: 4 } as const;

/** Times are in units of 2^CLOCK_SHIFT ticks of the processor's clock. */
export const CLOCK_SHIFT = 4;

/** What a walk came to. */
export interface Walked {
  /** Sum of the first 32-bit words of the pages, modulo 2^32, as the guest loaded them; means nothing for others. */
  readonly sum: number;
  /** Time of each access, in the order of the walk, in units of `ControlMemory` (2^CLOCK_SHIFT ticks). */
  readonly times: Uint32Array;
  /** After a walk of reads: the first word of each page, in the order of the walk. */
  readonly words?: Uint32Array;
}

export class ControlMemory {
  readonly #memory: Scratch;
  readonly #pagesMax: number;
  /** The addresses of the present walk, as they were before it. */
  #orders: Uint32Array = new Uint32Array(0);

  /** `memory` holds at least `ControlMemory.byteLength(pagesMax)` bytes. */
  constructor(memory: Scratch, pagesMax: number) {
    this.#memory = memory;
    this.#pagesMax = pagesMax;
  }

  /** Bytes for walks of up to so many pages: whole pages. */
  static byteLength(pagesMax: number): number {
    return LIST_OFFSET + 2 * ControlMemory.listBytes(pagesMax);
  }

  /** Bytes from an entry of the list to the word that was read there. */
  static listBytes(pagesMax: number): number {
    return roundUp(pagesMax * 4, PAGE_SIZE);
  }

  placeCode(code: Uint8Array): void {
    this.#memory.bytes.set(code, 0);
  }

  /** Writes the orders of the next walk. */
  prepare(pages: Uint32Array): void {
    if (pages.length < 1 || pages.length > this.#pagesMax) {
      throw new MinorfaultError(
        "ERR_OUT_OF_RANGE",
        `A walk has 1 to ${this.#pagesMax} pages, not ${pages.length}`,
      );
    }
    this.#orders = pages.map((page) => page << PAGE_SHIFT);
    this.#list(pages.length).set(this.#orders);
    this.#memory.bytes.fill(0, HEADER_OFFSET, HEADER_OFFSET + PAGE_SIZE);
  }

  /** How many accesses of the present walk are done: entries are replaced in order, so halving finds the border. */
  get done(): number {
    const orders = this.#orders;
    const list = this.#list(orders.length);
    let done = 0;
    let until = orders.length;
    while (done < until) {
      const middle = (done + until) >>> 1;
      if (list[middle] === orders[middle]) until = middle;
      else done = middle + 1;
    }
    return done;
  }

  /** The answers of the present walk, which has ended. */
  result(access: Access): Walked {
    const { view } = this.#memory;
    const list = this.#list(this.#orders.length);
    // Unsigned differences are right even where the clock's 32 bits began anew.
    let before = view.getUint32(HEADER_OFFSET + HEADER.began, true);
    const times = list.map((now) => {
      const time = now - before;
      before = now;
      return time;
    });
    const sum = view.getUint32(HEADER_OFFSET + HEADER.sum, true);
    if (access !== "read") return { sum, times };
    const words = this.#list(list.length, ControlMemory.listBytes(this.#pagesMax)).slice();
    return { sum, times, words };
  }

  #list(count: number, behind = 0): Uint32Array {
    const { bytes } = this.#memory;
    return new Uint32Array(bytes.buffer, bytes.byteOffset + LIST_OFFSET + behind, count);
  }
}
