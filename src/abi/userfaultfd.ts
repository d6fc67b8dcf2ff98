// <linux/userfaultfd.h> as of Linux 6.18, and what has been announced for 7.2, as values.
// Names are the header's without the prefix that says which set they belong to. Masks that the kernel keeps
// in 64 bits and that are compared whole (features, ioctl sets) are bigint; modes, flags and events fit 32
// bits and are numbers. Which release brought what is in catalogue.ts; the structs are in structs.ts.

import { IOC_NONE, IOC_READ, IOC_WRITE, ioc } from "./ioc.ts";
import { pmScanArg, uffdio } from "./structs.ts";

/** The handshake's version number. */
export const UFFD_API = 0xaa;

/** The type byte in every ioctl number; the header calls it UFFDIO, and USERFAULTFD_IOC on the device. */
export const UFFDIO_TYPE = 0xaa;
const RW = IOC_READ | IOC_WRITE;

/** The command's number inside its ioctl; also its bit in the `ioctls` sets that API and REGISTER answer. */
export const UFFDIO_NR = {
  REGISTER: 0x00,
  UNREGISTER: 0x01,
  WAKE: 0x02,
  COPY: 0x03,
  ZEROPAGE: 0x04,
  MOVE: 0x05,
  WRITEPROTECT: 0x06,
  CONTINUE: 0x07,
  POISON: 0x08,
  RWPROTECT: 0x09,
  SET_MODE: 0x0a,
  API: 0x3f,
} as const;

/** The ioctls of a userfaultfd. UNREGISTER and WAKE say "read" although the kernel reads: a mistake kept since 4.3. */
export const UFFDIO = {
  API: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.API, uffdio.api.size),
  REGISTER: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.REGISTER, uffdio.register.size),
  UNREGISTER: ioc(IOC_READ, UFFDIO_TYPE, UFFDIO_NR.UNREGISTER, uffdio.range.size),
  WAKE: ioc(IOC_READ, UFFDIO_TYPE, UFFDIO_NR.WAKE, uffdio.range.size),
  COPY: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.COPY, uffdio.copy.size),
  ZEROPAGE: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.ZEROPAGE, uffdio.zeropage.size),
  MOVE: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.MOVE, uffdio.move.size),
  WRITEPROTECT: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.WRITEPROTECT, uffdio.writeprotect.size),
  CONTINUE: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.CONTINUE, uffdio.continue.size),
  POISON: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.POISON, uffdio.poison.size),
  RWPROTECT: ioc(RW, UFFDIO_TYPE, UFFDIO_NR.RWPROTECT, uffdio.writeprotect.size),
  SET_MODE: ioc(IOC_WRITE, UFFDIO_TYPE, UFFDIO_NR.SET_MODE, uffdio.setMode.size),
} as const;

/** On /dev/userfaultfd: makes a new userfaultfd; the argument is the open flags by value. */
export const USERFAULTFD_IOC_NEW: number = ioc(IOC_NONE, UFFDIO_TYPE, 0x00, 0);

/** Flags of userfaultfd(2) and of USERFAULTFD_IOC_NEW; O_CLOEXEC and O_NONBLOCK are the usual ones. */
export const UFFD_OPEN = { USER_MODE_ONLY: 1, NONBLOCK: 0x800, CLOEXEC: 0x80000 } as const;

export const UFFD_EVENT = { PAGEFAULT: 0x12, FORK: 0x13, REMAP: 0x14, REMOVE: 0x15, UNMAP: 0x16 } as const;

export const UFFD_PAGEFAULT_FLAG = { WRITE: 1, WP: 2, MINOR: 4, RWP: 8 } as const;

export const UFFDIO_REGISTER_MODE = { MISSING: 1, WP: 2, MINOR: 4, RWP: 8 } as const;
/** What Linux 6.18 takes as a mode of REGISTER; others are EINVAL. */
export const UFFD_API_REGISTER_MODES: number =
  UFFDIO_REGISTER_MODE.MISSING | UFFDIO_REGISTER_MODE.WP | UFFDIO_REGISTER_MODE.MINOR;
