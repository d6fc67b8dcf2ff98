// A guest of the real kernel for the pager's tests: a bare process with one thread, its memory, and an image in a memfd.

import assert from "node:assert/strict";
import { MAP, PAGE_SIZE } from "../../src/abi/memory.ts";
import type { FeatureName } from "../../src/abi/userfaultfd.ts";
import { type GuestProcess, type GuestThread, KernelSystem } from "../../src/guest/process/index.ts";
import { close, local, mapMemory, memfd, mmap } from "../../src/linux/index.ts";
import { type Pager, type PagerOptions, startPager } from "../../src/pager/index.ts";
import { openUserfaultfd } from "../../src/uffd/open.ts";
import type { SystemUserfaultfd } from "../../src/uffd/userfaultfd.ts";

/** LIMIT: whatever takes longer hangs. */
const DEADLINE_MS = 60_000;

export interface GuestOptions {
  readonly pages?: number;
  readonly features?: readonly FeatureName[];
  readonly pageSize?: number;
}

/** The byte that every byte of a page of the image is. */
export function imageByte(page: number): number {
  return 1 + (page % 250);
}

export class Guest {
  readonly process: GuestProcess;
  readonly thread: GuestThread;
  readonly uffd: SystemUserfaultfd;
  readonly base: number;
  readonly pages: number;
  readonly pageSize: number;
  readonly imageFd: number;
  readonly #system = new KernelSystem();
  readonly #pagers: Pager[] = [];

  constructor({ pages = 64, features = [], pageSize = PAGE_SIZE }: GuestOptions = {}) {
    this.pages = pages;
    this.pageSize = pageSize;
    this.process = this.#system.spawnProcess();
    this.thread = this.process.spawnThread();
    this.uffd = openUserfaultfd("kernel", this.process, { features });
    const huge = pageSize === PAGE_SIZE ? 0 : MAP.HUGETLB;
    this.base = mmap(this.process, this.byteLength, { flags: MAP.PRIVATE | MAP.ANONYMOUS | huge });
    this.uffd.register(this.base, this.byteLength, { missing: true });
    this.imageFd = memfd(local, "pager-test", this.byteLength);
    const image = mapMemory(this.byteLength, { fd: this.imageFd });
    for (let page = 0; page < pages; page++) {
      image.bytes.fill(imageByte(page), page * pageSize, (page + 1) * pageSize);
    }
    image.close();
  }

  get byteLength(): number {
    return this.pages * this.pageSize;
  }

  async pager(options: Partial<PagerOptions> = {}): Promise<Pager> {
    const descriptor = this.process.descriptor(this.uffd.fd);
    try {
      const pager = await startPager({
        descriptor,
        regions: [{ start: this.base, byteLength: this.byteLength, imageOffset: 0, pageSize: this.pageSize }],
        ...(options.source === undefined && {
          image: { descriptor: this.imageFd, byteLength: this.byteLength },
        }),
        guest: { pid: this.process.pid, tid: this.thread.tid },
        placement: "block",
        onError: (error) => assert.fail(error),
        ...options,
      });
      this.#pagers.push(pager);
      return pager;
    } finally {
      close(local, descriptor);
    }
  }

  address(page: number): number {
    return this.base + page * this.pageSize;
  }

  /** The byte at a page, by the guest's thread. */
  load(page: number, thread: GuestThread = this.thread): number {
    thread.start({ kind: "load", address: this.address(page), size: 1 });
    return this.finish(thread);
  }

  finish(thread: GuestThread = this.thread): number {
    assert.ok(thread.wait(DEADLINE_MS), `the thread still waits after ${DEADLINE_MS} ms`);
    const { ending } = thread;
    assert.equal(ending?.kind, "value", JSON.stringify(ending));
    return ending.value;
  }

  /** Waits for a signal to end the operation. */
  signalOf(thread: GuestThread = this.thread): number {
    assert.ok(thread.wait(DEADLINE_MS), `the thread still waits after ${DEADLINE_MS} ms`);
    const { ending } = thread;
    assert.equal(ending?.kind, "signal", JSON.stringify(ending));
    return ending.signal;
  }

  /** Every page of the memory reads as the image says. */
  checkAll(expected: (page: number) => number = imageByte): void {
    for (let page = 0; page < this.pages; page++)
      assert.equal(this.load(page), expected(page), `page ${page}`);
  }

  async close(): Promise<void> {
    this.#system.close();
    for (const pager of this.#pagers) await pager.close();
    close(local, this.imageFd);
  }
}
