// The descriptor of a userfaultfd: opening, reading messages, polling, and the end with its last reference.

import { ERRNO } from "../../abi/errno.ts";
import { O, POLL } from "../../abi/memory.ts";
import { UFFD_MSG_SIZE } from "../../abi/message.ts";
import { type Word, writeWord } from "../../abi/structs.ts";
import { UFFD_EVENT, UFFD_OPEN } from "../../abi/userfaultfd.ts";
import { Context, type EventWaiter } from "./context.ts";
import { O_ACCMODE, OpenFile } from "./open-file.ts";
import type { SoftwareProcess } from "./process.ts";
import { releaseContext } from "./register.ts";
import { type Blocking, SLEEP } from "./scheduler.ts";
import { RESTART, type SoftwareThread } from "./thread.ts";
import { uffdIoctl } from "./uffd-ioctl.ts";
import type { UserVector } from "./user-vector.ts";
import type { WaitQueue } from "./wait-queue.ts";

const OPEN_FLAGS = UFFD_OPEN.CLOEXEC | UFFD_OPEN.NONBLOCK;

/** userfaultfd(2), or (`allowed`) the device's way, which asks for no capability: a descriptor or a negative errno. */
export function openUserfaultfd(process: SoftwareProcess, flags: number, allowed: boolean): number {
  const { profile, unprivilegedUserfaultfd } = process.system;
  const userModeOnly = profile.opensGuarded && (flags & UFFD_OPEN.USER_MODE_ONLY) !== 0;
  if (profile.opensGuarded && !allowed && !userModeOnly) {
    if (!process.privileged && !unprivilegedUserfaultfd) return -ERRNO.EPERM;
  }
  if (profile.fullTableFirst && process.descriptors.full) return -ERRNO.EMFILE;
  const known = OPEN_FLAGS | (profile.opensGuarded ? UFFD_OPEN.USER_MODE_ONLY : 0);
  if ((flags & ~known) !== 0) return -ERRNO.EINVAL;
  const ctx = new Context(process.space, userModeOnly);
  ctx.openFlags = flags & OPEN_FLAGS;
  return installContext(process, ctx);
}

/** A descriptor for a context, opened as the context says. */
function installContext(process: SoftwareProcess, ctx: Context): number {
  const file = new UffdFile(ctx);
  return process.descriptors.add(file, (ctx.openFlags & O.CLOEXEC) !== 0);
}

export class UffdFile extends OpenFile {
  readonly ctx: Context;

  constructor(ctx: Context) {
    super(ctx.space.profile.accessMode | (ctx.openFlags & O.NONBLOCK));
    this.ctx = ctx;
    if (ctx.space.profile.keepsMemory) ctx.space.retain();
  }

  protected override closed(): void {
    releaseContext(this.ctx);
  }

  override get changes(): WaitQueue {
    return this.ctx.readers;
  }

  get #noWait(): boolean {
    return (this.flags & O.NONBLOCK) !== 0;
  }

  override poll(): number {
    // A descriptor that would block has nothing to wait for by poll: that is an error, whatever is pending.
    if (!this.ctx.enabled || !this.#noWait) return POLL.ERR;
    return this.ctx.readable ? POLL.IN : 0;
  }

  override *read(thread: SoftwareThread, vector: UserVector, noWait = false): Blocking<number> {
    if (!this.ctx.enabled) return -ERRNO.EINVAL;
    let done = 0;
    for (;;) {
      if (vector.remaining < UFFD_MSG_SIZE) return done > 0 ? done : -ERRNO.EINVAL;
      // Only the first message is waited for.
      const message = new Uint8Array(UFFD_MSG_SIZE);
      const taken = yield* this.#take(thread, message, noWait || this.#noWait || done > 0);
      if (taken < 0) return done > 0 ? done : taken;
      // The message is gone, even if it can't be delivered.
      const put = yield* vector.put(thread, message);
      if (put < UFFD_MSG_SIZE) return done > 0 ? done : -ERRNO.EFAULT;
      done += UFFD_MSG_SIZE;
    }
  }

  /** Takes one message, or waits for it: 0 or a negative errno. */
  *#take(thread: SoftwareThread, message: Uint8Array, noWait: boolean): Blocking<number> {
    const { ctx } = this;
    try {
      for (;;) {
        const taken = this.takeNow(thread.process, new DataView(message.buffer), 0);
        if (taken !== -ERRNO.EAGAIN) return taken;
        if (thread.signalled) return RESTART;
        if (noWait) return -ERRNO.EAGAIN;
        ctx.readers.add(thread);
        yield SLEEP.INTERRUPTIBLE;
      }
    } finally {
      ctx.readers.delete(thread);
    }
  }

  /** Takes a message if there is one: 0, EAGAIN if not, or why an event could not be delivered. */
  takeNow(process: SoftwareProcess, view: DataView, at: number): number {
    const fault = this.ctx.takeFault();
    if (fault !== undefined) {
      view.setUint32(at, UFFD_EVENT.PAGEFAULT, true);
      view.setUint32(at + 4, 0, true);
      view.setUint32(at + 8, fault.flags, true);
      view.setUint32(at + 12, 0, true);
      writeWord(view, at + 16, fault.address);
      view.setUint32(at + 24, fault.ptid, true);
      view.setUint32(at + 28, 0, true);
      return 0;
    }
    const event = this.ctx.events[0];
    return event === undefined ? -ERRNO.EAGAIN : this.#takeEvent(process, event, view, at);
  }

  #takeEvent(process: SoftwareProcess, event: EventWaiter, view: DataView, at: number): number {
    const [first, second, third] = event.words;
    let word = first;
    if (event.child !== undefined) {
      // The child's context gets its descriptor in the process that reads.
      const fd = process.descriptors.full ? -ERRNO.EMFILE : installContext(process, event.child);
      if (fd < 0) return fd;
      word = fd;
    }
    this.ctx.completeEvent(event);
    view.setUint32(at, event.event, true);
    view.setUint32(at + 4, 0, true);
    writeWord(view, at + 8, word);
    writeWord(view, at + 16, second);
    writeWord(view, at + 24, third);
    return 0;
  }

  override *ioctl(thread: SoftwareThread, request: number, argument: Word): Blocking<number> {
    return yield* uffdIoctl(thread, this.ctx, request, argument);
  }

  // biome-ignore lint/correctness/useYield: never waits
  override *write(): Blocking<number> {
    return (this.flags & O_ACCMODE) === O.RDONLY ? -ERRNO.EBADF : -ERRNO.EINVAL;
  }

  /** noop_llseek: an anonymous inode has no position. */
  override seek(): number {
    return 0;
  }

  override get info(): string {
    const { ctx } = this;
    const features = ((ctx.features | (ctx.enabled ? 0x80000000 : 0)) >>> 0).toString(16);
    const total = ctx.pending.size + ctx.reading.size;
    return `pending:\t${ctx.pending.size}\ntotal:\t${total}\nAPI:\taa:${features}:80000000000001ff\n`;
  }
}
