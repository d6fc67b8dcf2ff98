// The system calls about descriptors and files.

import { ERRNO } from "../../abi/errno.ts";
import { O } from "../../abi/memory.ts";
import type { Word } from "../../abi/structs.ts";
import { NullFile, UserfaultfdDevice, ZeroFile } from "./device-files.ts";
import { MemoryFile } from "./memory-file.ts";
import { O_ACCMODE, type OpenFile } from "./open-file.ts";
import { PagemapFile } from "./pagemap-file.ts";
import { makePipe } from "./pipe.ts";
import { EpollFile, epollControl, epollWait, ppoll, pselect } from "./poll.ts";
import { fdinfoFile, mapsFile, smapsFile } from "./proc-files.ts";
import type { Blocking } from "./scheduler.ts";
import { argument, type Call, readString, readVector, vectorOf } from "./syscall.ts";
import type { SoftwareThread } from "./thread.ts";
import { openUserfaultfd, UffdFile } from "./uffd-file.ts";
import { copyOut } from "./user-access.ts";
import type { UserVector } from "./user-vector.ts";

const { fd, long, word } = argument;

const PATH_MAX = 4096;
const F = {
  DUPFD: 0,
  GETFD: 1,
  SETFD: 2,
  GETFL: 3,
  SETFL: 4,
  DUPFD_CLOEXEC: 1030,
} as const;
const RWF_NOWAIT = 8;
/** Status flags that F_SETFL can change. */
const SETTABLE = O.NONBLOCK | O.APPEND;

/** A call on a descriptor: EBADF, or what `use` says; the file is held as long as it waits. */
function onFile(
  use: (thread: SoftwareThread, file: OpenFile, args: readonly Word[]) => Blocking<number>,
): Call {
  return (thread, args) => {
    const file = thread.process.descriptors.get(fd(args, 0));
    return file === undefined ? -ERRNO.EBADF : holding(file, use(thread, file, args));
  };
}

function* holding(file: OpenFile, body: Blocking<number>): Blocking<number> {
  file.retain();
  try {
    return yield* body;
  } finally {
    file.release();
  }
}

function* vectored(
  thread: SoftwareThread,
  args: readonly Word[],
  use: (vector: UserVector) => Blocking<number>,
): Blocking<number> {
  const vector = yield* readVector(thread, word(args, 1), word(args, 2));
  return typeof vector === "number" ? vector : yield* use(vector);
}

/** Reading asks for the access mode first; a userfaultfd of any mode can be read. */
function* read(thread: SoftwareThread, file: OpenFile, vector: UserVector, noWait = false): Blocking<number> {
  return file.canRead ? yield* file.read(thread, vector, noWait) : -ERRNO.EBADF;
}

function* write(thread: SoftwareThread, file: OpenFile, vector: UserVector): Blocking<number> {
  return file.canWrite ? yield* file.write(thread, vector) : -ERRNO.EBADF;
}

// ── paths ──

function* openat(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const path = yield* readString(thread, word(args, 1), PATH_MAX);
  if (path === undefined) return -ERRNO.EFAULT;
  const flags = fd(args, 2);
  const file = openPath(thread, path, flags);
  if (typeof file === "number") return file;
  return thread.process.descriptors.add(file, (flags & O.CLOEXEC) !== 0);
}

function openPath(thread: SoftwareThread, path: string, flags: number): OpenFile | number {
  const { process } = thread;
  const { system, space } = process;
  const status = flags & (O_ACCMODE | SETTABLE);
  const [, who, what] = /^\/proc\/(self|[0-9]+)\/(.*)$/.exec(path) ?? [];
  if (what !== undefined && who !== undefined) {
    const owner = who === "self" ? process : system.process(Number(who));
    return owner === undefined ? -ERRNO.ENOENT : openProc(thread, owner, what, status);
  }
  switch (path) {
    case "/dev/null":
      return new NullFile(status);
    case "/dev/zero":
      return new ZeroFile(status);
    case "/dev/userfaultfd":
      if (!system.profile.hasDevice) return -ERRNO.ENOENT;
      return process.uid === 0 ? new UserfaultfdDevice(status) : -ERRNO.EACCES;
    case "/etc/hostname":
      if ((status & O_ACCMODE) !== O.RDONLY && process.uid !== 0) return -ERRNO.EACCES;
      return new MemoryFile(status, system.hostname(), space.pool);
    default:
      return -ERRNO.ENOENT;
  }
}

function openProc(
  thread: SoftwareThread,
  owner: SoftwareThread["process"],
  what: string,
  status: number,
): OpenFile | number {
  if (what === "pagemap") return new PagemapFile(owner.space);
  if (what === "maps") return mapsFile(owner.space);
  if (what === "smaps") return smapsFile(owner.space);
  const info = /^fdinfo\/([0-9]+)$/.exec(what);
  if (info !== null) return fdinfoFile(owner, Number(info[1])) ?? -ERRNO.ENOENT;
  const link = /^fd\/([0-9]+)$/.exec(what);
  const file = link === null ? undefined : thread.process.descriptors.get(Number(link[1]));
  // Opening a memfd again by its link gives another open file of the same object.
  if (!(file instanceof MemoryFile)) return -ERRNO.ENOENT;
  file.object.retain();
  return new MemoryFile(status, file.object, owner.space.pool);
}

