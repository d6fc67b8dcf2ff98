// Guests that exist only in TypeScript: processes of the software implementation, where no kernel interface is used.
// Guest and pager share one thread, so what is measured is what a fault costs by itself, without any waiting.
//
//   load ─▶ page missing: the thread stands, a message is queued ─▶ serve: read, copy or zero ─▶ the load ends

import { setImmediate as nextTurn } from "node:timers/promises";
import { MAP, PAGE_SIZE, PROT } from "../../abi/memory.ts";
import { writeWord } from "../../abi/structs.ts";
import type { Process, Thread } from "../../abi/system.ts";
import { hasBit, nextSet, setBits, wordsFor } from "../../base/bitmap.ts";
import { assert, MinorfaultError } from "../../base/errors.ts";
import { openUserfaultfd, type Staging, SystemAddressSpace, type Userfaultfd } from "../../uffd/index.ts";
import { createSystem } from "../../uffd/software/index.ts";
import type { DemoHost, OnProgress, PagedGuest, PagingCounters, Walk } from "./guest.ts";
import type { Image } from "./image.ts";

/** Pages between which signals are heard and progress is told. */
const TURN_PAGES = 1024;
/** Pages that are installed in one piece at most. */
const PIECE_PAGES = 512;
/** LIMIT: Node 20's largest buffer, and the software implementation's physical memory, are 4 GiB. */
const BYTES_MAX = 3 * 2 ** 30;

export class SoftwareHost implements DemoHost {
  readonly kind = "software";
  readonly guestText = "the software implementation: memory, faults and userfaultfd written in TypeScript";
  readonly pagerText = "TypeScript in the guest's thread, over the software implementation's userfaultfd";
  readonly #image: Buffer;

  constructor(byteLength: number) {
    if (byteLength > BYTES_MAX) {
      throw new MinorfaultError("ERR_OUT_OF_RANGE", "A software guest has at most 3 GiB", { byteLength });
    }
    this.#image = Buffer.alloc(byteLength);
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#image.set(bytes, offset);
  }

  /** Node's allocations are not reused from one guest to the next, so there is nothing to warm up. */
  async warmUp(): Promise<void> {}

  async open(image: Image, faultAroundPages: number): Promise<PagedGuest> {
    return new SoftwareGuest(this.#image, image, faultAroundPages);
  }

  close(): void {}
}

class SoftwareGuest implements PagedGuest {
  readonly placement = undefined;
  readonly #system = createSystem();
  readonly #process: Process = this.#system.spawnProcess();
  readonly #thread: Thread = this.#process.spawnThread();
  readonly #userfaultfd: Userfaultfd = openUserfaultfd("software", this.#process);
  readonly #staging: Staging = this.#userfaultfd.staging(PIECE_PAGES * PAGE_SIZE);
  readonly #address: number;
  readonly #bytes: Buffer;
  readonly #image: Image;
  readonly #windowPages: number;
  readonly #brought: Uint32Array;
  #faults = 0;
  #bytesCopied = 0;
  #bytesZeroed = 0;

