// Every name of <linux/userfaultfd.h> with its value and the release that brought it.
//
// The header of 2015 (Linux 4.3) is what QEMU vendored for post-copy; its names are marked `seed`. Releases are
// from the man pages where they state them, else from the kernel's history. "7.2" has been announced and is in
// no released kernel at the time of writing.

import {
  UFFD_API,
  UFFD_API_FEATURES,
  UFFD_API_IOCTLS,
  UFFD_API_RANGE_IOCTLS,
  UFFD_API_RANGE_IOCTLS_BASIC,
  UFFD_API_REGISTER_MODES,
  UFFD_EVENT,
  UFFD_FEATURE,
  UFFD_OPEN,
  UFFD_PAGEFAULT_FLAG,
  UFFDIO,
  UFFDIO_CONTINUE_MODE,
  UFFDIO_COPY_MODE,
  UFFDIO_MOVE_MODE,
  UFFDIO_NR,
  UFFDIO_POISON_MODE,
  UFFDIO_REGISTER_MODE,
  UFFDIO_RWPROTECT_MODE,
  UFFDIO_TYPE,
  UFFDIO_WRITEPROTECT_MODE,
  UFFDIO_ZEROPAGE_MODE,
  USERFAULTFD_IOC_NEW,
} from "./userfaultfd.ts";

export interface Constant {
  /** As the header spells it. */
  readonly name: string;
  readonly value: bigint;
  /** Linux release. */
  readonly since: string;
  /** In the header of 2015. */
  readonly seed: boolean;
}

type Releases<Key extends string> = Readonly<Record<Key, string>>;

/** The constants of one set, each with its release; 4.3 is the seed. */
function set<const Key extends string>(
  prefix: string,
  values: Readonly<Record<Key, number | bigint>>,
  since: Releases<Key>,
): Constant[] {
  return (Object.keys(values) as Key[]).map((key) => ({
    name: `${prefix}${key}`,
    value: BigInt(values[key]),
    since: since[key],
    seed: since[key] === "4.3",
  }));
}

function one(name: string, value: number | bigint, since: string): Constant {
  return { name, value: BigInt(value), since, seed: since === "4.3" };
}

const COMMANDS: Releases<keyof typeof UFFDIO_NR> = {
  REGISTER: "4.3",
  UNREGISTER: "4.3",
  WAKE: "4.3",
  COPY: "4.3",
  ZEROPAGE: "4.3",
  MOVE: "6.8",
  WRITEPROTECT: "5.7",
  CONTINUE: "5.13",
  POISON: "6.6",
  RWPROTECT: "7.2",
  SET_MODE: "7.2",
  API: "4.3",
};

export const CATALOGUE: readonly Constant[] = [
  one("UFFD_API", UFFD_API, "4.3"),
  one("UFFD_API_REGISTER_MODES", UFFD_API_REGISTER_MODES, "5.13"),
  one("UFFD_API_FEATURES", UFFD_API_FEATURES, "4.3"),
  one("UFFD_API_IOCTLS", UFFD_API_IOCTLS, "4.3"),
  one("UFFD_API_RANGE_IOCTLS", UFFD_API_RANGE_IOCTLS, "4.3"),
  one("UFFD_API_RANGE_IOCTLS_BASIC", UFFD_API_RANGE_IOCTLS_BASIC, "4.11"),
  ...set("_UFFDIO_", UFFDIO_NR, COMMANDS),
  ...set("UFFDIO_", UFFDIO, COMMANDS),
  one("UFFDIO", UFFDIO_TYPE, "4.3"),
  one("USERFAULTFD_IOC", UFFDIO_TYPE, "6.1"),
  one("USERFAULTFD_IOC_NEW", USERFAULTFD_IOC_NEW, "6.1"),
  one("UFFD_USER_MODE_ONLY", UFFD_OPEN.USER_MODE_ONLY, "5.11"),
  ...set("UFFD_EVENT_", UFFD_EVENT, {
    PAGEFAULT: "4.3",
    FORK: "4.11",
    REMAP: "4.11",
    REMOVE: "4.11",
    UNMAP: "4.11",
  }),
  ...set("UFFD_PAGEFAULT_FLAG_", UFFD_PAGEFAULT_FLAG, { WRITE: "4.3", WP: "4.3", MINOR: "5.13", RWP: "7.2" }),
  ...set("UFFD_FEATURE_", UFFD_FEATURE, {
    PAGEFAULT_FLAG_WP: "5.7",
    EVENT_FORK: "4.11",
    EVENT_REMAP: "4.11",
    EVENT_REMOVE: "4.11",
    MISSING_HUGETLBFS: "4.11",
    MISSING_SHMEM: "4.11",
    EVENT_UNMAP: "4.11",
    SIGBUS: "4.14",
    THREAD_ID: "4.14",
    MINOR_HUGETLBFS: "5.13",
    MINOR_SHMEM: "5.14",
    EXACT_ADDRESS: "5.18",
    WP_HUGETLBFS_SHMEM: "5.19",
    WP_UNPOPULATED: "6.4",
    POISON: "6.6",
    WP_ASYNC: "6.7",
    MOVE: "6.8",
    RWP: "7.2",
    RWP_ASYNC: "7.2",
  }),
  ...set("UFFDIO_REGISTER_MODE_", UFFDIO_REGISTER_MODE, {
    MISSING: "4.3",
    WP: "4.3",
    MINOR: "5.13",
    RWP: "7.2",
  }),
  ...set("UFFDIO_COPY_MODE_", UFFDIO_COPY_MODE, { DONTWAKE: "4.3", WP: "5.7" }),
  ...set("UFFDIO_ZEROPAGE_MODE_", UFFDIO_ZEROPAGE_MODE, { DONTWAKE: "4.3" }),
  ...set("UFFDIO_WRITEPROTECT_MODE_", UFFDIO_WRITEPROTECT_MODE, { WP: "5.7", DONTWAKE: "5.7" }),
  ...set("UFFDIO_CONTINUE_MODE_", UFFDIO_CONTINUE_MODE, { DONTWAKE: "5.13", WP: "6.4" }),
  ...set("UFFDIO_POISON_MODE_", UFFDIO_POISON_MODE, { DONTWAKE: "6.6" }),
  ...set("UFFDIO_MOVE_MODE_", UFFDIO_MOVE_MODE, { DONTWAKE: "6.8", ALLOW_SRC_HOLES: "6.8" }),
  ...set("UFFDIO_RWPROTECT_MODE_", UFFDIO_RWPROTECT_MODE, { RWP: "7.2", DONTWAKE: "7.2" }),
];
