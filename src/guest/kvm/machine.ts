// A small machine: one virtual CPU, some RAM, and a program that touches it. Driven by the `Process` that has it.
//
//   guest-physical            in the process
//   0          ┌─────────┐
//              │   RAM   │    private anonymous memory, empty: this is what userfaultfd pages
//   ramBytes   └─────────┘
//   3 GiB      ┌─────────┐
//              │ control │    shared with us, always there: code, orders, answers (control.ts)
//              └─────────┘
//   0xfffbd000  three pages that Intel's processors need for real mode
//
// The CPU starts in 32-bit protected mode without paging, so the program sees RAM at its physical addresses, and a
// page that is missing is a fault of KVM on behalf of the guest: it blocks KVM_RUN, that is, one thread.
// Documentation/virt/kvm/api.rst.

import { ERRNO, errnoName } from "../../abi/errno.ts";
import { MAP, PAGE_SIZE } from "../../abi/memory.ts";
import type { Process, Thread } from "../../abi/system.ts";
import { assert, hex, MinorfaultError } from "../../base/errors.ts";
import { check } from "../../linux/failure.ts";
import { mmap, munmap } from "../../linux/mappings.ts";
import * as abi from "./abi.ts";
import { CLOCK_SHIFT, ControlMemory, HEADER_OFFSET, LIST_OFFSET, type Walked } from "./control.ts";
import { createVm } from "./open.ts";
import { type Access, assembleWalker, type Walker } from "./walker.ts";

const { KVM, KVM_CAP, KVM_EXIT, KVM_SIZE } = abi;

/** Physical address of the control memory; RAM ends below it. */
export const CONTROL_ADDRESS = 0xc000_0000;
/** LIMIT: RAM ends below the control memory. */
export const RAM_BYTES_MAX: number = CONTROL_ADDRESS - PAGE_SIZE;
const TSS_ADDRESS = 0xfffb_d000;
/** The only flag set: bit 1, which always is. */
const RFLAGS = 0x2;
/** KVM_RUN on a page whose memory is broken (and, from Linux 6.6 on, poisoned by UFFDIO_POISON). */
const EHWPOISON = 133;

/** RAM that its process has mapped already, and goes on to own. */
export interface RamPiece {
  /** Where the guest sees it: a physical address. */
  readonly guestAddress: number;
  readonly address: number;
  readonly byteLength: number;
}

export interface MachineOptions {
  /** Bytes of RAM, which the machine maps: whole pages, less than 3 GiB. Or pieces of it, with gaps as they may be. */
  readonly ramBytes: number | readonly RamPiece[];
  /** The thread of the process that is to be the CPU. Default: a new one. */
  readonly thread?: Thread;
}

export class KvmMachine {
  readonly process: Process;
  /** The thread that is the CPU. */
  readonly thread: Thread;
  /** Where RAM (its first piece) lies in the process: the range to register with userfaultfd. */
  readonly ramAddress: number;
  /** Of all pieces. */
  readonly ramBytes: number;
  readonly #ram: readonly RamPiece[];
  readonly #ownsRam: boolean;
  readonly #walker: Walker;
  readonly #control: ControlMemory;
  readonly #vm: number;
  readonly #vcpu: number;
  /** struct kvm_run: its address in the process. */
  readonly #run: number;
  readonly #runBytes: number;
  readonly #closeControl: () => void;
  #access: Access = "load";
  /** `asking`: KVM_RUN came back, and its reason is being looked up. `failed`: for good, since KVM may be half-way. */
  #state: "idle" | "running" | "asking" | "failed" | "closed" = "idle";

