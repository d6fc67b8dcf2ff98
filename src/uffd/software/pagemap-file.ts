// /proc/self/pagemap: the state of each page, and the ioctl PAGEMAP_SCAN.

import { ERRNO } from "../../abi/errno.ts";
import { PAGE_SIZE } from "../../abi/memory.ts";
import type { Word } from "../../abi/structs.ts";
import { PAGEMAP_SCAN } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import { OpenFile, seekIn } from "./open-file.ts";
import { FRAME_SHIFT, PTE } from "./page-table.ts";
import { pagemapScan } from "./pagemap-scan.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import type { UserVector } from "./user-vector.ts";
import { unsigned } from "./words.ts";

/** Pages told by one piece of a read. */
const PIECE = 512;
/** 2^47 / 4096 entries of 8 bytes. */
const FILE_BYTES = 2 ** 38;

// The upper half of an entry, from bit 32 on.
const PRESENT = 1 << 31;
const SWAPPED = 1 << 30;
const FILE = 1 << 29;
const GUARD = 1 << 26;
const WRITE_PROTECTED = 1 << 25;
const EXCLUSIVE = 1 << 24;

export class PagemapFile extends OpenFile {
  readonly space: AddressSpace;

  constructor(space: AddressSpace) {
    super(0);
    this.space = space;
  }

  override get pollable(): boolean {
    return false;
  }

  override *read(thread: SoftwareThread, vector: UserVector): Blocking<number> {
    const done = yield* this.readAt(thread, vector, this.position);
    if (done > 0) this.position += done;
    return done;
  }

  override *readAt(thread: SoftwareThread, vector: UserVector, position: number): Blocking<number> {
    if (position % 8 !== 0 || vector.remaining % 8 !== 0) return -ERRNO.EINVAL;
    if (!this.space.alive) return 0;
    let done = 0;
    while (vector.remaining > 0 && position + done < FILE_BYTES) {
      const piece = this.#entries((position + done) / 8, Math.min(PIECE, vector.remaining / 8));
      const put = yield* vector.put(thread, piece);
      done += put;
      if (put < piece.length) return done > 0 ? done : -ERRNO.EFAULT;
    }
    return done;
  }

  #entries(first: number, count: number): Uint8Array {
    const bytes = new Uint8Array(count * 8);
    const view = new DataView(bytes.buffer);
    for (let index = 0; index < count; index++) {
      view.setInt32(index * 8 + 4, this.#flags((first + index) * PAGE_SIZE), true);
    }
    return bytes;
  }

  #flags(address: number): number {
    const vma = this.space.vmas.at(address);
    if (vma === undefined) return 0;
    if (vma.wired !== undefined) return PRESENT | FILE;
    const entry = this.space.entryAt(vma, address);
    const marked = (entry & PTE.WP) !== 0 ? WRITE_PROTECTED : 0;
    if ((entry & PTE.MARKER) !== 0) return SWAPPED | marked | ((entry & PTE.GUARD) !== 0 ? GUARD : 0);
    if ((entry & PTE.PRESENT) === 0) return 0;
    const frame = entry >>> FRAME_SHIFT;
    const cached = (entry & PTE.ANON) === 0;
    if (frame === 0) return PRESENT | marked;
    // The page cache is a user of its own.
    const single = this.space.pool.users(frame) === (cached ? 2 : 1);
    return PRESENT | marked | (cached ? FILE : 0) | (single ? EXCLUSIVE : 0);
  }

  override seek(offset: number, whence: number): number {
    return seekIn(this, FILE_BYTES, offset, whence);
  }

  override *ioctl(thread: SoftwareThread, request: number, argument: Word): Blocking<number> {
    if (request !== PAGEMAP_SCAN || !this.space.profile.hasScan) return -ERRNO.ENOTTY;
    return yield* pagemapScan(thread, this.space, unsigned(argument));
  }
}
