// The CPU of a stand-in VMM: a virtual one of our KVM machine, whose faults are the kernel's own accesses to guest memory;
// where there is no KVM, a thread of the process that touches the same pages, and says so.

import { PAGE_SHIFT, PAGE_SIZE } from "../../src/abi/memory.ts";
import type { Scratch } from "../../src/abi/system.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { type Access, KvmMachine } from "../../src/guest/kvm/index.ts";
import type { GuestProcess, GuestThread } from "../../src/guest/process/index.ts";
import { type MappedRegion, pageCountOf, regionOf } from "./vmm-memory.ts";

export interface CpuWalk {
  /** Of each access, in its order. */
  readonly latenciesUs: Float64Array;
  /** After reads by a virtual CPU: the first word of each page. */
  readonly words?: Uint32Array;
}

export interface Cpu {
  readonly kind: "kvm" | "thread";
  readonly thread: GuestThread;
  /** Accesses of the present walk that are done. */
  readonly done: number;
  /** Begins to touch these pages, in this order. */
  start(pages: Uint32Array, access: Access): void;
  /** What came of it; undefined while it goes on. @throws when the guest was killed, or a page was poisoned. */
  poll(): CpuWalk | undefined;
  /** The first word of a page after a store, by what it was before. */
  stored(page: number, word: number): number;
}

/** `kind` undefined: a virtual CPU where there is KVM. `why` says why it is none. */
export function openCpu(
  process: GuestProcess,
  regions: readonly MappedRegion[],
  kind: Cpu["kind"] | undefined,
): { readonly cpu: Cpu; readonly why?: string } {
  const thread = process.spawnThread();
  if (kind === "thread") return { cpu: new ThreadCpu(process, thread, regions), why: "asked for" };
  try {
    return { cpu: new VirtualCpu(new KvmMachine(process, { ramBytes: regions, thread }), regions) };
  } catch (error) {
    const isMissing = error instanceof MinorfaultError && error.code === "ERR_UNSUPPORTED_HOST";
    if (kind === "kvm" || !isMissing) throw error;
    return { cpu: new ThreadCpu(process, thread, regions), why: error.message };
  }
}

class VirtualCpu implements Cpu {
  readonly kind = "kvm";
  readonly #machine: KvmMachine;
  readonly #regions: readonly MappedRegion[];
  readonly #unitsPerUs: number;

  constructor(machine: KvmMachine, regions: readonly MappedRegion[]) {
    this.#machine = machine;
    this.#regions = regions;
    this.#unitsPerUs = machine.unitsPerUs ?? Number.NaN;
  }

  get thread(): GuestThread {
    return this.#machine.thread as GuestThread;
  }

  get done(): number {
    return this.#machine.pagesDone;
  }

  start(pages: Uint32Array, access: Access): void {
    this.#machine.start(
      this.#regions.length === 1 ? pages : pages.map((page) => this.#physical(page)),
      access,
    );
  }

  poll(): CpuWalk | undefined {
    const walked = this.#machine.poll();
    if (walked === undefined) return undefined;
    const { times, words } = walked;
    const latenciesUs = Float64Array.from(times, (units) => units / this.#unitsPerUs);
    return { latenciesUs, ...(words !== undefined && { words }) };
  }

  stored(page: number): number {
    return this.#physical(page) << PAGE_SHIFT;
  }

  #physical(page: number): number {
    const { firstPage, guestAddress } = regionOf(this.#regions, page);
    return page - firstPage + guestAddress / PAGE_SIZE;
  }
}

/** What is stored is one byte. */
const STORED = 0xa5;

class ThreadCpu implements Cpu {
  readonly kind = "thread";
  readonly thread: GuestThread;
  readonly #regions: readonly MappedRegion[];
  readonly #base: number;
  readonly #list: Scratch;
  readonly #record: Scratch;
  readonly #ticksPerUs: number;
  #count = 0;

  constructor(process: GuestProcess, thread: GuestThread, regions: readonly MappedRegion[]) {
    this.thread = thread;
    this.#regions = regions;
    this.#base = Math.min(...regions.map(({ address }) => address));
    const listBytes = pageCountOf(regions) * 4;
    this.#list = process.share(listBytes);
    this.#record = process.share(listBytes);
    this.#ticksPerUs = process.tickRate() / 1e6;
  }

  get done(): number {
    return this.thread.progress;
  }

  start(pages: Uint32Array, access: Access): void {
    this.#count = pages.length;
    words(this.#list, pages.length).set(pages.map((page) => this.#place(page)));
    const order = { list: this.#list, count: pages.length };
    const write = access === "store" ? { write: STORED } : {};
    this.thread.walk({ base: this.#base, order, record: this.#record, ...write });
  }

  poll(): CpuWalk | undefined {
    const { ending } = this.thread;
    if (ending === undefined) return undefined;
    if (ending.kind === "gone") throw new MinorfaultError("ERR_CLOSED", "The guest ended during a walk");
    if (ending.kind === "signal") {
      const { signal, address } = ending;
      throw new MinorfaultError("ERR_MEMORY_FAULT", `Signal ${signal} ended the guest's walk`, { address });
    }
    const ticks = words(this.#record, this.#count);
    return { latenciesUs: Float64Array.from(ticks, (count) => count / this.#ticksPerUs) };
  }

  stored(_page: number, word: number): number {
    return ((word & ~0xff) | STORED) >>> 0;
  }

  /** Pages from the lowest address on. */
  #place(page: number): number {
    const { firstPage, address } = regionOf(this.#regions, page);
    return page - firstPage + (address - this.#base) / PAGE_SIZE;
  }
}

function words(memory: Scratch, count: number): Uint32Array {
  return new Uint32Array(memory.bytes.buffer, memory.bytes.byteOffset, count);
}
