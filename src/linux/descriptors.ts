// Descriptors: in any process, and from another process into this one.

import { ERRNO } from "../abi/errno.ts";
import { O } from "../abi/memory.ts";
import type { Caller } from "../abi/system.ts";
import { putString } from "./arguments.ts";
import { check } from "./failure.ts";
import { local } from "./local.ts";

const F = { GETFD: 1, SETFD: 2, GETFL: 3, SETFL: 4, DUPFD_CLOEXEC: 1030 } as const;
const FD_CLOEXEC = 1;
const PIDFD_THREAD = 0x80;
const AT_FDCWD = -100;
const SYNC_FILE_RANGE_WRITE = 2;

/** openat(2) from the working directory; `flags` are O bits, O_CLOEXEC is always added. */
export function open(caller: Caller, path: string, flags: number = O.RDONLY): number {
  const result = caller.call("openat", AT_FDCWD, putString(caller, 0, path), flags | O.CLOEXEC, 0);
  return check(result, "openat", { subject: path });
}

export function close(caller: Caller, fd: number): void {
  check(caller.call("close", fd), "close", { subject: `descriptor ${fd}` });
}

/** A pipe of this process, neither end of which makes anybody wait. */
export function pipe(): [reader: number, writer: number] {
  const { address, view } = local.scratch;
  check(local.call("pipe2", address, O.CLOEXEC | O.NONBLOCK), "pipe2");
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

/** Has the disk begin with what was written to a range of a file, and does not wait for it: whether that went well fsync says. */
export function beginWriteback(caller: Caller, fd: number, offset: number, byteLength: number): void {
  caller.call("sync_file_range", fd, offset, byteLength, SYNC_FILE_RANGE_WRITE);
}

/** A duplicate that is closed on exec. */
export function duplicate(caller: Caller, fd: number): number {
  return check(caller.call("fcntl", fd, F.DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)", {
    subject: `descriptor ${fd}`,
  });
}

/** Whether reads return EAGAIN instead of waiting: a property of what the descriptor refers to, so of duplicates too. */
export function isNonBlocking(caller: Caller, fd: number): boolean {
  return (statusFlags(caller, fd) & O.NONBLOCK) !== 0;
}

export function setNonBlocking(caller: Caller, fd: number, on: boolean): void {
  const flags = statusFlags(caller, fd);
  const wanted = on ? flags | O.NONBLOCK : flags & ~O.NONBLOCK;
  check(caller.call("fcntl", fd, F.SETFL, wanted), "fcntl(F_SETFL)", { subject: `descriptor ${fd}` });
}

export function isClosedOnExec(caller: Caller, fd: number): boolean {
  const flags = check(caller.call("fcntl", fd, F.GETFD), "fcntl(F_GETFD)", { subject: `descriptor ${fd}` });
  return (flags & FD_CLOEXEC) !== 0;
}

export function setClosedOnExec(caller: Caller, fd: number, on: boolean): void {
  const result = caller.call("fcntl", fd, F.SETFD, on ? FD_CLOEXEC : 0);
  check(result, "fcntl(F_SETFD)", { subject: `descriptor ${fd}` });
}

/** The open flags: access mode, O_NONBLOCK, O_APPEND. */
export function statusFlags(caller: Caller, fd: number): number {
  return check(caller.call("fcntl", fd, F.GETFL), "fcntl(F_GETFL)", { subject: `descriptor ${fd}` });
}

/** A descriptor that stands for a process: readable once it has ended. */
export function pidfdOpen(pid: number): number {
  return check(local.call("pidfd_open", pid, 0), "pidfd_open", { subject: `process ${pid}` });
}

/** The same for one thread, which ends long before the memory of its process is gone. Undefined before Linux 6.9. */
export function pidfdOpenThread(tid: number): number | undefined {
  const result = local.call("pidfd_open", tid, PIDFD_THREAD);
  if (result === -ERRNO.EINVAL) return undefined;
  return check(result, "pidfd_open", { subject: `thread ${tid}` });
}

/** A duplicate, in this process, of a descriptor that another process has (needs ptrace rights over it). */
export function pidfdGetfd(pidfd: number, remoteFd: number): number {
  return check(local.call("pidfd_getfd", pidfd, remoteFd, 0), "pidfd_getfd", {
    subject: `descriptor ${remoteFd}`,
  });
}

/** A whole small file as text, such as those of /proc: at most what the scratch holds. */
export function readText(caller: Caller, path: string): string {
  const fd = open(caller, path);
  try {
    // The path at the start of the scratch is not needed any more once the file is open.
    const { address, bytes } = caller.scratch;
    let length = 0;
    while (length < bytes.byteLength) {
      const count = check(caller.read(fd, address + length, bytes.byteLength - length), "read", {
        subject: path,
      });
      if (count === 0) break;
      length += count;
    }
    return new TextDecoder().decode(bytes.slice(0, length));
  } finally {
    caller.call("close", fd);
  }
}
