// Guests in processes of the real kernel, paged through its userfaultfd by the pager of src/pager:
//
//   this process                                      the guest's process (a few hundred bytes of machine code)
//   ┌──────────────────────────────┐                  ┌───────────────────────────────────┐
//   │ image in a memfd             │   userfaultfd    │ memory, registered                │
//   │ pager: a worker thread ──────┼── descriptor ───▶│ one thread that touches it:       │
//   │ main thread: time, progress  │                  │ a virtual CPU, or just a thread   │
//   └──────────────────────────────┘                  └───────────────────────────────────┘
//
// The guest opens and registers its userfaultfd itself; we take a duplicate of the descriptor out of its process.

import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { MAP, PAGE_SIZE } from "../../abi/memory.ts";
import { assert, MinorfaultError } from "../../base/errors.ts";
import { KvmMachine, RAM_BYTES_MAX } from "../../guest/kvm/index.ts";
import { type GuestProcess, KernelSystem } from "../../guest/process/index.ts";
import { affinity, close, local, memfd, mmap, munmap, setAffinity } from "../../linux/index.ts";
import { type Pager, startPager } from "../../pager/index.ts";
import { type OpenWay, openUserfaultfd } from "../../uffd/index.ts";
import type { DemoHost, GuestKind, OnProgress, PagedGuest, PagingCounters, Walk } from "./guest.ts";
import type { Image } from "./image.ts";
import { MachineToucher, ThreadToucher, type Toucher } from "./toucher.ts";

type KernelKind = Exclude<GuestKind, "software">;

/** KVM touches guest memory from inside the kernel, which USER_MODE_ONLY does not let wait. */
const WAYS: Readonly<Record<KernelKind, readonly OpenWay[]>> = {
  kvm: ["device", "syscall"],
  process: ["device", "syscall", "user-mode-only"],
};

const TEXT: Readonly<Record<KernelKind, string>> = {
  kvm: "a virtual CPU of a small KVM machine (32-bit protected mode), in a process of its own",
  process: "a process of its own: a few hundred bytes of machine code",
};

const EMPTY_MEMORY = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
/** Pieces of the warm-up, between which signals are heard. */
const WARM_UP_BYTES = 8 * 2 ** 20;

export class KernelHost implements DemoHost {
  readonly kind: KernelKind;
  readonly guestText: string;
  readonly pagerText = "TypeScript in a worker thread of this process, over the kernel's userfaultfd";
  readonly #system: KernelSystem;
  readonly #byteLength: number;
  readonly #image: number;

