// Physical memory: page frames of 4 KiB in one growing piece of bytes, counted by their users.
//
// One contiguous arena and not one buffer a page: a load is then `bytes[frame * 4096 + offset]`, which is what
// keeps resident memory as fast as a plain array. The arena grows in place where the engine has WebAssembly
// memory; elsewhere, and while it is small, it grows by being copied. `bytes` is another object after each
// growth, so nobody keeps it across an allocation. (Fields of hot objects have a value of their type from the start:
// engines then know what they hold without looking.)
//
//   frame   0          1   2   3  ...      high water        capacity
//          ┌──────────┬───┬───┬───┬──────────┬─────────────────┐
//          │zero page │ used, or in the free  │ never used:     │
//          │          │ list (refs < 0)       │ still zero      │
//          └──────────┴───┴───┴───┴──────────┴─────────────────┘

import { PAGE_SHIFT, PAGE_SIZE } from "../../abi/memory.ts";
import { assert } from "../../base/errors.ts";
import { Arena } from "./arena.ts";
import { FRAMES_MAX } from "./page-table.ts";

/** The frame that every read of untouched memory maps: always zero, never counted, never freed. */
export const ZERO_FRAME = 0;
/** Always zero as well, and never mapped: for tables of offsets in which 0 says something else. */
const ZERO_TWIN = 1;
/** Base pages in a huge page. */
export const HUGE_FRAMES = 512;

export class FramePool {
  /** All frames, one after the other. Changes when the pool grows. */
  bytes: Uint8Array = new Uint8Array(0);
  /** Told when `bytes` is another object. */
  readonly onGrow = new Set<() => void>();
  readonly zeroTwin = ZERO_TWIN;
  readonly #arena: Arena;
  /** LIMIT: frames that may be in use; beyond it allocation answers 0 (ENOMEM). */
  readonly #frames: number;
  /** Users of each frame; of a free one, the bitwise complement of the next free frame. */
  #refs: Int32Array = new Int32Array(0);
  #free = 0;
  #highWater = 2;
  #capacity = 0;
  #used = 0;
  readonly #freeHuge: number[] = [];
  /** LIMIT: huge pages that may be in use (vm.nr_hugepages). */
  readonly #hugeMax: number;
  #hugeUsed = 0;

  /** `reserve`: address space for all of it is taken at once, so that `bytes` never changes. */
  constructor(byteLengthMax: number, hugePagesMax: number, reserve = false) {
    this.#hugeMax = hugePagesMax;
    this.#arena = new Arena(byteLengthMax, reserve);
    this.#frames = Math.min(FRAMES_MAX, Math.floor(byteLengthMax / PAGE_SIZE));
    this.bytes = this.#arena.bytes;
    this.#capacity = this.bytes.length >>> PAGE_SHIFT;
    this.#refs = new Int32Array(this.#capacity);
  }

  /** Frames that somebody uses. */
  get used(): number {
    return this.#used;
  }

  /** A frame with one user, or 0 when memory is used up. Its bytes are anything: the caller overwrites them all. */
  allocate(): number {
    const frame = this.#free;
    if (frame !== 0) {
      this.#free = ~this.#refs[frame]!;
      this.#refs[frame] = 1;
      this.#used++;
      return frame;
    }
    if (this.#highWater >= this.#capacity && !this.#grow(1)) return 0;
    this.#refs[this.#highWater] = 1;
    this.#used++;
    return this.#highWater++;
  }

  /** The same, with zero bytes. */
  allocateZeroed(): number {
    const clean = this.#free === 0;
    const frame = this.allocate();
    if (frame !== 0 && !clean) this.clear(frame, PAGE_SIZE);
    return frame;
  }

  /** The first of 512 adjacent zeroed frames at a 2 MiB boundary, counted as one; 0 when memory is used up. */
  allocateHuge(): number {
    if (this.#hugeUsed >= this.#hugeMax) return 0;
    let frame = this.#freeHuge.pop();
    if (frame === undefined) {
      const skipped = (HUGE_FRAMES - (this.#highWater % HUGE_FRAMES)) % HUGE_FRAMES;
      const needed = this.#highWater + skipped + HUGE_FRAMES - this.#capacity;
      if (needed > 0 && !this.#grow(needed)) return 0;
      for (let count = 0; count < skipped; count++) this.#putFree(this.#highWater++);
      frame = this.#highWater;
      this.#highWater += HUGE_FRAMES;
    } else {
      this.clear(frame, HUGE_FRAMES * PAGE_SIZE);
    }
    this.#refs[frame] = 1;
    this.#used += HUGE_FRAMES;
    this.#hugeUsed++;
    return frame;
  }

  share(frame: number): void {
    if (frame !== ZERO_FRAME) this.#refs[frame] = this.#refs[frame]! + 1;
  }

  release(frame: number): void {
    if (frame === ZERO_FRAME) return;
    const users = this.#refs[frame]! - 1;
    if (users === 0) {
      this.#putFree(frame);
      this.#used--;
    } else {
      this.#refs[frame] = users;
    }
  }

  releaseHuge(frame: number): void {
    const users = this.#refs[frame]! - 1;
    this.#refs[frame] = users;
    if (users !== 0) return;
    this.#freeHuge.push(frame);
    this.#used -= HUGE_FRAMES;
    this.#hugeUsed--;
  }

  get hugePagesMax(): number {
    return this.#hugeMax;
  }

  users(frame: number): number {
    return this.#refs[frame]!;
  }

  clear(frame: number, byteLength: number): void {
    const at = frame * PAGE_SIZE;
    this.bytes.fill(0, at, at + byteLength);
  }

  copy(to: number, from: number, byteLength: number): void {
    const at = from * PAGE_SIZE;
    this.bytes.copyWithin(to * PAGE_SIZE, at, at + byteLength);
  }

  #putFree(frame: number): void {
    assert(frame !== ZERO_FRAME, "The zero page was freed");
    this.#refs[frame] = ~this.#free;
    this.#free = frame;
  }

  #grow(frames: number): boolean {
    const wanted = this.#capacity + frames;
    if (wanted > this.#frames || !this.#arena.grow(wanted * PAGE_SIZE)) return false;
    this.bytes = this.#arena.bytes;
    this.#capacity = Math.min(this.#frames, this.bytes.length >>> PAGE_SHIFT);
    const refs = new Int32Array(this.#capacity);
    refs.set(this.#refs);
    this.#refs = refs;
    for (const tell of this.onGrow) tell();
    return true;
  }
}
