// The numbers of the system calls that the project makes: x86-64 has a table of its own
// (arch/x86/entry/syscalls/syscall_64.tbl), arm64 uses the generic one (include/uapi/asm-generic/unistd.h).
// They are part of the ABI: a number, once given, never changes.

import type { SyscallName } from "../abi/system.ts";

/** Call, number on x86-64, number on arm64. */
const TABLE: Readonly<Record<SyscallName, readonly [x64: number, arm64: number]>> = {
  accept4: [288, 242],
  bind: [49, 200],
  capget: [125, 90],
  capset: [126, 91],
  clock_nanosleep: [230, 115],
  clone: [56, 220],
  close: [3, 57],
  connect: [42, 203],
  dup: [32, 23],
  epoll_create1: [291, 20],
  epoll_ctl: [233, 21],
  epoll_pwait: [281, 22],
  exit: [60, 93],
  exit_group: [231, 94],
  fadvise64: [221, 223],
  fallocate: [285, 47],
  fchmod: [91, 52],
  fcntl: [72, 25],
  ftruncate: [77, 46],
  futex: [202, 98],
  getcpu: [309, 168],
  getpid: [39, 172],
  getsockopt: [55, 209],
  gettid: [186, 178],
  io_uring_enter: [426, 426],
  io_uring_setup: [425, 425],
  ioctl: [16, 29],
  kill: [62, 129],
  listen: [50, 201],
  lseek: [8, 62],
  madvise: [28, 233],
  memfd_create: [319, 279],
  mincore: [27, 232],
  mlock: [149, 228],
  mmap: [9, 222],
  mprotect: [10, 226],
  mremap: [25, 216],
  munlock: [150, 229],
  munmap: [11, 215],
  openat: [257, 56],
  pidfd_getfd: [438, 438],
  pidfd_open: [434, 434],
  pidfd_send_signal: [424, 424],
  pipe2: [293, 59],
  ppoll: [271, 73],
  prctl: [157, 167],
  pread64: [17, 67],
  preadv2: [327, 286],
  prlimit64: [302, 261],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  pselect6: [270, 72],
  pwrite64: [18, 68],
  read: [0, 63],
  readlinkat: [267, 78],
  readv: [19, 65],
  recvmsg: [47, 212],
  rt_sigaction: [13, 134],
  rt_sigprocmask: [14, 135],
  sched_getaffinity: [204, 123],
  sched_setaffinity: [203, 122],
  sched_yield: [24, 124],
  sendmsg: [46, 211],
  setresuid: [117, 147],
  setsockopt: [54, 208],
  shutdown: [48, 210],
  sigaltstack: [131, 132],
  socket: [41, 198],
  socketpair: [53, 199],
  tgkill: [234, 131],
  unlinkat: [263, 35],
  userfaultfd: [323, 282],
  vmsplice: [278, 75],
  wait4: [61, 260],
  write: [1, 64],
  writev: [20, 66],
};

export type SyscallArchitecture = "x64" | "arm64";

/** The numbers of one architecture. */
export function syscallNumbers(architecture: SyscallArchitecture): Readonly<Record<SyscallName, number>> {
  const column = architecture === "x64" ? 0 : 1;
  const entries = Object.entries(TABLE).map(([name, numbers]) => [name, numbers[column]]);
  return Object.fromEntries(entries) as Record<SyscallName, number>;
}
