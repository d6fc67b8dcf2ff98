// The narrow waist: what a system that has userfaultfd offers to those who drive it.
//
// A system runs processes; a process has memory, descriptors and threads; a thread makes system calls and
// touches memory, and may stay blocked in either. Three things stand behind these interfaces: this very process
// (koffi), a bare process of the real kernel that is driven from outside (guest/process), and the software
// implementation. Everything typed (ioctls, address spaces, the case language, the differential test) is
// written once, over this.

import type { Word } from "./structs.ts";

/** System calls by name; each system knows its own numbers. Arguments are as in the manual pages. */
export type SyscallName =
  | "accept4"
  | "bind"
  | "capget"
  | "capset"
  | "clock_nanosleep"
  | "clone"
  | "close"
  | "connect"
  | "dup"
  | "epoll_create1"
  | "epoll_ctl"
  | "epoll_pwait"
  | "exit"
  | "exit_group"
  | "fadvise64"
  | "fallocate"
  | "fchmod"
  | "fcntl"
  | "ftruncate"
  | "futex"
  | "getcpu"
  | "getpid"
  | "getsockopt"
  | "gettid"
  | "io_uring_enter"
  | "io_uring_setup"
  | "ioctl"
  | "kill"
  | "listen"
  | "lseek"
  | "madvise"
  | "memfd_create"
  | "mincore"
  | "mlock"
  | "mmap"
  | "mprotect"
  | "mremap"
  | "munlock"
  | "munmap"
  | "openat"
  | "pidfd_getfd"
  | "pidfd_open"
  | "pidfd_send_signal"
  | "pipe2"
  | "ppoll"
  | "prctl"
  | "pread64"
  | "preadv2"
  | "prlimit64"
  | "process_vm_readv"
  | "process_vm_writev"
  | "pselect6"
  | "pwrite64"
  | "read"
  | "readlinkat"
  | "readv"
  | "recvmsg"
  | "rt_sigaction"
  | "rt_sigprocmask"
  | "sched_getaffinity"
  | "sched_setaffinity"
  | "sched_yield"
  | "sendmsg"
  | "setresuid"
  | "setsockopt"
  | "shutdown"
  | "sigaltstack"
  | "socket"
  | "socketpair"
  | "sync_file_range"
  | "tgkill"
  | "unlinkat"
  | "userfaultfd"
  | "vmsplice"
  | "wait4"
  | "write"
  | "writev";

/** A piece of a process's memory that we can read and write from here, for the arguments of its system calls. */
export interface Scratch {
  /** Its address in that process. */
  readonly address: number;
  /** The same memory, here. Never paged. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/** Makes system calls in one process. A result is zero or positive, or the negative errno. */
export interface Caller {
  call(name: SyscallName, ...args: readonly Word[]): number;
  /** The two calls of the hot path, without the look-up by name. */
  ioctl(fd: number, request: number, argument: Word): number;
  read(fd: number, address: Word, byteLength: number): number;
  /** At least 64 KiB. */
  readonly scratch: Scratch;
  /** More such memory: at least `byteLength` bytes, whole pages, for what `copy` takes its bytes from. */
  share(byteLength: number): Scratch & { close(): void };
}

/** What a thread can be told to do. Addresses are in its own process. */
export type Operation =
  | { readonly kind: "call"; readonly name: SyscallName; readonly args: readonly Word[] }
  /** Loads 1 or 8 bytes; the value is the number read (its low 53 bits). */
  | { readonly kind: "load"; readonly address: Word; readonly size: 1 | 8 }
  | { readonly kind: "store"; readonly address: Word; readonly value: number }
  /** Atomically adds to 8 bytes; the value is what was there before. */
  | { readonly kind: "add"; readonly address: Word; readonly value: number }
  /** Calls the code at the address (which must return). */
  | { readonly kind: "execute"; readonly address: Word };

/** How an operation ended. */
export type Ending =
  | { readonly kind: "value"; readonly value: number }
  /** A synchronous signal interrupted it (SIGBUS, SIGSEGV); `code` is si_code, `address` si_addr. */
  | { readonly kind: "signal"; readonly signal: number; readonly code: number; readonly address: number }
  /** The process was killed or exited meanwhile. */
  | { readonly kind: "gone" };

export interface Thread {
  readonly tid: number;
  /** Begins an operation; the thread must be idle. Returns at once. */
  start(operation: Operation): void;
  /** "idle" before and after an operation, "running" while it makes progress, "blocked" while it waits in the kernel. */
  readonly state: "idle" | "running" | "blocked";
  /** How the last operation ended; undefined while it has not. */
  readonly ending: Ending | undefined;
  /** How many caught SIGUSR1 this thread has handled. */
  readonly signalsHandled: number;
}

export interface Process extends Caller {
  readonly pid: number;
  /** The thread that `call` uses; it is not among `threads`. */
  readonly threads: readonly Thread[];
  /** A new thread, idle. `pinned` to a CPU where the system has such a thing. */
  spawnThread(): Thread;
  /**
   * Forks from a thread of this process, as fork(2) does: the child has a copy of the memory and of the
   * descriptors, and one thread. The fork may block (EVENT_FORK) until somebody reads the event, so
   * what comes back is what to look at after `settle`.
   */
  fork(): { readonly thread: Thread; readonly child: () => Process | undefined };
  /** Catches SIGUSR1 from now on; each thread counts those that it handled. `restart`: as SA_RESTART. */
  catchUserSignal(options: { readonly restart: boolean }): void;
  /** Returns when every thread is idle or blocked for good: nothing more happens by itself. */
  settle(): void;
  /** Exit status as wait4 gives it once the process has ended, else undefined. */
  readonly exited: number | undefined;
  /** SIGKILL; returns when it is gone. Safe to call twice. */
  kill(): void;
}

/** Something that runs processes with userfaultfd in them. */
export interface System {
  readonly name: "kernel" | "software";
  /** A fresh process: an empty address space but for its scratch. */
  spawnProcess(): Process;
  close(): void;
}
