// One access of a thread to its memory: a load, a store, an atomic addition, or a jump to code.
//
// An access either happens as a whole or not at all, so it can be tried again from the beginning whenever the
// thread is woken. One that straddles two pages finds the lower one missing first.

import { PAGE_SIZE, PROT, TASK_SIZE } from "../../abi/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import { ACCESS, FAULT, type Faulter, fault } from "./fault.ts";
import { PTE } from "./page-table.ts";
import { wiredAt } from "./user-access.ts";

export interface Access {
  readonly kind: "load" | "store" | "add" | "execute";
  readonly address: number;
  readonly size: 1 | 8;
  readonly value: number;
  /** What was loaded. */
  result: number;
  /** Where it failed. */
  faultAddress: number;
}

/** Tries an access: one of FAULT. */
export function performAccess(space: AddressSpace, faulter: Faulter, access: Access): number {
  const kind = access.kind;
  const how = howOf(access);
  const bit = how === ACCESS.WRITE ? PTE.WRITE : PTE.READ;
  const { address, size } = access;
  const first = reach(space, faulter, access, address, how, bit);
  if (first !== FAULT.DONE) return first;
  const last = address + size - 1;
  if (Math.floor(last / PAGE_SIZE) !== Math.floor(address / PAGE_SIZE)) {
    const second = reach(space, faulter, access, last - (last % PAGE_SIZE), how, bit);
    if (second !== FAULT.DONE) return second;
  }
  if (kind === "load") access.result = size === 1 ? readByte(space, address) : readNumber(space, address);
  else if (kind === "store") writeByte(space, address, access.value & 0xff);
  else if (kind === "add") access.result = add(space, address, access.value);
  return FAULT.DONE;
}

/** The fault that an access stood in, once more: the processor is not asked again before it is resolved. */
export function repeatFault(space: AddressSpace, faulter: Faulter, access: Access): number {
  return fault(space, faulter, access.faultAddress, howOf(access), false);
}

function howOf({ kind }: Access): number {
  return kind === "load" ? ACCESS.READ : kind === "execute" ? ACCESS.EXECUTE : ACCESS.WRITE;
}

/** Faults until one page allows the access. */
function reach(
  space: AddressSpace,
  faulter: Faulter,
  access: Access,
  address: number,
  how: number,
  bit: number,
): number {
  access.faultAddress = address;
  // An address outside user space is a general protection or a page fault of the machine; neither has a VMA.
  if (!(address < TASK_SIZE)) return FAULT.UNMAPPED;
  while (space.translate(address, bit) < 0) {
    if (wiredAt(space, address) !== undefined) break;
    const result = fault(space, faulter, address, how, false);
    if (result !== FAULT.DONE) return result;
  }
  // A page that must not be executed is brought like any other: that it may not shows only once it is there.
  if (how !== ACCESS.EXECUTE) return FAULT.DONE;
  return ((space.vmas.at(address)?.prot ?? 0) & PROT.EXEC) !== 0 ? FAULT.DONE : FAULT.FORBIDDEN;
}

function readByte(space: AddressSpace, address: number): number {
  const offset = space.translate(address, PTE.READ);
  if (offset >= 0) return space.pool.bytes[offset]!;
  const wired = wiredAt(space, address)!;
  return wired.bytes[wired.at]!;
}

function writeByte(space: AddressSpace, address: number, value: number): void {
  const offset = space.translate(address, PTE.WRITE);
  if (offset >= 0) {
    space.pool.bytes[offset] = value;
    return;
  }
  const wired = wiredAt(space, address)!;
  wired.bytes[wired.at] = value;
}

/** The low 53 bits of 8 bytes. */
function readNumber(space: AddressSpace, address: number): number {
  return Number(BigInt.asUintN(53, readBits(space, address)));
}

function readBits(space: AddressSpace, address: number): bigint {
  let bits = 0n;
  for (let byte = 7; byte >= 0; byte--) bits = (bits << 8n) | BigInt(readByte(space, address + byte));
  return bits;
}

function add(space: AddressSpace, address: number, value: number): number {
  const before = readBits(space, address);
  let after = BigInt.asUintN(64, before + BigInt(value));
  for (let byte = 0; byte < 8; byte++) {
    writeByte(space, address + byte, Number(after & 0xffn));
    after >>= 8n;
  }
  return Number(BigInt.asUintN(53, before));
}
