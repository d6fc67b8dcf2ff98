// The descriptors of a process: small numbers for open files, the lowest free one first.

import { ERRNO } from "../../abi/errno.ts";
import type { OpenFile } from "./open-file.ts";

interface Slot {
  readonly file: OpenFile;
  closeOnExec: boolean;
}

/** RLIMIT_NOFILE, soft and hard, of a fresh process. */
const LIMIT_SOFT = 1024;
const LIMIT_HARD = 1048576;

export class Descriptors {
  readonly #slots: (Slot | undefined)[] = [];
  /** LIMIT: descriptors are below it. */
  limit = LIMIT_SOFT;
  limitMax = LIMIT_HARD;

  get(fd: number): OpenFile | undefined {
    return this.#slots[fd]?.file;
  }

  isCloseOnExec(fd: number): boolean {
    return this.#slots[fd]?.closeOnExec === true;
  }

  setCloseOnExec(fd: number, closeOnExec: boolean): void {
    const slot = this.#slots[fd];
    if (slot !== undefined) slot.closeOnExec = closeOnExec;
  }

  /** Whether a further file finds no descriptor. */
  get full(): boolean {
    return this.#lowest(0) >= this.limit;
  }

  /** Gives a file, whose reference it takes over, the lowest free descriptor from `from` on; EMFILE drops it. */
  add(file: OpenFile, closeOnExec: boolean, from = 0): number {
    const fd = this.#lowest(from);
    if (fd >= this.limit) {
      file.release();
      return -ERRNO.EMFILE;
    }
    this.#slots[fd] = { file, closeOnExec };
    return fd;
  }

  close(fd: number): number {
    const slot = this.#slots[fd];
    if (slot === undefined) return -ERRNO.EBADF;
    this.#slots[fd] = undefined;
    slot.file.release();
    return 0;
  }

  closeAll(): void {
    for (let fd = 0; fd < this.#slots.length; fd++) this.close(fd);
  }

  /** The same descriptors for a forked process. */
  copy(): Descriptors {
    const copy = new Descriptors();
    copy.limit = this.limit;
    copy.limitMax = this.limitMax;
    this.#slots.forEach((slot, fd) => {
      if (slot !== undefined) copy.#slots[fd] = { file: slot.file.retain(), closeOnExec: slot.closeOnExec };
    });
    return copy;
  }

  #lowest(from: number): number {
    let fd = from;
    while (this.#slots[fd] !== undefined) fd++;
    return fd;
  }
}