  /** Builds the machine in a process; its RAM is empty. Throws ERR_UNSUPPORTED_HOST where there is no KVM. */
  constructor(process: Process, options: MachineOptions) {
    const given = options.ramBytes;
    checkRam(given);
    this.process = process;
    const { fd, runBytes } = createVm(process);
    this.#vm = fd;
    // Intel's processors need these pages before the first CPU is made; elsewhere the address is only noted.
    if (process.ioctl(this.#vm, KVM.CHECK_EXTENSION, KVM_CAP.SET_TSS_ADDR) > 0) {
      check(process.ioctl(this.#vm, KVM.SET_TSS_ADDR, TSS_ADDRESS), "KVM_SET_TSS_ADDR");
    }
    this.#ownsRam = typeof given === "number";
    this.#ram = typeof given === "number" ? [mapRam(process, given)] : given;
    this.ramAddress = this.#ram[0]?.address ?? 0;
    this.ramBytes = this.#ram.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const pagesMax = this.ramBytes / PAGE_SIZE;
    const controlBytes = ControlMemory.byteLength(pagesMax);
    const shared = process.share(controlBytes);
    this.#closeControl = () => shared.close();
    this.#control = new ControlMemory(shared, pagesMax);
    this.#walker = assembleWalker(CONTROL_ADDRESS + HEADER_OFFSET, ControlMemory.listBytes(pagesMax));
    this.#control.placeCode(this.#walker.code);
    for (const [slot, piece] of this.#ram.entries()) this.#plug({ slot, ...piece });
    this.#plug({
      slot: this.#ram.length,
      guestAddress: CONTROL_ADDRESS,
      byteLength: controlBytes,
      address: shared.address,
    });
    this.#vcpu = check(process.ioctl(this.#vm, KVM.CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    this.#runBytes = runBytes;
    this.#run = mmap(process, runBytes, { flags: MAP.SHARED, fd: this.#vcpu });
    this.#makeFlat();
    this.thread = options.thread ?? process.spawnThread();
  }

  /** Units of the times in `Walked` that make a microsecond; undefined where KVM does not know its clock. */
  get unitsPerUs(): number | undefined {
    const khz = this.process.ioctl(this.#vcpu, KVM.GET_TSC_KHZ, 0);
    return khz > 0 ? khz / 1000 / 2 ** CLOCK_SHIFT : undefined;
  }

  /** Pages of the present walk that have been touched. */
  get pagesDone(): number {
    return this.#control.done;
  }

  /** Sends the CPU to touch these pages (of physical addresses), in this order; `poll` tells when it is done. */
  start(pages: Uint32Array, access: Access = "load"): void {
    if (this.#state !== "idle") {
      const ended = this.#state === "failed" || this.#state === "closed";
      throw new MinorfaultError(ended ? "ERR_CLOSED" : "ERR_BUSY", `The machine is ${this.#state}`);
    }
    this.#checkPages(pages);
    this.#control.prepare(pages);
    this.#access = access;
    const { scratch } = this.process;
    abi.writeRegisters(scratch.view, {
      rip: CONTROL_ADDRESS + this.#walker.entry[access],
      rsi: CONTROL_ADDRESS + LIST_OFFSET,
      rcx: pages.length,
      rflags: RFLAGS,
    });
    check(this.process.ioctl(this.#vcpu, KVM.SET_REGS, scratch.address), "KVM_SET_REGS");
    this.#resume();
  }

  /**
   * What the walk came to, once it has ended; undefined before.
   *
   * @throws ERR_MEMORY_FAULT when an access failed (a poisoned page), ERR_SYSCALL when KVM could not go on.
   */
  poll(): Walked | undefined {
    assert(
      this.#state === "running" || this.#state === "asking",
      `A machine that is ${this.#state} is polled`,
    );
    const { ending } = this.thread;
    if (ending === undefined) return undefined;
    if (ending.kind !== "value") {
      throw this.#fail("ERR_CLOSED", "The process that has the machine ended during a walk");
    }
    if (this.#state === "running") {
      this.#afterRun(ending.value);
      return this.poll();
    }
    const reason = ending.value % 2 ** 32;
    if (reason !== KVM_EXIT.HLT) throw this.#stopped(reason);
    this.#state = "idle";
    return this.#control.result(this.#access);
  }

  /** Takes the machine apart; the process stays. A machine that still walks ends with its process instead. */
  close(): void {
    if (this.#state === "closed") return;
    assert(this.#state === "idle" || this.#state === "failed", "The machine still walks");
    this.#state = "closed";
    munmap(this.process, this.#run, this.#runBytes);
    this.process.call("close", this.#vcpu);
    this.process.call("close", this.#vm);
    if (this.#ownsRam) munmap(this.process, this.ramAddress, this.ramBytes);
    this.#closeControl();
  }

  #resume(): void {
    this.#state = "running";
    this.thread.start({ kind: "call", name: "ioctl", args: [this.#vcpu, KVM.RUN, 0] });
  }

  /** KVM_RUN came back: a signal only interrupted it, an error ends the walk, else the reason has to be looked up. */
  #afterRun(result: number): void {
    if (result === -ERRNO.EINTR) {
      this.#resume();
      return;
    }
    if (result < 0) {
      const isMemory = result === -ERRNO.EFAULT || result === -EHWPOISON;
      const message = `KVM_RUN failed with ${errnoName(result)} after ${this.pagesDone} pages`;
      throw this.#fail(isMemory ? "ERR_MEMORY_FAULT" : "ERR_SYSCALL", message, -result);
    }
    this.#state = "asking";
    this.thread.start({ kind: "load", address: this.#run + abi.KVM_RUN_EXIT_REASON, size: 8 });
  }

  /** The CPU stopped for another reason than HLT. MMIO: it touched what is not memory, or memory that could not be had. */
  #stopped(reason: number): MinorfaultError {
    const { scratch } = this.process;
    const answer = this.process.ioctl(this.#vcpu, KVM.GET_REGS, scratch.address);
    const at = answer < 0 ? "an unknown address" : hex(abi.readRegister(scratch.view, "rip"));
    return this.#fail(
      reason === KVM_EXIT.MMIO ? "ERR_MEMORY_FAULT" : "ERR_SYSCALL",
      `The virtual CPU stopped at ${at} after ${this.pagesDone} pages: ${abi.exitName(reason)}`,
    );
  }

  #fail(
    code: "ERR_CLOSED" | "ERR_MEMORY_FAULT" | "ERR_SYSCALL",
    message: string,
    errno?: number,
  ): MinorfaultError {
    this.#state = "failed";
    const details = {
      operation: "KVM_RUN",
      ...(errno === undefined ? {} : { errno }),
      ...(code === "ERR_CLOSED"
        ? { hint: "Look for what killed it: somebody, or the kernel for want of memory" }
        : {}),
    };
    return new MinorfaultError(code, message, details);
  }

  #plug(region: abi.MemoryRegion): void {
    const { scratch } = this.process;
    abi.writeMemoryRegion(scratch.view, region);
    const answer = this.process.ioctl(this.#vm, KVM.SET_USER_MEMORY_REGION, scratch.address);
    const { address, byteLength } = region;
    check(answer, "KVM_SET_USER_MEMORY_REGION", { address, byteLength });
  }

  #makeFlat(): void {
    const { scratch } = this.process;
    scratch.bytes.fill(0, 0, KVM_SIZE.sregs);
    check(this.process.ioctl(this.#vcpu, KVM.GET_SREGS, scratch.address), "KVM_GET_SREGS");
    abi.makeFlat(scratch.view);
    check(this.process.ioctl(this.#vcpu, KVM.SET_SREGS, scratch.address), "KVM_SET_SREGS");
  }

  #checkPages(pages: Uint32Array): void {
    const pieces = this.#ram.map(({ guestAddress, byteLength }) => ({
      from: guestAddress / PAGE_SIZE,
      until: (guestAddress + byteLength) / PAGE_SIZE,
    }));
    const outside = pages.find((page) => !pieces.some(({ from, until }) => page >= from && page < until));
    if (outside === undefined) return;
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `Page ${outside} is outside RAM, which has ${this.ramBytes / PAGE_SIZE} pages`,
    );
  }
}

function mapRam(process: Process, byteLength: number): RamPiece {
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
  return { guestAddress: 0, address: mmap(process, byteLength, { flags }), byteLength };
}

function checkRam(ram: number | readonly RamPiece[]): void {
  if (typeof ram === "number") {
    checkPiece(ram, ram);
    return;
  }
  if (ram.length === 0)
    throw new MinorfaultError("ERR_OUT_OF_RANGE", "A machine has at least one piece of RAM");
  for (const { guestAddress, byteLength } of ram) checkPiece(byteLength, guestAddress + byteLength);
}

/** `until`: the physical address behind it. */
function checkPiece(byteLength: number, until: number): void {
  if (Number.isSafeInteger(byteLength) && byteLength > 0 && byteLength % PAGE_SIZE === 0) {
    if (until <= RAM_BYTES_MAX) return;
    throw new MinorfaultError("ERR_OUT_OF_RANGE", `RAM has less than 3 GiB, not ${byteLength} bytes`, {
      byteLength,
    });
  }
  throw new MinorfaultError("ERR_UNALIGNED", `RAM has whole pages, not ${byteLength} bytes`, { byteLength });
}
