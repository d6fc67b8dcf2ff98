// Files that are an object: memfds and the one ordinary file, read and written through their page cache.

import { ERRNO } from "../../abi/errno.ts";
import { PAGE_SIZE, PROT } from "../../abi/memory.ts";
import { roundUp } from "../../base/range.ts";
import { ZAP } from "./address-space.ts";
import { zapMappings } from "./advice.ts";
import type { FramePool } from "./frame-pool.ts";
import type { Backing } from "./mapping.ts";
import { OpenFile, seekIn } from "./open-file.ts";
import type { Blocking } from "./scheduler.ts";
import type { SharedObject } from "./shared-object.ts";
import type { SoftwareThread } from "./thread.ts";
import type { UserVector } from "./user-vector.ts";

export class MemoryFile extends OpenFile {
  readonly object: SharedObject;
  readonly #pool: FramePool;

  /** Takes over one reference to the object. */
  constructor(flags: number, object: SharedObject, pool: FramePool) {
    super(flags);
    this.object = object;
    this.#pool = pool;
  }

  override get pollable(): boolean {
    return false;
  }

  protected override closed(): void {
    this.object.release();
  }

  override *read(thread: SoftwareThread, vector: UserVector): Blocking<number> {
    const done = yield* this.readAt(thread, vector, this.position);
    if (done > 0) this.position += done;
    return done;
  }

  override *write(thread: SoftwareThread, vector: UserVector): Blocking<number> {
    const done = yield* this.writeAt(thread, vector, this.position);
    if (done > 0) this.position += done;
    return done;
  }

  override *readAt(thread: SoftwareThread, vector: UserVector, position: number): Blocking<number> {
    if (!this.canRead) return -ERRNO.EBADF;
    let done = 0;
    while (vector.remaining > 0 && position + done < this.object.size) {
      const at = position + done;
      const length = Math.min(vector.remaining, PAGE_SIZE - (at % PAGE_SIZE), this.object.size - at);
      const put = yield* vector.put(thread, this.#piece(at, length));
      done += put;
      if (put < length) return done > 0 ? done : -ERRNO.EFAULT;
    }
    return done;
  }

  /** A copy of bytes of one page: what is not cached is zero. */
  #piece(at: number, length: number): Uint8Array {
    const { pageSize } = this.object;
    const frame = this.object.frameOf(Math.floor(at / pageSize));
    if (frame < 0) return new Uint8Array(length);
    const offset = frame * PAGE_SIZE + (at % pageSize);
    return this.#pool.bytes.slice(offset, offset + length);
  }

  override *writeAt(thread: SoftwareThread, vector: UserVector, position: number): Blocking<number> {
    if (!this.canWrite) return -ERRNO.EBADF;
    if (this.object.kind === "huge") return -ERRNO.EINVAL;
    let done = 0;
    while (vector.remaining > 0) {
      const at = position + done;
      const piece = new Uint8Array(Math.min(vector.remaining, PAGE_SIZE - (at % PAGE_SIZE)));
      const taken = yield* vector.take(thread, piece);
      if (taken > 0) {
        const frame = this.object.frameFor(Math.floor(at / PAGE_SIZE));
        if (frame < 0) return done > 0 ? done : -ERRNO.ENOSPC;
        this.#pool.bytes.set(piece.subarray(0, taken), frame * PAGE_SIZE + (at % PAGE_SIZE));
        done += taken;
        this.object.size = Math.max(this.object.size, position + done);
      }
      if (taken < piece.length) return done > 0 ? done : -ERRNO.EFAULT;
    }
    return done;
  }

  override seek(offset: number, whence: number): number {
    return seekIn(this, this.object.size, offset, whence);
  }

  override truncate(size: number): number {
    const { object } = this;
    if (!this.canWrite || size < 0) return -ERRNO.EINVAL;
    if (object.kind === "huge" && size % object.pageSize !== 0) return -ERRNO.EINVAL;
    if (size < object.size) {
      const from = roundUp(size, object.pageSize);
      object.size = size;
      zapMappings(object, from, Number.MAX_SAFE_INTEGER, ZAP.TRUNCATE);
      object.drop(from / object.pageSize, Number.MAX_SAFE_INTEGER);
      this.#clearTail(size);
    }
    object.size = size;
    return 0;
  }

  /** The rest of the last page reads as zero if the file grows again. */
  #clearTail(size: number): void {
    const within = size % PAGE_SIZE;
    const frame = within === 0 ? -1 : this.object.frameOf(Math.floor(size / PAGE_SIZE));
    if (frame >= 0) this.#pool.bytes.fill(0, frame * PAGE_SIZE + within, (frame + 1) * PAGE_SIZE);
  }

  override backing(shared: boolean, prot: number): Backing | number {
    if (!this.canRead) return -ERRNO.EACCES;
    if (shared && (prot & PROT.WRITE) !== 0 && !this.canWrite) return -ERRNO.EACCES;
    return { object: this.object, mayWrite: this.canWrite };
  }
}
