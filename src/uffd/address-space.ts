// `AddressSpace` over a process of either system: mapping calls by the process's control thread, accesses by
// threads of that process, since whoever touches paged memory may have to wait for its pager.

import { ERRNO, errnoName } from "../abi/errno.ts";
import { HUGE_PAGE_SIZE, MADV, MAP, MREMAP, O, PAGE_SIZE, PROT } from "../abi/memory.ts";
import type { Operation, Process, SyscallName, Thread } from "../abi/system.ts";
import { hex, MinorfaultError } from "../base/errors.ts";
import { roundUp } from "../base/range.ts";
import { checkBytes, checkNumber, checkOneOf, checkOptions, checkPages } from "./arguments.ts";
import type { AddressSpace, MemoryKind, PageState, Protection, WrittenRange } from "./contract.ts";
import { type OpenOptions, openPath, openUserfaultfd } from "./open.ts";
import type { SystemUserfaultfd } from "./userfaultfd.ts";
import { scanWritten } from "./written.ts";

/** LIMIT: accesses and forks that may wait at the same time, each of them a thread of the process. */
const ACCESSES_MAX = 256;
const READ_WRITE: Protection = { read: true, write: true };
const MEMORY_KINDS: readonly MemoryKind[] = ["private", "shared", "huge"];
/** LIMIT: pages of which `pages` answers the state at a time (16 GiB of memory). */
const PAGES_MAX = 2 ** 22;
const BYTE_MAX = 255;
const PRESENT = 1n << 63n;
const WRITE_PROTECTED = 1n << 57n;
/** Pages asked of /proc/PID/pagemap by one call. */
const PAGES_PER_READ = 1024;

export class SystemAddressSpace implements AddressSpace {
  readonly implementation: "kernel" | "software";
  readonly process: Process;
  readonly #idle: Thread[] = [];
  #accesses = 0;
  #pagemap = -1;

  constructor(implementation: "kernel" | "software", process: Process) {
    this.implementation = implementation;
    this.process = process;
  }

  /** A userfaultfd on this memory. */
  openUserfaultfd(options?: OpenOptions): SystemUserfaultfd {
    return openUserfaultfd(this.implementation, this.process, options);
  }

  /** Returns when every access is done or waits for its page: messages, if any, are there to be read. */
  settle(): void {
    this.process.settle();
  }

  map(
    byteLength: number,
    options: { readonly kind?: MemoryKind; readonly protection?: Protection; readonly at?: number } = {},
  ): number {
    checkNumber("map length", byteLength);
    checkOptions("map", options);
    const { kind = "private", protection = READ_WRITE, at } = options;
    checkOneOf("A kind of memory", kind, MEMORY_KINDS);
    const unit = kind === "huge" ? HUGE_PAGE_SIZE : PAGE_SIZE;
    checkPages("map", at ?? unit, roundUp(byteLength, unit));
    const flags =
      MAP.ANONYMOUS |
      MAP.NORESERVE |
      (kind === "shared" ? MAP.SHARED : MAP.PRIVATE) |
      (kind === "huge" ? MAP.HUGETLB : 0) |
      (at === undefined ? 0 : MAP.FIXED_NOREPLACE);
    const length = roundUp(byteLength, unit);
    return this.#call("mmap", at ?? 0, length, protectionBits(protection), flags, -1, 0);
  }

  async unmap(start: number, byteLength: number): Promise<void> {
    checkPages("unmap", start, byteLength);
    await this.#patientCall("munmap", start, byteLength);
  }

  async remap(start: number, byteLength: number, newByteLength: number, to?: number): Promise<number> {
    checkPages("remap", start, byteLength);
    checkPages("remap target", to ?? start, newByteLength);
    const flags = MREMAP.MAYMOVE | (to === undefined ? 0 : MREMAP.FIXED);
    return await this.#patientCall("mremap", start, byteLength, newByteLength, flags, to ?? 0);
  }

  protect(start: number, byteLength: number, protection: Protection): void {
    checkPages("protect", start, byteLength);
    this.#call("mprotect", start, byteLength, protectionBits(protection));
  }

  async discard(start: number, byteLength: number): Promise<void> {
    checkPages("discard", start, byteLength);
    await this.#patientCall("madvise", start, byteLength, MADV.DONTNEED);
  }

  pages(start: number, byteLength: number): PageState[] {
    checkPages("pages", start, byteLength);
    if (byteLength / PAGE_SIZE > PAGES_MAX) {
      const message = `pages answers at most ${PAGES_MAX} pages at a time (PAGES_MAX), got ${byteLength} bytes`;
      throw new MinorfaultError("ERR_LIMIT", message, { address: start, byteLength });
    }
    const fd = this.#openPagemap();
    const { scratch } = this.process;
    const states: PageState[] = [];
    const count = byteLength / PAGE_SIZE;
    for (let first = 0; first < count; first += PAGES_PER_READ) {
      const pages = Math.min(PAGES_PER_READ, count - first);
      const offset = (start / PAGE_SIZE + first) * 8;
      const read = this.#call("pread64", fd, scratch.address, pages * 8, offset);
      for (let at = 0; at < read; at += 8) {
        const entry = scratch.view.getBigUint64(at, true);
        states.push({ resident: (entry & PRESENT) !== 0n, writeProtected: (entry & WRITE_PROTECTED) !== 0n });
      }
      if (read < pages * 8) break;
    }
    return states;
  }

