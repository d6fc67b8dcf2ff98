// The values of mmap(2), mremap(2), madvise(2), open(2), poll(2) and clone(2) that the project uses (x86-64; the
// same on arm64 unless marked). From include/uapi/asm-generic/{mman,mman-common,fcntl,poll}.h and linux/mman.h.

/** Bytes of a base page. Hosts with larger base pages (some arm64) are refused by `minorfault doctor`. */
export const PAGE_SIZE = 4096;
export const PAGE_SHIFT = 12;
/** Bytes of the huge page that hugetlb and THP use on x86-64. */
export const HUGE_PAGE_SIZE = 0x200000;
export const HUGE_PAGE_SHIFT = 21;
/** First address that is not user space: 2^47 less the guard page of x86-64. */
export const TASK_SIZE = 0x7ffffffff000;

export const PROT = { NONE: 0, READ: 1, WRITE: 2, EXEC: 4 } as const;

export const MAP = {
  SHARED: 0x01,
  PRIVATE: 0x02,
  DROPPABLE: 0x08,
  FIXED: 0x10,
  ANONYMOUS: 0x20,
  POPULATE: 0x8000,
  NORESERVE: 0x4000,
  HUGETLB: 0x40000,
  FIXED_NOREPLACE: 0x100000,
} as const;

export const MREMAP = { MAYMOVE: 1, FIXED: 2, DONTUNMAP: 4 } as const;

export const MADV = {
  NORMAL: 0,
  RANDOM: 1,
  SEQUENTIAL: 2,
  WILLNEED: 3,
  DONTNEED: 4,
  FREE: 8,
  REMOVE: 9,
  DONTFORK: 10,
  DOFORK: 11,
  HUGEPAGE: 14,
  NOHUGEPAGE: 15,
  COLD: 20,
  PAGEOUT: 21,
  POPULATE_READ: 22,
  POPULATE_WRITE: 23,
  DONTNEED_LOCKED: 24,
  COLLAPSE: 25,
  GUARD_INSTALL: 102,
  GUARD_REMOVE: 103,
} as const;

export const MFD = { CLOEXEC: 1, ALLOW_SEALING: 2, HUGETLB: 4 } as const;

export const O = { RDONLY: 0, WRONLY: 1, RDWR: 2, NONBLOCK: 0x800, APPEND: 0x400, CLOEXEC: 0x80000 } as const;

/** Flags of preadv2(2). */
export const RWF = { NOWAIT: 8 } as const;

export const POLL = { IN: 1, PRI: 2, OUT: 4, ERR: 8, HUP: 16, NVAL: 32, RDHUP: 0x2000 } as const;
/** Of epoll: tells of news only, not of what is still there. */
export const EPOLL_EDGE: number = 2 ** 31;

export const SIGNAL = { SIGBUS: 7, SIGKILL: 9, SIGUSR1: 10, SIGSEGV: 11, SIGTERM: 15, SIGCHLD: 17 } as const;

/** si_code values of SIGSEGV and SIGBUS. */
export const SEGV = { MAPERR: 1, ACCERR: 2 } as const;
export const BUS = { ADRALN: 1, ADRERR: 2, MCEERR_AR: 4 } as const;
