// What the machine needs of <linux/kvm.h> and <asm/kvm.h> (x86): ioctl numbers, four structs, exit reasons.
// test/kvm compares every value with the system's header where a C compiler is at hand.

import { IOC_NONE, IOC_READ, IOC_WRITE, ioc } from "../../abi/ioc.ts";
import { readUnsigned, writeWord } from "../../abi/structs.ts";

/** KVM_GET_API_VERSION has answered this number since 2.6.22. */
export const KVM_API_VERSION = 12;

const KVMIO = 0xae;

/** Bytes of each struct that an ioctl takes. */
export const KVM_SIZE = {
  userspace_memory_region: 32,
  regs: 144,
  sregs: 312,
  segment: 24,
} as const;

export const KVM = {
  GET_API_VERSION: ioc(IOC_NONE, KVMIO, 0x00, 0),
  CREATE_VM: ioc(IOC_NONE, KVMIO, 0x01, 0),
  CHECK_EXTENSION: ioc(IOC_NONE, KVMIO, 0x03, 0),
  GET_VCPU_MMAP_SIZE: ioc(IOC_NONE, KVMIO, 0x04, 0),
  CREATE_VCPU: ioc(IOC_NONE, KVMIO, 0x41, 0),
  SET_USER_MEMORY_REGION: ioc(IOC_WRITE, KVMIO, 0x46, KVM_SIZE.userspace_memory_region),
  SET_TSS_ADDR: ioc(IOC_NONE, KVMIO, 0x47, 0),
  RUN: ioc(IOC_NONE, KVMIO, 0x80, 0),
  GET_REGS: ioc(IOC_READ, KVMIO, 0x81, KVM_SIZE.regs),
  SET_REGS: ioc(IOC_WRITE, KVMIO, 0x82, KVM_SIZE.regs),
  GET_SREGS: ioc(IOC_READ, KVMIO, 0x83, KVM_SIZE.sregs),
  SET_SREGS: ioc(IOC_WRITE, KVMIO, 0x84, KVM_SIZE.sregs),
  GET_TSC_KHZ: ioc(IOC_NONE, KVMIO, 0xa3, 0),
} as const;

/** Arguments of CHECK_EXTENSION. */
export const KVM_CAP = { SET_TSS_ADDR: 4, GET_TSC_KHZ: 61 } as const;

/** kvm_run.exit_reason: why KVM_RUN came back. */
export const KVM_EXIT = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
} as const;

/** Byte offset of exit_reason in struct kvm_run; the 8 bytes there also hold three flags. */
export const KVM_RUN_EXIT_REASON = 8;

const EXIT_NAMES = new Map<number, string>(Object.entries(KVM_EXIT).map(([name, value]) => [value, name]));

/** "HLT" for 5; the number itself for one that is not in the table. */
export function exitName(reason: number): string {
  return EXIT_NAMES.get(reason) ?? String(reason);
}

export interface MemoryRegion {
  readonly slot: number;
  /** Where the guest sees it: a physical address. */
  readonly guestAddress: number;
  readonly byteLength: number;
  /** Where it lies in the process that has the machine. */
  readonly address: number;
}

/** struct kvm_userspace_memory_region: slot, flags, guest_phys_addr, memory_size, userspace_addr. */
export function writeMemoryRegion(view: DataView, region: MemoryRegion): void {
  view.setUint32(0, region.slot, true);
  view.setUint32(4, 0, true);
  writeWord(view, 8, region.guestAddress);
  writeWord(view, 16, region.byteLength);
  writeWord(view, 24, region.address);
}

/** struct kvm_regs, in its order. */
const REGISTERS = [
  "rax",
  "rbx",
  "rcx",
  "rdx",
  "rsi",
  "rdi",
  "rsp",
  "rbp",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
  "rip",
  "rflags",
] as const;

export type Register = (typeof REGISTERS)[number];

/** Writes struct kvm_regs: the registers that are given, and zero in all others. */
export function writeRegisters(view: DataView, values: Partial<Readonly<Record<Register, number>>>): void {
  for (const [index, name] of REGISTERS.entries()) writeWord(view, index * 8, values[name] ?? 0);
}

/** Reads one register of struct kvm_regs. */
export function readRegister(view: DataView, name: Register): number {
  return readUnsigned(view, REGISTERS.indexOf(name) * 8);
}

/** Segments of struct kvm_sregs, each 24 bytes; two descriptor tables of 16 bytes follow, then the control registers. */
const SEGMENTS = ["cs", "ds", "es", "fs", "gs", "ss"] as const;
const CR0_OFFSET = 8 * KVM_SIZE.segment + 2 * 16;
/** Protection enable, and extension type, which is always set. */
const CR0_PE = 0x1;
const CR0_ET = 0x10;
/** Type of a segment descriptor: code that can be read, data that can be written; both marked as accessed. */
const CODE = 0xb;
const DATA = 0x3;

/**
 * Changes struct kvm_sregs as GET_SREGS answered it to 32-bit protected mode without paging, in which every
 * segment covers all 4 GiB: a linear address is a physical one.
 */
export function makeFlat(view: DataView): void {
  for (const [index, name] of SEGMENTS.entries()) {
    const at = index * KVM_SIZE.segment;
    writeWord(view, at, 0); // base
    view.setUint32(at + 8, 0xffff_ffff, true); // limit
    view.setUint16(at + 12, (index + 1) * 8, true); // selector: of no table, but not null
    const type = name === "cs" ? CODE : DATA;
    // type, present, dpl, db (32 bits), s (code or data), l (64 bits), g (limit in pages), avl, unusable
    for (const [byte, value] of [type, 1, 0, 1, 1, 0, 1, 0, 0].entries())
      view.setUint8(at + 14 + byte, value);
  }
  // After a reset the bits that turn caches off are set too.
  writeWord(view, CR0_OFFSET, CR0_PE | CR0_ET);
}
