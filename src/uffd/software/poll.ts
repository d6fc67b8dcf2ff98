// ppoll, pselect6 and epoll: waiting for files to become ready.
//
// Time passes only when nothing else can happen (scheduler), so a timeout ends a wait as soon as the system is at rest.

import { ERRNO } from "../../abi/errno.ts";
import { O, POLL } from "../../abi/memory.ts";
import type { Word } from "../../abi/structs.ts";
import { OpenFile } from "./open-file.ts";
import { type Blocking, SLEEP } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { copyIn, copyOut } from "./user-access.ts";
import { int, unsigned } from "./words.ts";

/** A timeout that never comes. */
const FOREVER = Number.POSITIVE_INFINITY;

/** struct timespec in the caller's memory as ms; null: for ever; undefined: EFAULT or nonsense. */
export function* readTimeout(thread: SoftwareThread, address: number): Blocking<number | undefined> {
  if (address === 0) return FOREVER;
  const bytes = new Uint8Array(16);
  if ((yield* copyIn(thread.process.space, thread, address, bytes)) < 16) return undefined;
  const view = new DataView(bytes.buffer);
  return Number(view.getBigInt64(0, true)) * 1000 + Number(view.getBigInt64(8, true)) / 1e6;
}

/** Waits until `check` finds something (a positive number), a signal comes (EINTR) or time is over (0). */
export function* waitFor(
  thread: SoftwareThread,
  files: Iterable<OpenFile>,
  timeoutMs: number,
  check: () => number,
): Blocking<number> {
  const { scheduler } = thread.process;
  const deadline = scheduler.now + timeoutMs;
  const queues = [...files].flatMap((file) => file.changes ?? []);
  try {
    for (let first = true; ; first = false) {
      const found = check();
      if (found !== 0 || timeoutMs <= 0) return found;
      if (thread.signalled) return -ERRNO.EINTR;
      if (first) {
        for (const queue of queues) queue.add(thread);
        if (timeoutMs !== FOREVER) scheduler.setTimer(deadline, thread);
      } else if (scheduler.now >= deadline) {
        return 0;
      }
      yield SLEEP.INTERRUPTIBLE;
    }
  } finally {
    for (const queue of queues) queue.delete(thread);
    scheduler.clearTimers(thread);
  }
}

/** ppoll(fds, count, timeout, mask, mask size). */
export function* ppoll(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { space, descriptors } = thread.process;
  const address = unsigned(args[0] ?? 0);
  const count = unsigned(args[1] ?? 0);
  const timeoutMs = yield* readTimeout(thread, unsigned(args[2] ?? 0));
  if (timeoutMs === undefined) return -ERRNO.EFAULT;
  if (count > descriptors.limit) return -ERRNO.EINVAL;
  const bytes = new Uint8Array(count * 8);
  if ((yield* copyIn(space, thread, address, bytes)) < bytes.length) return -ERRNO.EFAULT;
  const view = new DataView(bytes.buffer);
  const files: OpenFile[] = [];
  for (let at = 0; at < bytes.length; at += 8) {
    const file = descriptors.get(view.getInt32(at, true));
    if (file !== undefined) files.push(file.retain());
  }
  const check = (): number => {
    let ready = 0;
    for (let at = 0; at < bytes.length; at += 8) {
      const fd = view.getInt32(at, true);
      const file = descriptors.get(fd);
      const wanted = view.getInt16(at + 4, true) | POLL.ERR | POLL.HUP;
      const found = fd < 0 ? 0 : file === undefined ? POLL.NVAL : file.poll() & wanted;
      view.setInt16(at + 6, found, true);
      if (found !== 0) ready++;
    }
    return ready;
  };
  try {
    const ready = yield* waitFor(thread, files, timeoutMs, check);
    if (ready < 0) return ready;
    return (yield* copyOut(space, thread, address, bytes)) < bytes.length ? -ERRNO.EFAULT : ready;
  } finally {
    for (const file of files) file.release();
  }
}

const READABLE = POLL.IN | POLL.HUP | POLL.ERR;
const WRITABLE = POLL.OUT | POLL.ERR;

/** pselect6(n, readfds, writefds, exceptfds, timeout, mask). */
export function* pselect(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { space, descriptors } = thread.process;
  const count = int(args[0] ?? 0);
  if (count < 0) return -ERRNO.EINVAL;
  const timeoutMs = yield* readTimeout(thread, unsigned(args[4] ?? 0));
  if (timeoutMs === undefined) return -ERRNO.EFAULT;
  const byteLength = Math.ceil(count / 64) * 8;
  const sets: { readonly address: number; readonly wanted: Uint8Array; readonly found: Uint8Array }[] = [];
  for (const index of [1, 2, 3]) {
    const address = unsigned(args[index] ?? 0);
    const wanted = new Uint8Array(address === 0 ? 0 : byteLength);
    if ((yield* copyIn(space, thread, address, wanted)) < wanted.length) return -ERRNO.EFAULT;
    sets.push({ address, wanted, found: new Uint8Array(wanted.length) });
  }
  const masks = [READABLE, WRITABLE, POLL.PRI];
  const has = (set: Uint8Array, fd: number): boolean => ((set[fd >> 3] ?? 0) & (1 << (fd & 7))) !== 0;
  const files: OpenFile[] = [];
  for (let fd = 0; fd < count; fd++) {
    if (!sets.some(({ wanted }) => has(wanted, fd))) continue;
    const file = descriptors.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    files.push(file);
  }
  const check = (): number => {
    let ready = 0;
    sets.forEach(({ wanted, found }, kind) => {
      found.fill(0);
      for (let fd = 0; fd < count; fd++) {
        if (!has(wanted, fd) || ((descriptors.get(fd)?.poll() ?? 0) & masks[kind]!) === 0) continue;
        found[fd >> 3]! |= 1 << (fd & 7);
        ready++;
      }
    });
    return ready;
  };
  for (const file of files) file.retain();
  try {
    const ready = yield* waitFor(thread, files, timeoutMs, check);
    if (ready < 0) return ready;
    for (const { address, found } of sets) {
      if ((yield* copyOut(space, thread, address, found)) < found.length) return -ERRNO.EFAULT;
    }
    return ready;
  } finally {
    for (const file of files) file.release();
  }
}

