// The thread of the guest that touches memory: a virtual CPU, or a thread that runs a loop of machine code. Both are
// given a list of pages and leave the time of each access; here is how their orders and their clocks differ.

import { setTimeout as delay } from "node:timers/promises";
import { PAGE_SIZE } from "../../abi/memory.ts";
import type { Scratch } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import type { KvmMachine } from "../../guest/kvm/index.ts";
import type { GuestProcess, GuestThread } from "../../guest/process/index.ts";
import type { Walk } from "./guest.ts";

/** For so long the end of a walk is waited for without a break, so that the end of a short one is seen at once. */
const WATCHED_MS = 3;
/** Then so often. */
const GLANCE_MS = 4;

export interface Toucher {
  readonly tid: number;
  /** Where the memory lies in the guest's process. */
  readonly address: number;
  /** Bytes that it reads of each page: its sum is of bytes or of 32-bit words. */
  readonly bytesRead: 1 | 4;
  /** Pages of the present walk that have been touched. */
  readonly pagesDone: number;
  /** `onGlance` is called every few milliseconds meanwhile; what it throws ends the waiting. */
  walk(pages: Uint32Array, onGlance: () => void): Promise<Walk>;
}

/** Waits for an end that a thread brings about; sleeping, so that no CPU is kept from those who work for it. */
async function watch<T>(thread: GuestThread, poll: () => T | undefined, onGlance: () => void): Promise<T> {
  const watchedUntil = performance.now() + WATCHED_MS;
  for (;;) {
    const found = poll();
    if (found !== undefined) return found;
    const left = watchedUntil - performance.now();
    if (left > 0) thread.wait(Math.ceil(left));
    else {
      onGlance();
      await delay(GLANCE_MS);
    }
  }
}

export class MachineToucher implements Toucher {
  readonly bytesRead = 4;
  readonly #machine: KvmMachine;
  readonly #thread: GuestThread;
  readonly #unitsPerUs: number;

  /** `thread`: the one that is the machine's CPU. */
  constructor(machine: KvmMachine, thread: GuestThread) {
    this.#machine = machine;
    this.#thread = thread;
    const { unitsPerUs } = machine;
    if (unitsPerUs === undefined) {
      throw new MinorfaultError(
        "ERR_UNSUPPORTED_HOST",
        "KVM does not know the frequency of the guest's clock",
      );
    }
    this.#unitsPerUs = unitsPerUs;
  }

  get tid(): number {
    return this.#thread.tid;
  }

  get address(): number {
    return this.#machine.ramAddress;
  }

  get pagesDone(): number {
    return this.#machine.pagesDone;
  }

  async walk(pages: Uint32Array, onGlance: () => void): Promise<Walk> {
    this.#machine.start(pages);
    const { sum, times } = await watch(this.#thread, () => this.#machine.poll(), onGlance);
    const accessUs = Float64Array.from(times, (units) => units / this.#unitsPerUs);
    return { sum, accessUs, durationUs: total(accessUs) };
  }
}

export class ThreadToucher implements Toucher {
  readonly bytesRead = 1;
  readonly address: number;
  readonly #thread: GuestThread;
  readonly #list: Scratch;
  readonly #record: Scratch;
  readonly #ticksPerUs: number;

  /** `address`: the guest's memory in the process. */
  constructor(process: GuestProcess, thread: GuestThread, address: number, byteLength: number) {
    this.address = address;
    this.#thread = thread;
    const listBytes = (byteLength / PAGE_SIZE) * 4;
    this.#list = process.share(listBytes);
    this.#record = process.share(listBytes);
    this.#ticksPerUs = process.tickRate() / 1e6;
  }

  get tid(): number {
    return this.#thread.tid;
  }

  get pagesDone(): number {
    return this.#thread.progress;
  }

  async walk(pages: Uint32Array, onGlance: () => void): Promise<Walk> {
    words(this.#list, pages.length).set(pages);
    const order = { list: this.#list, count: pages.length };
    this.#thread.walk({ base: this.address, order, record: this.#record });
    const ending = await watch(this.#thread, () => this.#thread.ending, onGlance);
    if (ending.kind === "gone") {
      throw new MinorfaultError("ERR_CLOSED", "The guest ended during a walk", {
        hint: "Look for what killed it: somebody, or the kernel for want of memory",
      });
    }
    if (ending.kind === "signal") {
      throw new MinorfaultError("ERR_MEMORY_FAULT", `Signal ${ending.signal} ended the guest's walk`, {
        address: ending.address,
      });
    }
    const ticks = words(this.#record, pages.length);
    const accessUs = Float64Array.from(ticks, (count) => count / this.#ticksPerUs);
    return { sum: ending.value >>> 0, accessUs, durationUs: total(accessUs) };
  }
}

function words(memory: Scratch, count: number): Uint32Array {
  return new Uint32Array(memory.bytes.buffer, memory.bytes.byteOffset, count);
}

function total(times: Float64Array): number {
  return times.reduce((sum, time) => sum + time, 0);
}
