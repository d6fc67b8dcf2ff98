// What a paged memory stands on: a process of a software system with one mapping, registered with a userfaultfd.
//
// The userfaultfd tracks writes by itself (WP_ASYNC): pages are installed write-protected, the first store to
// each removes its mark, and a page without a mark is one that was written.

import { ERRNO } from "../../abi/errno.ts";
import { MAP, PAGE_SIZE, PROT } from "../../abi/memory.ts";
import { type Struct, uffdio } from "../../abi/structs.ts";
import { UFFD_API, UFFD_FEATURE, UFFD_OPEN, UFFDIO, UFFDIO_REGISTER_MODE } from "../../abi/userfaultfd.ts";
import { assert, MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import type { AddressSpace } from "./address-space.ts";
import type { Context } from "./context.ts";
import type { SoftwareProcess } from "./process.ts";
import type { SoftwareSystem } from "./system.ts";
import { UffdFile } from "./uffd-file.ts";

export interface PagedRegion {
  readonly process: SoftwareProcess;
  readonly space: AddressSpace;
  readonly ctx: Context;
  /** Where the memory begins. */
  readonly address: number;
  /** Whole pages. */
  readonly byteLength: number;
}

/** A fresh region in a process of its own. */
export function openRegion(system: SoftwareSystem, byteLength: number): PagedRegion {
  const process = system.spawnProcess();
  const length = roundUp(byteLength, PAGE_SIZE);
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
  const address = process.call("mmap", 0, length, PROT.READ | PROT.WRITE, flags, -1, 0);
  if (address < 0) {
    process.kill();
    throw new MinorfaultError("ERR_LIMIT", `A memory of ${byteLength} bytes does not fit the address space`, {
      errno: -address,
      operation: "mmap",
      byteLength,
    });
  }
  return attach(process, address, length);
}

/** The same memory as it is now, in a forked process: pages are shared until one side writes. */
export function forkRegion({ process, address, byteLength }: PagedRegion): PagedRegion {
  const child = process.fork().child();
  assert(child !== undefined, "A fork waited although nobody had asked for its event");
  child.descriptors.closeAll();
  return attach(child, address, byteLength);
}

function attach(process: SoftwareProcess, address: number, byteLength: number): PagedRegion {
  const fd = process.call("userfaultfd", UFFD_OPEN.NONBLOCK | UFFD_OPEN.CLOEXEC);
  if (fd === -ERRNO.EPERM || process.system.profile.features === 0) {
    process.kill();
    throw new MinorfaultError(
      "ERR_UFFD_DENIED",
      "A paged memory needs a privileged system of today's profile",
    );
  }
  ask(process, fd, UFFDIO.API, uffdio.api, { api: UFFD_API, features: UFFD_FEATURE.WP_ASYNC });
  const mode = UFFDIO_REGISTER_MODE.MISSING | UFFDIO_REGISTER_MODE.WP;
  ask(process, fd, UFFDIO.REGISTER, uffdio.register, { start: address, len: byteLength, mode });
  const file = process.descriptors.get(fd);
  assert(file instanceof UffdFile, "A userfaultfd is not one");
  return { process, space: process.space, ctx: file.ctx, address, byteLength };
}

function ask<F extends string>(
  process: SoftwareProcess,
  fd: number,
  request: number,
  struct: Struct<F>,
  fields: Partial<Record<F, number | bigint>>,
): void {
  struct.write(process.scratch.view, 0, fields);
  const result = process.ioctl(fd, request, process.scratch.address);
  assert(result === 0, `${struct.name} was refused with ${result}`);
}