interface Interest {
  readonly file: OpenFile;
  events: number;
  data: bigint;
}

const EPOLL_CTL = { ADD: 1, DEL: 2, MOD: 3 } as const;
const EPOLL_ONESHOT = 1 << 30;

export class EpollFile extends OpenFile {
  readonly #interests = new Map<number, Interest>();

  constructor() {
    super(O.RDWR);
  }

  override poll(): number {
    return this.#ready().length > 0 ? POLL.IN : 0;
  }

  /** Changes what is waited for; `event` is undefined when it could not be read. */
  control(how: number, fd: number, file: OpenFile, event: { events: number; data: bigint }): number {
    const found = this.#interests.get(fd);
    const known = found !== undefined && found.file === file;
    if (how === EPOLL_CTL.ADD) {
      if (known) return -ERRNO.EEXIST;
      this.#interests.set(fd, { file, ...event });
      return 0;
    }
    if (!known) return -ERRNO.ENOENT;
    if (how === EPOLL_CTL.DEL) this.#interests.delete(fd);
    else if (how === EPOLL_CTL.MOD) Object.assign(found, event);
    else return -ERRNO.EINVAL;
    return 0;
  }

  #ready(): { readonly interest: Interest; readonly events: number }[] {
    const ready: { readonly interest: Interest; readonly events: number }[] = [];
    for (const [fd, interest] of this.#interests) {
      if (!interest.file.alive) {
        this.#interests.delete(fd);
        continue;
      }
      const events = interest.file.poll() & (interest.events | POLL.ERR | POLL.HUP);
      if (events !== 0 && (interest.events & 0xffff) !== 0) ready.push({ interest, events });
    }
    return ready;
  }

  *wait(thread: SoftwareThread, address: number, count: number, timeoutMs: number): Blocking<number> {
    const files = [...this.#interests.values()].map(({ file }) => file);
    const found = yield* waitFor(thread, files, timeoutMs, () => this.#ready().length);
    if (found <= 0) return found;
    const ready = this.#ready().slice(0, count);
    // struct epoll_event is packed: 12 bytes.
    const bytes = new Uint8Array(ready.length * 12);
    const view = new DataView(bytes.buffer);
    ready.forEach(({ interest, events }, index) => {
      view.setUint32(index * 12, events, true);
      view.setBigUint64(index * 12 + 4, interest.data, true);
      if ((interest.events & EPOLL_ONESHOT) !== 0) interest.events = 0;
    });
    const copied = yield* copyOut(thread.process.space, thread, address, bytes);
    return copied < bytes.length ? -ERRNO.EFAULT : ready.length;
  }
}

/** epoll_ctl(epoll fd, how, fd, event). */
export function* epollControl(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { space, descriptors } = thread.process;
  const how = int(args[1] ?? 0);
  const fd = int(args[2] ?? 0);
  const bytes = new Uint8Array(12);
  if (how !== EPOLL_CTL.DEL) {
    const read = yield* copyIn(space, thread, unsigned(args[3] ?? 0), bytes);
    if (read < bytes.length) return -ERRNO.EFAULT;
  }
  const epoll = descriptors.get(int(args[0] ?? 0));
  const file = descriptors.get(fd);
  if (epoll === undefined || file === undefined) return -ERRNO.EBADF;
  if (!file.pollable) return -ERRNO.EPERM;
  if (!(epoll instanceof EpollFile) || epoll === file) return -ERRNO.EINVAL;
  const view = new DataView(bytes.buffer);
  return epoll.control(how, fd, file, {
    events: view.getUint32(0, true),
    data: view.getBigUint64(4, true),
  });
}

/** epoll_pwait(epoll fd, events, count, timeout in ms, mask). */
export function* epollWait(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const epoll = thread.process.descriptors.get(int(args[0] ?? 0));
  const count = int(args[2] ?? 0);
  const timeout = int(args[3] ?? 0);
  if (count <= 0) return -ERRNO.EINVAL;
  if (epoll === undefined) return -ERRNO.EBADF;
  if (!(epoll instanceof EpollFile)) return -ERRNO.EINVAL;
  epoll.retain();
  try {
    return yield* epoll.wait(thread, unsigned(args[1] ?? 0), count, timeout < 0 ? FOREVER : timeout);
  } finally {
    epoll.release();
  }
}