function* readlinkat(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const path = yield* readString(thread, word(args, 1), PATH_MAX);
  if (path === undefined) return -ERRNO.EFAULT;
  const [, number] = /^\/proc\/self\/fd\/([0-9]+)$/.exec(path) ?? [];
  const file = number === undefined ? undefined : thread.process.descriptors.get(Number(number));
  if (file === undefined) return -ERRNO.ENOENT;
  const target =
    file instanceof UffdFile
      ? "anon_inode:[userfaultfd]"
      : file instanceof MemoryFile
        ? `/${file.object.name} (deleted)`
        : "/dev/null";
  const bytes = new TextEncoder().encode(target).subarray(0, word(args, 3));
  const told = yield* copyOut(thread.process.space, thread, word(args, 2), bytes);
  return told < bytes.length ? -ERRNO.EFAULT : told;
}

// ── descriptors ──

const fcntl: Call = (thread, args) => {
  const { descriptors } = thread.process;
  const number = fd(args, 0);
  const file = descriptors.get(number);
  if (file === undefined) return -ERRNO.EBADF;
  const value = fd(args, 2);
  switch (fd(args, 1)) {
    case F.DUPFD:
    case F.DUPFD_CLOEXEC:
      if (value < 0 || value >= descriptors.limit) return -ERRNO.EINVAL;
      return descriptors.add(file.retain(), fd(args, 1) === F.DUPFD_CLOEXEC, value);
    case F.GETFD:
      return descriptors.isCloseOnExec(number) ? 1 : 0;
    case F.SETFD:
      descriptors.setCloseOnExec(number, (value & 1) !== 0);
      return 0;
    case F.GETFL:
      return file.flags;
    case F.SETFL:
      file.flags = (file.flags & ~SETTABLE) | (value & SETTABLE);
      return 0;
    default:
      return -ERRNO.EINVAL;
  }
};

function* pipe2(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { descriptors, space } = thread.process;
  const flags = fd(args, 1);
  if ((flags & ~(O.NONBLOCK | O.CLOEXEC)) !== 0) return -ERRNO.EINVAL;
  const ends = makePipe(flags);
  const reader = descriptors.add(ends.read, (flags & O.CLOEXEC) !== 0);
  const writer = descriptors.add(ends.write, (flags & O.CLOEXEC) !== 0);
  const numbers = new Uint8Array(new Int32Array([reader, writer]).buffer);
  const told = writer < 0 ? 0 : yield* copyOut(space, thread, word(args, 0), numbers);
  if (told === numbers.length) return 0;
  descriptors.close(reader);
  descriptors.close(writer);
  return writer < 0 ? -ERRNO.EMFILE : -ERRNO.EFAULT;
}

export const FILE_CALLS: Readonly<Record<string, Call>> = {
  openat,
  readlinkat,
  fcntl,
  pipe2,
  ppoll,
  pselect6: pselect,
  epoll_ctl: epollControl,
  epoll_pwait: epollWait,
  epoll_create1: (thread, args) => {
    if ((fd(args, 0) & ~O.CLOEXEC) !== 0) return -ERRNO.EINVAL;
    return thread.process.descriptors.add(new EpollFile(), (fd(args, 0) & O.CLOEXEC) !== 0);
  },
  userfaultfd: (thread, args) => openUserfaultfd(thread.process, fd(args, 0), false),
  close: (thread, args) => thread.process.descriptors.close(fd(args, 0)),
  dup: (thread, args) => {
    const file = thread.process.descriptors.get(fd(args, 0));
    return file === undefined ? -ERRNO.EBADF : thread.process.descriptors.add(file.retain(), false);
  },
  read: onFile((thread, file, args) => read(thread, file, vectorOf(thread, word(args, 1), word(args, 2)))),
  readv: onFile((thread, file, args) => vectored(thread, args, (vector) => read(thread, file, vector))),
  // fd, vector, count, position (-1: the file's own), its high half, flags
  preadv2: onFile((thread, file, args) =>
    vectored(thread, args, (vector) => {
      const position = long(args, 3);
      if (position >= 0) return file.readAt(thread, vector, position);
      return read(thread, file, vector, (fd(args, 5) & RWF_NOWAIT) !== 0);
    }),
  ),
  write: onFile((thread, file, args) => write(thread, file, vectorOf(thread, word(args, 1), word(args, 2)))),
  writev: onFile((thread, file, args) => vectored(thread, args, (vector) => write(thread, file, vector))),
  pread64: onFile((thread, file, args) => {
    const vector = vectorOf(thread, word(args, 1), word(args, 2));
    return long(args, 3) < 0 ? refuse(-ERRNO.EINVAL) : file.readAt(thread, vector, long(args, 3));
  }),
  pwrite64: onFile((thread, file, args) => {
    const vector = vectorOf(thread, word(args, 1), word(args, 2));
    return long(args, 3) < 0 ? refuse(-ERRNO.EINVAL) : file.writeAt(thread, vector, long(args, 3));
  }),
  ioctl: onFile((thread, file, args) => file.ioctl(thread, word(args, 1) % 2 ** 32, args[2] ?? 0)),
  lseek: (thread, args) => {
    const file = thread.process.descriptors.get(fd(args, 0));
    return file === undefined ? -ERRNO.EBADF : file.seek(long(args, 1), fd(args, 2));
  },
};

// biome-ignore lint/correctness/useYield: an answer that is known already
function* refuse(errno: number): Blocking<number> {
  return errno;
}
