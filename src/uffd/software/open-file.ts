// An open file: what a descriptor refers to, and what every kind of it can be asked.
//
// Each kind overrides what it can do; what it cannot do answers the errno of Linux. Calls that read or write the
// caller's memory may wait there for a page, so they are generators.

import { ERRNO } from "../../abi/errno.ts";
import type { Word } from "../../abi/structs.ts";
import type { Backing } from "./mapping.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import type { UserVector } from "./user-vector.ts";
import type { WaitQueue } from "./wait-queue.ts";

export const O_ACCMODE = 3;

export abstract class OpenFile {
  /** Access mode and status flags, as fcntl(F_GETFL) tells them. */
  flags: number;
  /** The next byte to read or write, where there is such a thing. */
  position = 0;
  #references = 1;

  constructor(flags: number) {
    this.flags = flags;
  }

  get canRead(): boolean {
    return (this.flags & O_ACCMODE) !== 1;
  }
  get canWrite(): boolean {
    return (this.flags & O_ACCMODE) !== 0;
  }

  retain(): this {
    this.#references++;
    return this;
  }

  /** One reference less: a descriptor closed, a call that has ended. */
  release(): void {
    if (--this.#references === 0) this.closed();
  }

  /** Somebody still refers to it. */
  get alive(): boolean {
    return this.#references > 0;
  }

  /** The last reference is gone. */
  protected closed(): void {}

  /** Whether poll and epoll make sense for it. */
  get pollable(): boolean {
    return true;
  }

  // biome-ignore lint/correctness/useYield: the plain answer of files that cannot be read
  *read(_thread: SoftwareThread, _vector: UserVector, _noWait: boolean): Blocking<number> {
    return -ERRNO.EINVAL;
  }

  // biome-ignore lint/correctness/useYield: the plain answer of files that cannot be written
  *write(_thread: SoftwareThread, _vector: UserVector): Blocking<number> {
    return -ERRNO.EINVAL;
  }

  /** Reading or writing at a position; files without positions answer ESPIPE before anything else. */
  // biome-ignore lint/correctness/useYield: the plain answer
  *readAt(_thread: SoftwareThread, _vector: UserVector, _position: number): Blocking<number> {
    return -ERRNO.ESPIPE;
  }

  // biome-ignore lint/correctness/useYield: the plain answer
  *writeAt(_thread: SoftwareThread, _vector: UserVector, _position: number): Blocking<number> {
    return -ERRNO.ESPIPE;
  }

  // biome-ignore lint/correctness/useYield: the plain answer
  *ioctl(_thread: SoftwareThread, _request: number, _argument: Word): Blocking<number> {
    return -ERRNO.ENOTTY;
  }

  /** POLL bits that hold now. */
  poll(): number {
    return 0x5; // IN and OUT: what does not know otherwise is always ready
  }

  /** Told when `poll` may answer otherwise. */
  get changes(): WaitQueue | undefined {
    return undefined;
  }

  seek(_offset: number, _whence: number): number {
    return -ERRNO.ESPIPE;
  }

  truncate(_size: number): number {
    return -ERRNO.EINVAL;
  }

  /** What a mapping of it would show, or a negative errno. */
  backing(_shared: boolean, _prot: number): Backing | number {
    return -ERRNO.ENODEV;
  }

  /** Further lines of /proc/PID/fdinfo. */
  get info(): string {
    return "";
  }
}

/** lseek for files of a known size. */
export function seekIn(file: OpenFile, size: number, offset: number, whence: number): number {
  const base = whence === 0 ? 0 : whence === 1 ? file.position : whence === 2 ? size : Number.NaN;
  const target = base + offset;
  if (!(target >= 0)) return -ERRNO.EINVAL;
  file.position = target;
  return target;
}
