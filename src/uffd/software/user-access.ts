// Accesses to the memory of a process: by its own threads, and by the system on behalf of a call.
//
// What is resident is read and written directly. What is not goes through `fault`: an access of a thread is simply
// tried again when the thread is woken, an access of the system waits inside the call (a generator).

import { PAGE_SIZE } from "../../abi/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import { ACCESS, FAULT, type Faulter, fault } from "./fault.ts";
import { PTE } from "./page-table.ts";
import { type Blocking, SLEEP } from "./scheduler.ts";

/** The wired bytes that begin at an address, if it lies in such memory (scratch). */
export function wiredAt(space: AddressSpace, address: number): { bytes: Uint8Array; at: number } | undefined {
  const vma = space.vmas.at(address);
  return vma?.wired === undefined ? undefined : { bytes: vma.wired, at: address - vma.start };
}

/** Copies from memory as far as it is readable without a fault: the bytes copied. */
export function readResident(
  space: AddressSpace,
  address: number,
  target: Uint8Array,
  at: number,
  byteLength: number,
): number {
  let done = 0;
  while (done < byteLength) {
    const here = address + done;
    const length = Math.min(byteLength - done, PAGE_SIZE - (here & (PAGE_SIZE - 1)));
    const offset = space.translate(here, PTE.READ);
    if (offset >= 0) {
      copyBytes(space.pool.bytes, offset, target, at + done, length);
    } else {
      const wired = wiredAt(space, here);
      if (wired === undefined) return done;
      copyBytes(wired.bytes, wired.at, target, at + done, length);
    }
    done += length;
  }
  return done;
}

/** Copies to memory as far as it is writable without a fault. */
export function writeResident(
  space: AddressSpace,
  address: number,
  source: Uint8Array,
  at: number,
  byteLength: number,
): number {
  let done = 0;
  while (done < byteLength) {
    const here = address + done;
    const length = Math.min(byteLength - done, PAGE_SIZE - (here & (PAGE_SIZE - 1)));
    const offset = space.translate(here, PTE.WRITE);
    if (offset >= 0) {
      copyBytes(source, at + done, space.pool.bytes, offset, length);
    } else {
      const wired = wiredAt(space, here);
      if (wired === undefined) return done;
      copyBytes(source, at + done, wired.bytes, wired.at, length);
    }
    done += length;
  }
  return done;
}

/** Whether a range can be read without a fault. */
export function isReadable(space: AddressSpace, address: number, byteLength: number): boolean {
  for (let here = address; here < address + byteLength; here += PAGE_SIZE - (here & (PAGE_SIZE - 1))) {
    if (space.translate(here, PTE.READ) < 0 && wiredAt(space, here) === undefined) return false;
  }
  return true;
}

export function copyBytes(from: Uint8Array, at: number, to: Uint8Array, toAt: number, length: number): void {
  if (from === to) to.copyWithin(toAt, at, at + length);
  else to.set(from.subarray(at, at + length), toAt);
}

/** A fault of the system's own access: FAULT.DONE when the access can be tried again, else why not. */
export function* faultIn(
  space: AddressSpace,
  faulter: Faulter,
  address: number,
  access: number,
): Blocking<number> {
  const result = fault(space, faulter, address, access, true);
  if (result !== FAULT.WAIT) return result;
  const { waiter } = faulter;
  try {
    while (waiter.list !== undefined) yield SLEEP.KERNEL_FAULT;
  } finally {
    waiter.list?.remove(waiter);
  }
  return FAULT.DONE;
}

/** Reads from the memory of a process: the bytes read, fewer than asked where it cannot be read. */
export function* copyIn(
  space: AddressSpace,
  faulter: Faulter,
  address: number,
  target: Uint8Array,
): Blocking<number> {
  let done = 0;
  for (;;) {
    done += readResident(space, address + done, target, done, target.length - done);
    if (done === target.length) return done;
    if ((yield* faultIn(space, faulter, address + done, ACCESS.READ)) !== FAULT.DONE) return done;
  }
}

/** Writes to the memory of a process: the bytes written. */
export function* copyOut(
  space: AddressSpace,
  faulter: Faulter,
  address: number,
  source: Uint8Array,
): Blocking<number> {
  let done = 0;
  for (;;) {
    done += writeResident(space, address + done, source, done, source.length - done);
    if (done === source.length) return done;
    if ((yield* faultIn(space, faulter, address + done, ACCESS.WRITE)) !== FAULT.DONE) return done;
  }
}
