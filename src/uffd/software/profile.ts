// Which kernel a software system answers like: the differences between releases as named switches.
//
// Everything else in this folder behaves like Linux 6.18. What differs in a release is asked here by name, so that
// one table shows all of it (spec, §3.6 and §6).

import {
  UFFD_API_FEATURES,
  UFFD_API_RANGE_IOCTLS,
  UFFD_API_RANGE_IOCTLS_BASIC,
  UFFDIO,
  UFFDIO_REGISTER_MODE,
} from "../../abi/userfaultfd.ts";

export type ProfileName = "linux-6.18" | "linux-4.3";

export interface Profile {
  readonly name: ProfileName;
  /** Features that the handshake offers. */
  readonly features: number;
  /** Ioctl numbers that exist. */
  readonly ioctls: ReadonlySet<number>;
  /** Modes that REGISTER knows. */
  readonly registerModes: number;
  /** Mode bits that fills know: DONTWAKE, and WP. */
  readonly fillModes: number;
  /** What REGISTER answers for ordinary memory and for huge pages, before the modes take bits away. */
  readonly rangeIoctls: bigint;
  readonly hugeRangeIoctls: bigint;
  /** Only private anonymous memory can be registered. */
  readonly anonymousOnly: boolean;
  /** A second handshake looks at its argument (and clears it) before it is refused. */
  readonly secondHandshakeReads: boolean;
  /** REGISTER and UNREGISTER say ENOMEM, not EINVAL, when nothing is mapped at or above the start. */
  readonly unmappedIsNoMemory: boolean;
  /** UNREGISTER wakes who waits for missing pages there. */
  readonly unregisterWakes: boolean;
  /** A fill of memory that is not registered is ENOENT, and the output field says so; else EINVAL. */
  readonly unregisteredIsNoEntry: boolean;
  /** Fills go to memory registered by any context of the process, not only by the asking one. */
  readonly fillsForeign: boolean;
  /** A context keeps the memory of its process alive after the process has ended. */
  readonly keepsMemory: boolean;
  /** Opening asks for CAP_SYS_PTRACE or the sysctl, and knows USER_MODE_ONLY. */
  readonly opensGuarded: boolean;
  /** A full descriptor table is found out before unknown flags. */
  readonly fullTableFirst: boolean;
  /** The file mode of a userfaultfd descriptor: O_RDONLY or O_RDWR. */
  readonly accessMode: 0 | 2;
  /** Messages carry the exact address even if nobody asked for it. */
  readonly exactAddress: boolean;
  /** /dev/userfaultfd and PAGEMAP_SCAN exist. */
  readonly hasDevice: boolean;
  readonly hasScan: boolean;
}

const LINUX_6_18: Profile = {
  name: "linux-6.18",
  features: Number(UFFD_API_FEATURES),
  ioctls: new Set([
    UFFDIO.API,
    UFFDIO.REGISTER,
    UFFDIO.UNREGISTER,
    UFFDIO.WAKE,
    UFFDIO.COPY,
    UFFDIO.ZEROPAGE,
    UFFDIO.MOVE,
    UFFDIO.WRITEPROTECT,
    UFFDIO.CONTINUE,
    UFFDIO.POISON,
  ]),
  registerModes: UFFDIO_REGISTER_MODE.MISSING | UFFDIO_REGISTER_MODE.WP | UFFDIO_REGISTER_MODE.MINOR,
  fillModes: 3,
  rangeIoctls: UFFD_API_RANGE_IOCTLS,
  hugeRangeIoctls: UFFD_API_RANGE_IOCTLS_BASIC,
  anonymousOnly: false,
  secondHandshakeReads: true,
  unmappedIsNoMemory: false,
  unregisterWakes: true,
  unregisteredIsNoEntry: true,
  fillsForeign: true,
  keepsMemory: false,
  opensGuarded: true,
  fullTableFirst: false,
  accessMode: 0,
  exactAddress: false,
  hasDevice: true,
  hasScan: true,
};

const LINUX_4_3: Profile = {
  name: "linux-4.3",
  features: 0,
  ioctls: new Set([
    UFFDIO.API,
    UFFDIO.REGISTER,
    UFFDIO.UNREGISTER,
    UFFDIO.WAKE,
    UFFDIO.COPY,
    UFFDIO.ZEROPAGE,
  ]),
  registerModes: UFFDIO_REGISTER_MODE.MISSING,
  fillModes: 1,
  rangeIoctls: 0x1cn,
  hugeRangeIoctls: 0x1cn,
  anonymousOnly: true,
  secondHandshakeReads: false,
  unmappedIsNoMemory: true,
  unregisterWakes: false,
  unregisteredIsNoEntry: false,
  fillsForeign: false,
  keepsMemory: true,
  opensGuarded: false,
  fullTableFirst: true,
  accessMode: 2,
  exactAddress: true,
  hasDevice: false,
  hasScan: false,
};

export const PROFILES: Readonly<Record<ProfileName, Profile>> = {
  "linux-6.18": LINUX_6_18,
  "linux-4.3": LINUX_4_3,
};
