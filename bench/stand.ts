// The stand on which everybody is measured: a bare guest process with one thread that touches pages in machine code, an
// image in memory, and ranges of the guest's memory, each under a userfaultfd of its own.

import { randomFillSync } from "node:crypto";
import { MADV, MAP, PAGE_SIZE, PROT } from "../src/abi/memory.ts";
import type { Scratch } from "../src/abi/system.ts";
import { type GuestProcess, type GuestThread, KernelSystem } from "../src/guest/process/index.ts";
import { affinity, close, local, madvise, memfd, mmap, munmap } from "../src/linux/index.ts";
import { type Pager, type PlacementChoice, startPager } from "../src/pager/index.ts";
import { openUserfaultfd } from "../src/uffd/open.ts";
import type { SystemUserfaultfd } from "../src/uffd/userfaultfd.ts";
import type { Post } from "./c-handler.ts";
import type { LoadMeter } from "./load.ts";

/** LIMIT: a walk that takes longer hangs. */
const WALK_MS = 120_000;

/** Memory of the guest under a userfaultfd. */
export interface Range {
  readonly base: number;
  readonly byteLength: number;
  readonly uffd: SystemUserfaultfd;
}

/** Times of single accesses in microseconds, and of the whole walk in seconds. */
export interface WalkResult {
  readonly p50: number;
  readonly p99: number;
  readonly mean: number;
  readonly seconds: number;
}

export class Stand {
  readonly process: GuestProcess;
  readonly thread: GuestThread;
  /** The guest's thread is pinned to `home`; `other` is another CPU, undefined on a machine with one. */
  readonly home: number;
  readonly other: number | undefined;
  readonly imageBytes: number;
  readonly #system = new KernelSystem();
  readonly #image: { readonly fd: number; readonly address: number };
  readonly #ticksPerUs: number;
  #record: Scratch & { close(): void };

  constructor(imageBytes: number, meter: LoadMeter) {
    const [home = 0, other] = affinity(local);
    this.home = home;
    this.other = other;
    this.process = this.#system.spawnProcess();
    meter.add(this.process.pid);
    this.thread = this.process.spawnThread();
    this.thread.pin(home);
    this.#ticksPerUs = this.process.tickRate() / 1e6;
    this.imageBytes = imageBytes;
    this.#image = makeImage(imageBytes);
    this.#record = this.process.share(PAGE_SIZE);
  }

  /** A path by which other processes open the image. */
  get imagePath(): string {
    return `/proc/${process.pid}/fd/${this.#image.fd}`;
  }

  /** Fresh, registered memory of the guest; huge with 2 MiB pages of the pool. */
  map(byteLength: number, options: { readonly huge?: boolean } = {}): Range {
    const huge = options.huge ? MAP.HUGETLB : 0;
    const base = mmap(this.process, byteLength, { flags: MAP.PRIVATE | MAP.ANONYMOUS | huge });
    const uffd = openUserfaultfd("kernel", this.process);
    uffd.register(base, byteLength, { missing: true });
    return { base, byteLength, uffd };
  }

  /** Memory of the guest that no userfaultfd watches. */
  mapPlain(byteLength: number): number {
    return mmap(this.process, byteLength);
  }

  unmapPlain(base: number, byteLength: number): void {
    munmap(this.process, base, byteLength);
  }

  unmap({ base, byteLength, uffd }: Range): void {
    uffd.close();
    munmap(this.process, base, byteLength);
  }

  /** What a C handler has to know to serve a range. */
  post({ base, uffd }: Range, cpu: number): Post {
    return { pid: this.process.pid, fd: uffd.fd, cpu, image: this.imagePath, base };
  }