export const UFFDIO_COPY_MODE = { DONTWAKE: 1, WP: 2 } as const;
export const UFFDIO_ZEROPAGE_MODE = { DONTWAKE: 1 } as const;
export const UFFDIO_WRITEPROTECT_MODE = { WP: 1, DONTWAKE: 2 } as const;
export const UFFDIO_CONTINUE_MODE = { DONTWAKE: 1, WP: 2 } as const;
export const UFFDIO_POISON_MODE = { DONTWAKE: 1 } as const;
export const UFFDIO_MOVE_MODE = { DONTWAKE: 1, ALLOW_SRC_HOLES: 2 } as const;
export const UFFDIO_RWPROTECT_MODE = { RWP: 1, DONTWAKE: 2 } as const;

export const UFFD_FEATURE = {
  PAGEFAULT_FLAG_WP: 1n << 0n,
  EVENT_FORK: 1n << 1n,
  EVENT_REMAP: 1n << 2n,
  EVENT_REMOVE: 1n << 3n,
  MISSING_HUGETLBFS: 1n << 4n,
  MISSING_SHMEM: 1n << 5n,
  EVENT_UNMAP: 1n << 6n,
  SIGBUS: 1n << 7n,
  THREAD_ID: 1n << 8n,
  MINOR_HUGETLBFS: 1n << 9n,
  MINOR_SHMEM: 1n << 10n,
  EXACT_ADDRESS: 1n << 11n,
  WP_HUGETLBFS_SHMEM: 1n << 12n,
  WP_UNPOPULATED: 1n << 13n,
  POISON: 1n << 14n,
  WP_ASYNC: 1n << 15n,
  MOVE: 1n << 16n,
  RWP: 1n << 17n,
  RWP_ASYNC: 1n << 18n,
} as const;

export type FeatureName = keyof typeof UFFD_FEATURE;

/** All features of Linux 6.18: bits 0 to 16. */
export const UFFD_API_FEATURES: bigint = 0x1ffffn;

const bit = (nr: number): bigint => 1n << BigInt(nr);

/** The set that API answers: API, REGISTER, UNREGISTER. */
export const UFFD_API_IOCTLS: bigint =
  bit(UFFDIO_NR.API) | bit(UFFDIO_NR.REGISTER) | bit(UFFDIO_NR.UNREGISTER);

/** The set that REGISTER answers for hugetlb memory: ZEROPAGE and MOVE do not work there. */
export const UFFD_API_RANGE_IOCTLS_BASIC: bigint =
  bit(UFFDIO_NR.WAKE) |
  bit(UFFDIO_NR.COPY) |
  bit(UFFDIO_NR.WRITEPROTECT) |
  bit(UFFDIO_NR.CONTINUE) |
  bit(UFFDIO_NR.POISON);

/** The set that REGISTER answers for anonymous and shmem memory; WRITEPROTECT and CONTINUE only with their modes. */
export const UFFD_API_RANGE_IOCTLS: bigint =
  UFFD_API_RANGE_IOCTLS_BASIC | bit(UFFDIO_NR.ZEROPAGE) | bit(UFFDIO_NR.MOVE);

/** PAGEMAP_SCAN, on /proc/PID/pagemap (include/uapi/linux/fs.h). */
export const PAGEMAP_SCAN: number = ioc(RW, "f".charCodeAt(0), 16, pmScanArg.size);
export const PM_SCAN = { WP_MATCHING: 1n, CHECK_WPASYNC: 2n } as const;
export const PAGE_IS = {
  WPALLOWED: 1n,
  WRITTEN: 2n,
  FILE: 4n,
  PRESENT: 8n,
  SWAPPED: 16n,
  PFNZERO: 32n,
  HUGE: 64n,
  SOFT_DIRTY: 128n,
  GUARD: 256n,
} as const;
