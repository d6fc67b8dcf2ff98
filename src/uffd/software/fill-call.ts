// One call of a fill ioctl: its argument read and checked, its source, its progress, and what it answers.
//
// The argument may come from anywhere in the caller's memory (uffd-ioctl.ts, where reading it may wait) or from wired
// memory (fast-calls.ts, where it is one object used again for every call).

import { ERRNO } from "../../abi/errno.ts";
import { PAGE_SIZE, TASK_SIZE } from "../../abi/memory.ts";
import { readUnsigned } from "../../abi/structs.ts";
import { UFFDIO_COPY_MODE } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import type { Context } from "./context.ts";
import { type CopySource, FILL, type FillProgress, type FillRequest } from "./fill.ts";
import { isReadable, readResident } from "./user-access.ts";

/** Where the words of a fill's argument stand, and the modes it knows. */
export interface FillShape {
  /** Words that are read. */
  readonly words: number;
  readonly length: number;
  readonly mode: number;
  /** The word that is written: how far it came. */
  readonly field: number;
  readonly known: number;
}

// DONTWAKE and WP are the same bits in every fill that has them.
const { DONTWAKE, WP } = UFFDIO_COPY_MODE;
const PLAIN: FillShape = { words: 3, length: 8, mode: 16, field: 24, known: DONTWAKE };

/** By FILL. */
export const FILL_SHAPES: readonly FillShape[] = [
  { words: 4, length: 16, mode: 24, field: 32, known: DONTWAKE | WP },
  PLAIN,
  { ...PLAIN, known: DONTWAKE | WP },
  PLAIN,
];

/** The kernel's check of a range: whole pages, at least one, in user space. */
export function isRange(start: number, byteLength: number): boolean {
  return (start & (PAGE_SIZE - 1)) === 0 && isSource(start, byteLength);
}

/** COPY's source: whole pages long, anywhere in user space. */
function isSource(address: number, byteLength: number): boolean {
  return (
    byteLength > 0 &&
    (byteLength & (PAGE_SIZE - 1)) === 0 &&
    address < TASK_SIZE &&
    byteLength <= TASK_SIZE - address
  );
}

/** A mode word, if it has no other bits than these; else -1. */
export function modeOf(view: DataView, at: number, known: number): number {
  const low = view.getUint32(at, true);
  return view.getUint32(at + 4, true) !== 0 || (low & ~known) !== 0 ? -1 : low;
}

export class FillCall implements FillRequest, FillProgress, CopySource {
  kind = 0;
  ctx: Context;
  target = 0;
  byteLength = 0;
  protect = false;
  sourceAddress = 0;
  done = 0;
  stop = 0;
  #wakes = true;
  readonly #caller: AddressSpace;
  // What of the source had to be waited for is a snapshot: it is not read a second time.
  #snapshotAt = -1;
  #snapshot: Uint8Array | undefined = undefined;

  constructor(ctx: Context, caller: AddressSpace) {
    this.ctx = ctx;
    this.#caller = caller;
  }

  get source(): CopySource {
    return this;
  }

  /** Takes the argument that stands at `at`: 0 or a negative errno. */
  prepare(ctx: Context, kind: number, view: DataView, at: number): number {
    const { length, mode: modeAt, known } = FILL_SHAPES[kind]!;
    this.ctx = ctx;
    this.kind = kind;
    this.target = readUnsigned(view, at);
    this.byteLength = readUnsigned(view, at + length);
    this.done = 0;
    this.stop = 0;
    if (kind === FILL.COPY) {
      this.sourceAddress = readUnsigned(view, at + 8);
      if (!isSource(this.sourceAddress, this.byteLength)) return -ERRNO.EINVAL;
    }
    if (!isRange(this.target, this.byteLength)) return -ERRNO.EINVAL;
    const { profile } = ctx.space;
    const mode = modeOf(view, at + modeAt, known & profile.fillModes);
    if (mode < 0) return -ERRNO.EINVAL;
    this.protect = (mode & WP) !== 0;
    this.#wakes = (mode & DONTWAKE) === 0;
    return ctx.space.alive ? 0 : -ERRNO.ESRCH;
  }

  /** What goes into the argument's last word. */
  get output(): number {
    return this.done > 0 ? this.done : this.stop;
  }

  /** Wakes who waited for what was filled, once the output has been stored: the answer of the ioctl. */
  finish(): number {
    if (this.done === 0) return this.stop;
    if (this.#wakes) this.ctx.wake(this.target, this.target + this.done);
    return this.done === this.byteLength ? 0 : -ERRNO.EAGAIN;
  }

  /** Bytes of the source at an address, read by somebody who could wait for them. */
  adopt(address: number, bytes: Uint8Array): void {
    this.#snapshotAt = address;
    this.#snapshot = bytes;
  }

  isResident(address: number, byteLength: number): boolean {
    return address === this.#snapshotAt || isReadable(this.#caller, address, byteLength);
  }

  readInto(pool: Uint8Array, at: number, address: number, byteLength: number): void {
    if (address === this.#snapshotAt) pool.set(this.#snapshot!, at);
    else readResident(this.#caller, address, pool, at, byteLength);
  }
}