  /**
   * Tries everything that a guest will need on a small one first.
   *
   * @throws what stands in the way: ERR_UNSUPPORTED_HOST, ERR_UFFD_DENIED, ERR_NATIVE_MISSING, ERR_OUT_OF_RANGE ...
   */
  constructor(kind: KernelKind, byteLength: number) {
    if (kind === "kvm" && byteLength > RAM_BYTES_MAX) {
      throw new MinorfaultError("ERR_OUT_OF_RANGE", "The small KVM machine has less than 3 GiB of RAM", {
        byteLength,
      });
    }
    this.kind = kind;
    this.guestText = TEXT[kind];
    this.#byteLength = byteLength;
    this.#system = new KernelSystem();
    try {
      const { process } = this.#spawn(PAGE_SIZE);
      process.kill();
      this.#image = memfd(local, "minorfault-image", byteLength);
    } catch (error) {
      this.#system.close();
      throw error;
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.byteLength; ) {
      done += writeSync(this.#image, bytes, done, bytes.byteLength - done, offset + done);
    }
  }

  async warmUp(signal: AbortSignal, onProgress: OnProgress): Promise<void> {
    const pieces: { readonly address: number; readonly byteLength: number }[] = [];
    try {
      for (let done = 0; done < this.#byteLength; done += WARM_UP_BYTES) {
        signal.throwIfAborted();
        const byteLength = Math.min(WARM_UP_BYTES, this.#byteLength - done);
        pieces.push({ address: mmap(local, byteLength, { flags: EMPTY_MEMORY | MAP.POPULATE }), byteLength });
        onProgress((done + byteLength) / PAGE_SIZE);
        await nextTurn();
      }
    } finally {
      for (const { address, byteLength } of pieces) munmap(local, address, byteLength);
    }
  }

  async open(image: Image, faultAroundPages: number): Promise<PagedGuest> {
    const { process, toucher, descriptor } = this.#spawn(this.#byteLength);
    try {
      const pager = await startPager({
        descriptor,
        regions: [{ start: toucher.address, byteLength: this.#byteLength, imageOffset: 0 }],
        image: { descriptor: this.#image, byteLength: this.#byteLength },
        zeroPages: image.zeroPages,
        plan: { faultAroundPages },
        placement: "auto",
        guest: { pid: process.pid, tid: toucher.tid },
      });
      return new KernelGuest(process, toucher, pager, this.#byteLength);
    } catch (error) {
      process.kill();
      throw error;
    } finally {
      // The pager works on a duplicate.
      close(local, descriptor);
    }
  }

  close(): void {
    this.#system.close();
    close(local, this.#image);
  }

  /** A process with empty registered memory and something that touches it. The descriptor is ours to close. */
  #spawn(byteLength: number): { process: GuestProcess; toucher: Toucher; descriptor: number } {
    const process = this.#system.spawnProcess();
    try {
      const toucher = this.#toucher(process, byteLength);
      const userfaultfd = openUserfaultfd("kernel", process, { ways: WAYS[this.kind] });
      userfaultfd.register(toucher.address, byteLength, { missing: true });
      setAffinity(local, [guestCpu()], toucher.tid);
      return { process, toucher, descriptor: process.descriptor(userfaultfd.fd) };
    } catch (error) {
      process.kill();
      throw error;
    }
  }

  #toucher(process: GuestProcess, byteLength: number): Toucher {
    const thread = process.spawnThread();
    if (this.kind === "kvm") {
      return new MachineToucher(new KvmMachine(process, { ramBytes: byteLength, thread }), thread);
    }
    return new ThreadToucher(process, thread, mmap(process, byteLength, { flags: EMPTY_MEMORY }), byteLength);
  }
}

/**
 * The CPU that every guest is pinned to, as virtual CPUs usually are: otherwise the scheduler moves the guest away
 * from its pager whenever it wakes up, and each restore would measure another distance between them.
 */
function guestCpu(): number {
  return affinity(local).at(-1) ?? 0;
}

class KernelGuest implements PagedGuest {
  readonly #process: GuestProcess;
  readonly #toucher: Toucher;
  readonly #pager: Pager;
  readonly #byteLength: number;
  #memory = -1;
  #closed: Promise<void> | undefined;

  constructor(process: GuestProcess, toucher: Toucher, pager: Pager, byteLength: number) {
    this.#process = process;
    this.#toucher = toucher;
    this.#pager = pager;
    this.#byteLength = byteLength;
  }

  get placement() {
    return this.#pager.placement;
  }

  installAll(signal: AbortSignal, onProgress: OnProgress): Promise<void> {
    return this.#pager.installAll({
      signal,
      onProgress: ({ bytesDone }) => onProgress(bytesDone / PAGE_SIZE),
    });
  }

  async walk(pages: Uint32Array, signal: AbortSignal, onProgress?: OnProgress): Promise<Walk> {
    // A pager that ends before the guest has what it needs would leave the guest waiting for ever.
    let failure: MinorfaultError | undefined;
    void this.#pager.ended.then((end) => {
      failure = end.reason === "failed" ? end.error : undefined;
    });
    return await this.#toucher.walk(pages, () => {
      signal.throwIfAborted();
      if (failure !== undefined) throw failure;
      onProgress?.(this.#toucher.pagesDone);
    });
  }

  expectedSum(pages: Uint32Array, image: Image): number {
    const mask = this.#toucher.bytesRead === 1 ? 0xff : 0xffff_ffff;
    let sum = 0;
    for (const page of pages) sum = (sum + ((image.firstWords[page] ?? 0) & mask)) >>> 0;
    return sum;
  }

  counters(): PagingCounters {
    const { faults, bytesInstalled, bytesZeroed } = this.#pager.statistics();
    return { faults, bytesCopied: bytesInstalled - bytesZeroed, bytesZeroed };
  }

  pagesBrought(): Uint32Array {
    return this.#pager.residency()[0]?.resident ?? new Uint32Array(0);
  }

  /** /proc/PID/pagemap has 64 bits a page; the highest tells whether it is there. */
  residentPages(): Uint8Array {
    const pageCount = this.#byteLength / PAGE_SIZE;
    const entries = Buffer.alloc(pageCount * 8);
    const file = openSync(`/proc/${this.#process.pid}/pagemap`, "r");
    try {
      const at = (this.#toucher.address / PAGE_SIZE) * 8;
      for (let done = 0; done < entries.byteLength; ) {
        const count = readSync(file, entries, done, entries.byteLength - done, at + done);
        assert(count > 0, "/proc/PID/pagemap ended early");
        done += count;
      }
    } finally {
      closeSync(file);
    }
    return Uint8Array.from({ length: pageCount }, (_, page) => (entries[page * 8 + 7] ?? 0) >> 7);
  }

  readMemory(offset: number, target: Uint8Array): void {
    if (this.#memory < 0) this.#memory = openSync(`/proc/${this.#process.pid}/mem`, "r");
    const count = readSync(this.#memory, target, 0, target.byteLength, this.#toucher.address + offset);
    if (count !== target.byteLength) {
      throw new MinorfaultError("ERR_SYSCALL", "The guest's memory could not be read from outside", {
        operation: "read of /proc/PID/mem",
        address: this.#toucher.address + offset,
        byteLength: target.byteLength,
      });
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    if (this.#memory >= 0) closeSync(this.#memory);
    this.#process.kill();
    await this.#pager.close();
  }
}
