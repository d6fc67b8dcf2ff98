// mmap(2) and its family, in any process. What fails throws ERR_SYSCALL.

import { MAP, MFD, PROT } from "../abi/memory.ts";
import type { Caller } from "../abi/system.ts";
import { putString } from "./arguments.ts";
import { check } from "./failure.ts";

/** MAP_HUGE_2MB and MFD_HUGE_2MB: log2 of the page size in bits 26 to 31. */
export const HUGE_2MB = 21 * 2 ** 26;

export interface MapOptions {
  /** PROT bits; default read and write. */
  readonly protection?: number;
  /** MAP bits; default MAP_PRIVATE | MAP_ANONYMOUS. */
  readonly flags?: number;
  readonly fd?: number;
  /** Bytes into the file. */
  readonly offset?: number;
  /** Where; a wish, unless the flags say otherwise. */
  readonly at?: number;
}

/** mmap(2): the address of the new mapping. */
export function mmap(caller: Caller, byteLength: number, options: MapOptions = {}): number {
  const { protection = PROT.READ | PROT.WRITE, flags = MAP.PRIVATE | MAP.ANONYMOUS } = options;
  const { fd = -1, offset = 0, at = 0 } = options;
  const result = caller.call("mmap", at, byteLength, protection, flags, fd, offset);
  return check(result, "mmap", at === 0 ? { byteLength } : { address: at, byteLength });
}

export function munmap(caller: Caller, address: number, byteLength: number): void {
  check(caller.call("munmap", address, byteLength), "munmap", { address, byteLength });
}

/** mremap(2): the new address. `flags` are MREMAP bits. */
export function mremap(
  caller: Caller,
  address: number,
  byteLength: number,
  newByteLength: number,
  flags: number,
  to = 0,
): number {
  const result = caller.call("mremap", address, byteLength, newByteLength, flags, to);
  return check(result, "mremap", { address, byteLength });
}

export function mprotect(caller: Caller, address: number, byteLength: number, protection: number): void {
  check(caller.call("mprotect", address, byteLength, protection), "mprotect", { address, byteLength });
}

/** madvise(2); `advice` is one of MADV. */
export function madvise(caller: Caller, address: number, byteLength: number, advice: number): void {
  check(caller.call("madvise", address, byteLength, advice), "madvise", { address, byteLength });
}

/** memfd_create(2) and its size: a file that lives in memory. Closed on exec unless told otherwise. */
export function memfd(
  caller: Caller,
  name: string,
  byteLength: number,
  options: { readonly huge?: boolean; readonly inheritable?: boolean } = {},
): number {
  const huge = options.huge ? MFD.HUGETLB | HUGE_2MB : 0;
  const flags = (options.inheritable ? 0 : MFD.CLOEXEC) | huge;
  const fd = check(caller.call("memfd_create", putString(caller, 0, name), flags), "memfd_create");
  const result = caller.call("ftruncate", fd, byteLength);
  if (result < 0) caller.call("close", fd);
  check(result, "ftruncate", { byteLength });
  return fd;
}
