// A process with paged memory and a fault loop for it, on either system: the loop's calls are made by the process's control
// thread, its bytes lie in memory that the process shares, and the process's other threads fault.

import assert from "node:assert/strict";
import { ERRNO } from "../../src/abi/errno.ts";
import { MAP, O, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import type { Caller, Ending, Operation, Process, System, Thread } from "../../src/abi/system.ts";
import { UFFDIO_REGISTER_MODE } from "../../src/abi/userfaultfd.ts";
import { setBits, wordsFor } from "../../src/base/bitmap.ts";
import type { MinorfaultError } from "../../src/base/errors.ts";
import { type Counters, makeCounters, readStatistics } from "../../src/pager/counters.ts";
import { FaultLoop } from "../../src/pager/fault-loop.ts";
import type { PagerStatistics } from "../../src/pager/options.ts";
import { CallerPort } from "../../src/pager/port.ts";
import { Region, RegionMap, wholePart } from "../../src/pager/regions.ts";
import { type AddressableSource, MemorySource } from "../../src/pager/source.ts";
import { Writes } from "../../src/pager/writes.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";

/** LIMIT: rounds of serving until a scene must have come to rest. */
const ROUNDS_MAX = 10_000;

export interface SceneOptions {
  readonly pages?: number;
  readonly windowPages?: number;
  /** UFFD_FEATURE bits. */
  readonly features?: bigint;
  /** Pages that are known to be zeros. */
  readonly zeroPages?: readonly number[];
  /** Bytes that may be resident: others are evicted. */
  readonly budgetBytes?: number;
  /** Tracks written pages, which go to a swap file when they are evicted; or stay, without one. */
  readonly writes?: "swap" | "no swap";
  /** In the place of the image's memory. */
  readonly source?: (image: MemorySource) => AddressableSource;
  /** In the place of the process's own calls, for the loop. */
  readonly caller?: (process: Process) => Caller;
}

/** What byte every byte of a page of the image is. */
export function imageByte(page: number): number {
  return 1 + (page % 250);
}

export class Scene {
  readonly process: Process;
  readonly base: number;
  readonly pages: number;
  readonly ioctls: Ioctls;
  readonly loop: FaultLoop;
  readonly counters: Counters = makeCounters();
  readonly errors: MinorfaultError[] = [];
  readonly region: Region;
  readonly children: { readonly fd: number; readonly regions: RegionMap }[] = [];
  readonly #source: AddressableSource;
  readonly #caller: Caller;
  readonly #budgetBytes: number;
  readonly #isTracking: boolean;
  #swapFd = -1;
  /** Where the image's bytes are, in the process. */
  readonly imageAddress: number;

  constructor(system: System, options: SceneOptions = {}) {
    const { pages = 16, windowPages = 1, features = 0n, zeroPages = [] } = options;
    this.pages = pages;
    this.#budgetBytes = options.budgetBytes ?? 0;
    this.#isTracking = options.writes !== undefined;
    this.process = system.spawnProcess();
    this.#caller = options.caller?.(this.process) ?? this.process;
    const fd = this.process.call("userfaultfd", O.NONBLOCK | O.CLOEXEC);
    assert.ok(fd >= 0, `userfaultfd answered ${fd}`);
    this.ioctls = new Ioctls(this.process, fd);
    assert.equal(this.ioctls.api(features).errno, 0);
    this.base = this.map(pages);
    const resident = new Uint32Array(wordsFor(pages));
    const zero = new Uint32Array(wordsFor(pages));
    for (const page of zeroPages) setBits(zero, page, page + 1);
    const hasZeros = zeroPages.length > 0;
    this.region = new Region({
      pageSize: PAGE_SIZE,
      pageCount: pages,
      imageOffset: 0,
      windowPages,
      resident,
      zero,
      hasZeros,
      writes: options.writes && this.#writes(options.writes === "swap"),
    });
    const image = this.process.share(pages * PAGE_SIZE);
    for (let page = 0; page < pages; page++) {
      image.bytes.fill(imageByte(page), page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    }
    this.imageAddress = image.address;
    const memory = new MemorySource(image.address, pages * PAGE_SIZE);
    this.#source = options.source?.(memory) ?? memory;
    this.loop = this.loopFor(fd, new RegionMap([wholePart(this.base, this.region)]));
  }

  #writes(hasSwap: boolean): Writes {
    const bits = () => new Uint32Array(wordsFor(this.pages));
    const bytes = this.pages * PAGE_SIZE;
    let swapAddress = 0;
    if (hasSwap) {
      // An empty name: the first byte of fresh memory.
      this.#swapFd = this.process.call("memfd_create", this.process.share(PAGE_SIZE).address, 0);
      assert.ok(this.#swapFd >= 0, `memfd_create answered ${this.#swapFd}`);
      assert.equal(this.process.call("ftruncate", this.#swapFd, bytes), 0);
      swapAddress = this.process.call("mmap", 0, bytes, PROT.READ, MAP.SHARED, this.#swapFd, 0);
      assert.ok(swapAddress > 0, `mmap answered ${swapAddress}`);
    }
    return new Writes({ written: bits(), swapped: bits(), flushing: bits() }, swapAddress);
  }

  /** Fresh private memory, between two pages that are not there, registered for missing pages. */
  map(pages: number): number {
    const bytes = (pages + 2) * PAGE_SIZE;
    const flags = MAP.PRIVATE | MAP.ANONYMOUS;
    const start = this.process.call("mmap", 0, bytes, PROT.READ | PROT.WRITE, flags, -1, 0);
    assert.ok(start > 0, `mmap answered ${start}`);
    assert.equal(this.process.call("munmap", start, PAGE_SIZE), 0);
    assert.equal(this.process.call("munmap", start + (pages + 1) * PAGE_SIZE, PAGE_SIZE), 0);
    const mode = UFFDIO_REGISTER_MODE.MISSING | (this.#isTracking ? UFFDIO_REGISTER_MODE.WP : 0);
    assert.equal(this.ioctls.register(start + PAGE_SIZE, pages * PAGE_SIZE, mode).errno, 0);
    return start + PAGE_SIZE;
  }

  loopFor(fd: number, regions: RegionMap): FaultLoop {
    return new FaultLoop({
      port: new CallerPort(this.#caller, fd, () => performance.now()),
      regions,
      source: this.#source,
      counters: this.counters,
      protects: this.#isTracking,
      budget:
        this.#budgetBytes > 0
          ? { caller: this.#caller, budgetBytes: this.#budgetBytes, swapFd: this.#swapFd }
          : undefined,
      now: () => performance.now(),
      onError: (error) => this.errors.push(error),
      onFork: (child, memory) => this.children.push({ fd: child, regions: memory }),
    });
  }

  address(page: number): number {
    return this.base + page * PAGE_SIZE;
  }

  /** A thread of its own begins an operation; returns when it is done or waits. */
  begin(operation: Operation): Thread {
    const thread = this.process.spawnThread();
    thread.start(operation);
    this.process.settle();
    return thread;
  }

  beginLoad(page: number): Thread {
    return this.begin({ kind: "load", address: this.address(page), size: 1 });
  }

  /** madvise(MADV_DONTNEED) by a thread of its own, as it may wait. */
  beginDiscard(first: number, count: number): Thread {
    const args = [this.address(first), count * PAGE_SIZE, 4];
    return this.begin({ kind: "call", name: "madvise", args });
  }

  /** Serves until these threads have ended their operations. */
  serve(...threads: readonly Thread[]): void {
    for (let round = 0; round < ROUNDS_MAX; round++) {
      this.process.settle();
      const result = this.loop.pump(64);
      assert.ok(result === 0 || result === -ERRNO.EAGAIN, `read answered ${result}`);
      this.loop.resolver.retry();
      if (threads.every(({ ending }) => ending !== undefined)) return;
    }
    assert.fail(`A thread still waits after ${ROUNDS_MAX} rounds: ${threads.map(({ state }) => state)}`);
  }

  /** Writes the first byte of a page, served if need be. */
  store(page: number, byte: number): void {
    const thread = this.begin({ kind: "store", address: this.address(page), value: byte });
    this.serve(thread);
    value(thread.ending);
  }

  /** The byte at a page, served if need be. */
  load(page: number): number {
    const thread = this.beginLoad(page);
    this.serve(thread);
    return value(thread.ending);
  }

  get statistics(): PagerStatistics {
    return readStatistics(this.counters);
  }

  /** Every fault has ended in exactly one way. */
  checkBooks(): void {
    const { faults, outcomes } = this.statistics;
    const { copied, zeroed, continued, poisoned, woken } = outcomes;
    assert.equal(copied + zeroed + continued + poisoned + woken, faults, JSON.stringify(outcomes));
  }
}

export function value(ending: Ending | undefined): number {
  assert.equal(ending?.kind, "value", JSON.stringify(ending));
  return ending.value;
}

export function signalOf(ending: Ending | undefined): number {
  assert.equal(ending?.kind, "signal", JSON.stringify(ending));
  return ending.signal;
}