  written(start: number, byteLength: number, options: { readonly protect?: boolean } = {}): WrittenRange[] {
    checkPages("written", start, byteLength);
    const fd = this.#openPagemap();
    const ranges = scanWritten(this.process, fd, start, byteLength, options);
    if (typeof ranges === "number") this.#check("PAGEMAP_SCAN", ranges);
    return ranges as WrittenRange[];
  }

  async load(address: number, signal?: AbortSignal): Promise<number> {
    checkBytes("load", address, 1);
    return await this.#access({ kind: "load", address, size: 1 }, address, signal);
  }

  async store(address: number, value: number, signal?: AbortSignal): Promise<void> {
    checkBytes("store", address, 1);
    checkNumber("store value", value);
    if (value > BYTE_MAX) {
      throw new MinorfaultError(
        "ERR_OUT_OF_RANGE",
        `store value is one byte, 0 to ${BYTE_MAX}, got ${value}`,
      );
    }
    await this.#access({ kind: "store", address, value }, address, signal);
  }

  async fork(signal?: AbortSignal): Promise<SystemAddressSpace> {
    this.#enter();
    try {
      const { child, thread } = this.process.fork();
      for (const waiting = new Patience(signal); ; await waiting.turn()) {
        const process = child();
        if (process !== undefined) return new SystemAddressSpace(this.implementation, process);
        // A fork that failed has no child, and the thread that made it says why.
        if (thread.ending?.kind === "value") this.#check("clone", thread.ending.value);
        if (thread.ending?.kind === "gone") throw new MinorfaultError("ERR_CLOSED", "The process has ended");
      }
    } finally {
      this.#accesses--;
    }
  }

  async #access(operation: Operation, address: number, signal?: AbortSignal): Promise<number> {
    this.#enter();
    const thread = this.#idle.pop() ?? this.process.spawnThread();
    thread.start(operation);
    try {
      for (const waiting = new Patience(signal); thread.ending === undefined; ) await waiting.turn();
    } finally {
      this.#accesses--;
      // A thread whose access was given up still stands there; it is not used again.
      if (thread.ending !== undefined) this.#idle.push(thread);
    }
    const ending = thread.ending;
    if (ending?.kind === "value") return ending.value;
    const what =
      ending?.kind === "signal" ? `signal ${ending.signal} (code ${ending.code})` : "the process's end";
    throw new MinorfaultError("ERR_MEMORY_FAULT", `The access to ${hex(address)} ended in ${what}`, {
      operation: operation.kind,
      address,
    });
  }

  /** A call that may have to wait for somebody to read its event: by a thread of its own. */
  async #patientCall(name: SyscallName, ...args: number[]): Promise<number> {
    const [address = 0] = args;
    return this.#check(name, await this.#access({ kind: "call", name, args }, address), address);
  }

  #enter(): void {
    if (this.#accesses >= ACCESSES_MAX) {
      throw new MinorfaultError("ERR_LIMIT", `${ACCESSES_MAX} accesses are waiting already (ACCESSES_MAX)`);
    }
    this.#accesses++;
  }

  #openPagemap(): number {
    if (this.#pagemap < 0) {
      const fd = openPath(this.process, "/proc/self/pagemap", O.RDONLY | O.CLOEXEC);
      this.#pagemap = this.#check("openat /proc/self/pagemap", fd);
    }
    return this.#pagemap;
  }

  #call(...call: Parameters<Process["call"]>): number {
    return this.#check(call[0], this.process.call(...call), call[1]);
  }

  #check(operation: string, result: number, address?: number | bigint): number {
    if (result >= 0) return result;
    const hint = -result === ERRNO.ENOMEM ? "No memory, no huge page, or too many mappings" : undefined;
    const where = address === undefined ? "" : ` at address ${hex(Number(address))}`;
    throw new MinorfaultError("ERR_SYSCALL", `${operation} failed with ${errnoName(result)}${where}`, {
      errno: -result,
      operation,
      ...(address === undefined ? {} : { address: Number(address) }),
      ...(hint === undefined ? {} : { hint }),
    });
  }
}

function protectionBits(protection: Protection): number {
  checkOptions("protection", protection);
  return (
    (protection.read ? PROT.READ : 0) |
    (protection.write ? PROT.WRITE : 0) |
    (protection.execute ? PROT.EXEC : 0)
  );
}

/** Looks again soon at first, seldom later: a fault is served in microseconds or takes a network's time. */
class Patience {
  readonly #signal: AbortSignal | undefined;
  #turns = 0;

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  async turn(): Promise<void> {
    this.#signal?.throwIfAborted();
    const delayMs = Math.min(10, this.#turns++ >> 6);
    await new Promise((resolve) => setTimeout(resolve, delayMs));
  }
}