  constructor(bytes: Buffer, image: Image, windowPages: number) {
    this.#bytes = bytes;
    this.#image = image;
    this.#windowPages = windowPages;
    this.#brought = new Uint32Array(wordsFor(image.pageCount));
    const flags = MAP.PRIVATE | MAP.ANONYMOUS;
    this.#address = this.#process.call("mmap", 0, image.byteLength, PROT.READ | PROT.WRITE, flags, -1, 0);
    assert(this.#address > 0, "The software implementation has memory for its guest");
    this.#userfaultfd.register(this.#address, image.byteLength, { missing: true });
  }

  async installAll(signal: AbortSignal, onProgress: OnProgress): Promise<void> {
    const { pageCount } = this.#image;
    for (let page = 0; page < pageCount; page += TURN_PAGES) {
      signal.throwIfAborted();
      const until = Math.min(pageCount, page + TURN_PAGES);
      this.#install(page, until);
      onProgress(until);
      await nextTurn();
    }
  }

  async walk(pages: Uint32Array, signal: AbortSignal, onProgress?: OnProgress): Promise<Walk> {
    const accessUs = new Float64Array(pages.length);
    let sum = 0;
    for (let first = 0; first < pages.length; first += TURN_PAGES) {
      signal.throwIfAborted();
      const until = Math.min(pages.length, first + TURN_PAGES);
      let before = performance.now();
      for (let index = first; index < until; index++) {
        sum = (sum + this.#load(pages[index] ?? 0)) >>> 0;
        const now = performance.now();
        accessUs[index] = (now - before) * 1000;
        before = now;
      }
      onProgress?.(until);
      // A single page is the first byte, which should not wait for a turn.
      if (pages.length > 1) await nextTurn();
    }
    return { accessUs, durationUs: accessUs.reduce((total, time) => total + time, 0), sum };
  }

  /** Reads the first word of a page, by a thread of the guest. */
  #load(page: number): number {
    this.#thread.start({ kind: "load", address: this.#address + page * PAGE_SIZE, size: 8 });
    while (this.#thread.ending === undefined) this.#serve();
    const { ending } = this.#thread;
    assert(ending.kind === "value", `The load of page ${page} ended in ${ending.kind}`);
    return ending.value % 2 ** 32;
  }

  /** The pager: answers what has been asked. */
  #serve(): void {
    const messages = this.#userfaultfd.read();
    assert(messages.length > 0, "A thread that stands in a fault has asked for its page");
    for (const message of messages) {
      if (message.event !== "pagefault") continue;
      this.#faults++;
      const page = (message.address - this.#address) / PAGE_SIZE;
      const start = page - (page % this.#windowPages);
      this.#install(start, Math.min(this.#image.pageCount, start + this.#windowPages));
    }
  }

  /** Brings pages that are not there yet, in runs that are zero or not. */
  #install(first: number, until: number): void {
    for (let page = first; page < until; ) {
      if (hasBit(this.#brought, page)) {
        page++;
        continue;
      }
      const isZero = hasBit(this.#image.zeroPages, page);
      const limit = Math.min(until, page + PIECE_PAGES, nextSet(this.#brought, page, until));
      let end = page + 1;
      while (end < limit && hasBit(this.#image.zeroPages, end) === isZero) end++;
      this.#fill(page, end, isZero);
      page = end;
    }
  }

  #fill(first: number, until: number, isZero: boolean): void {
    const target = this.#address + first * PAGE_SIZE;
    const byteLength = (until - first) * PAGE_SIZE;
    if (!isZero) this.#staging.bytes.set(this.#bytes.subarray(first * PAGE_SIZE, until * PAGE_SIZE));
    const answer = isZero
      ? this.#userfaultfd.zeropage(target, byteLength)
      : this.#userfaultfd.copy(target, this.#staging.address, byteLength);
    assert(answer.bytes === byteLength, `A fill of ${byteLength} bytes installed ${answer.bytes}`);
    if (isZero) this.#bytesZeroed += byteLength;
    else this.#bytesCopied += byteLength;
    setBits(this.#brought, first, until);
  }

  expectedSum(pages: Uint32Array, image: Image): number {
    let sum = 0;
    for (const page of pages) sum = (sum + (image.firstWords[page] ?? 0)) >>> 0;
    return sum;
  }

  counters(): PagingCounters {
    return { faults: this.#faults, bytesCopied: this.#bytesCopied, bytesZeroed: this.#bytesZeroed };
  }

  pagesBrought(): Uint32Array {
    return this.#brought;
  }

  residentPages(): Uint8Array {
    const states = new SystemAddressSpace("software", this.#process).pages(
      this.#address,
      this.#image.byteLength,
    );
    return Uint8Array.from(states, ({ resident }) => Number(resident));
  }

  readMemory(offset: number, target: Uint8Array): void {
    for (let done = 0; done < target.byteLength; ) {
      const count = Math.min(this.#staging.bytes.byteLength, target.byteLength - done);
      this.#readOut(this.#address + offset + done, count);
      target.set(this.#staging.bytes.subarray(0, count), done);
      done += count;
    }
  }

  /** process_vm_readv(2) into the staging memory. */
  #readOut(address: number, byteLength: number): void {
    const { view, address: scratch } = this.#process.scratch;
    for (const [index, word] of [this.#staging.address, byteLength, address, byteLength].entries()) {
      writeWord(view, index * 8, word);
    }
    const count = this.#process.call("process_vm_readv", this.#process.pid, scratch, 1, scratch + 16, 1, 0);
    assert(count === byteLength, `process_vm_readv answered ${count}`);
  }

  async close(): Promise<void> {
    this.#system.close();
  }
}