  /** Our pager for a range. */
  async pager(
    range: Range,
    placement: PlacementChoice,
    faultAroundPages = 1,
    pageSize: number = PAGE_SIZE,
  ): Promise<Pager> {
    const descriptor = this.process.descriptor(range.uffd.fd);
    try {
      return await startPager({
        descriptor,
        regions: [{ start: range.base, byteLength: range.byteLength, imageOffset: 0, pageSize }],
        image: { address: this.#image.address, byteLength: this.imageBytes },
        plan: { faultAroundPages },
        placement,
        guest: { pid: this.process.pid, tid: this.thread.tid },
        onError: (error) => console.error("pager:", error.message, error.cause ?? ""),
      });
    } finally {
      close(local, descriptor);
    }
  }

  /** Touches `count` pages from `base` on, in order or as the list says; `write` stores instead of loading. */
  walk(base: number, count: number, options: { list?: Scratch; write?: number } = {}): WalkResult {
    const record = this.#recordFor(count);
    const { list, write } = options;
    const order = list === undefined ? { count, stride: 1 } : { count, list };
    const begin = performance.now();
    this.thread.walk({ base, order, record, ...(write === undefined ? {} : { write }) });
    if (!this.thread.wait(WALK_MS))
      throw new Error(`The guest hangs at page ${this.thread.progress} of ${count}`);
    const seconds = (performance.now() - begin) / 1000;
    const ticks = new Uint32Array(record.bytes.buffer, record.bytes.byteOffset, count).slice().sort();
    const us = (share: number): number => ticks[Math.floor(count * share)]! / this.#ticksPerUs;
    return { p50: us(0.5), p99: us(0.99), mean: (seconds * 1e6) / count, seconds };
  }

  /** Page numbers below `count` in random order, where the guest can read them. */
  shuffled(count: number): Scratch & { close(): void } {
    const list = this.process.share(count * 4);
    const pages = new Uint32Array(list.bytes.buffer, list.bytes.byteOffset, count);
    const random = randomFillSync(new Uint32Array(count));
    for (let index = 0; index < count; index++) pages[index] = index;
    for (let index = count - 1; index > 0; index--) {
      const other = random[index]! % (index + 1);
      [pages[index], pages[other]] = [pages[other]!, pages[index]!];
    }
    return list;
  }

  close(): void {
    this.#system.close();
    munmap(local, this.#image.address, this.imageBytes);
    close(local, this.#image.fd);
  }

  /** Where the guest notes times: touched before, so that noting them raises no fault of its own. */
  #recordFor(count: number): Scratch {
    if (this.#record.bytes.byteLength < count * 4) {
      this.#record.close();
      this.#record = this.process.share(count * 4);
    }
    this.#record.bytes.fill(1);
    this.walkOver(this.#record);
    return this.#record;
  }

  /** Makes shared memory resident on the guest's side. */
  walkOver(memory: Scratch): void {
    const count = Math.ceil(memory.bytes.byteLength / PAGE_SIZE);
    this.thread.walk({ base: memory.address, order: { count, stride: 1 } });
    this.thread.wait(WALK_MS);
  }
}

/** Random bytes in a memfd, mapped here, every page of it present in our page table too. */
function makeImage(byteLength: number): { fd: number; address: number } {
  const fd = memfd(local, "minorfault-bench-image", byteLength);
  const flags = MAP.SHARED | MAP.POPULATE;
  const address = mmap(local, byteLength, { fd, flags, protection: PROT.READ | PROT.WRITE });
  const page = local.share(1 << 20);
  randomFillSync(page.bytes);
  for (let at = 0; at < byteLength; at += 1 << 20) {
    // Every page of the image has bytes; that they repeat each MiB does not matter to a copy.
    local.call("pwrite64", fd, page.address, Math.min(1 << 20, byteLength - at), at);
  }
  page.close();
  return { fd, address };
}

/** Touches and frees memory, so that the machine under this one has it at hand. */
export function warmMemory(byteLength: number): void {
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.POPULATE;
  munmap(local, mmap(local, byteLength, { flags }), byteLength);
}

/** The same for memory that will be used in huge pages. */
export function warmHugePages(byteLength: number): void {
  const address = mmap(local, byteLength);
  madvise(local, address, byteLength, MADV.HUGEPAGE);
  madvise(local, address, byteLength, MADV.POPULATE_WRITE);
  munmap(local, address, byteLength);
}
