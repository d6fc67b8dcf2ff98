// One process of a running case: its memory areas, descriptors and threads under the names the case gave them.
//
// The case's steps are performed here. Nothing sleeps: what a thread is doing is asked of the process after
// `settle`, which returns when nothing more happens by itself.

import { errnoName } from "../../abi/errno.ts";
import { MAP, O, PAGE_SIZE, PROT } from "../../abi/memory.ts";
import type { UffdMessage } from "../../abi/message.ts";
import type { Word as Word64 } from "../../abi/structs.ts";
import type { Operation, Process, SyscallName, Thread } from "../../abi/system.ts";
import { type Area, AreaTable } from "./areas.ts";
import type { Machine } from "./machine.ts";
import { isMaskName } from "./masks.ts";
import { CaseProblem } from "./problem.ts";
import { BLOCKED, type EndingContext, endingTokens, type Task, type Token } from "./task.ts";

const AT_FDCWD = -100;
/** The first pages of the scratch memory are for reading and writing in bulk; small structs are placed behind. */
const BULK_BYTES = 2 * PAGE_SIZE;

interface Descriptor {
  readonly fd: number;
  /** Opened without O_NONBLOCK: a read from it may wait. */
  readonly blocking: boolean;
}

interface Running {
  readonly thread: Thread;
  task: Task | undefined;
}

export class Actor {
  readonly name: string;
  readonly process: Process;
  readonly machine: Machine;
  readonly areas: AreaTable;
  /** The message that was read last, and its bytes. */
  lastMessage: UffdMessage | undefined;
  lastBytes: Uint8Array = new Uint8Array(0);
  readonly #descriptors = new Map<string, Descriptor>();
  readonly #files = new Map<string, number>();
  readonly #threads = new Map<string, Running>();
  #scratchUsed = BULK_BYTES;
  #caught = false;

  constructor(machine: Machine, name: string, process: Process, parent?: Actor) {
    this.machine = machine;
    this.name = name;
    this.process = process;
    this.areas = new AreaTable(this, parent?.areas);
    for (const [key, descriptor] of parent?.descriptors ?? []) this.#descriptors.set(key, descriptor);
  }

  // ── memory ──

  area(name: string): Area {
    return this.areas.get(name);
  }

  /** Bytes of a page of the area; asking does not create it. */
  pageBytes(name: string): number {
    return this.areas.pageBytes(name);
  }

  mask(name: string): string {
    if (!isMaskName(name)) throw new CaseProblem(`There is no mask ${name}`);
    return this.machine.masks[name];
  }

  /** An address as cases say it: relative to the area it lies in, or literal. */
  relative(address: number): string {
    const base = this.areas.containing(address)?.base;
    return base === undefined ? `@0x${address.toString(16)}` : `0x${(address - base).toString(16)}`;
  }

  /** "0x0,0x2000" for a range, both relative to the area where it starts. */
  relativeRange(start: number, until: number): string {
    const base = this.areas.containing(start)?.base ?? 0;
    return `0x${(start - base).toString(16)},0x${(until - base).toString(16)}`;
  }

  /** Bytes in the scratch memory that stay put for the rest of the case; answers their offset. */
  allocate(byteLength: number): number {
    const offset = this.#scratchUsed;
    this.#scratchUsed += Math.ceil(byteLength / 16) * 16;
    if (this.#scratchUsed > this.process.scratch.bytes.length) {
      throw new CaseProblem(`A scratch memory of ${this.process.scratch.bytes.length} bytes is too small`);
    }
    return offset;
  }

  /** Address of a string, terminated by 0. */
  text(value: string): number {
    const bytes = new TextEncoder().encode(value);
    const offset = this.allocate(bytes.length + 1);
    this.process.scratch.bytes.set(bytes, offset);
    this.process.scratch.bytes[offset + bytes.length] = 0;
    return this.process.scratch.address + offset;
  }

  /** A page that can be read but not written, with these bytes at its start; answers its address. */
  readOnly(bytes: Uint8Array): number {
    const area = this.areas.anonymous(1);
    for (const [index, value] of bytes.entries()) {
      this.mustPerform({ kind: "store", address: area.base + index, value });
    }
    this.must("mprotect", area.base, PAGE_SIZE, PROT.READ);
    return area.base;
  }

  // ── system calls ──

  /** A call that has to succeed for the case to make sense. */
  must(name: SyscallName, ...args: readonly Word64[]): number {
    const result = this.process.call(name, ...args);
    if (result < 0) throw new CaseProblem(`${name}(${args.join(", ")}) answered ${errnoName(result)}`);
    return result;
  }

  /** A descriptor that is opened when it is first needed, once a process. */
  once(key: string, open: () => number): number {
    const known = this.#files.get(key);
    if (known !== undefined) return known;
    const fd = open();
    this.#files.set(key, fd);
    return fd;
  }

  /** Opens a file by path. /proc/self is another file in every process, so children open their own. */
  file(path: string, flags: number = O.RDONLY): number {
    return this.once(`${path} ${flags}`, () =>
      this.must("openat", AT_FDCWD, this.text(path), flags | O.CLOEXEC, 0),
    );
  }

  /** A file in memory that takes what write(2) writes. */
  sink(): number {
    return this.once("sink", () => this.must("memfd_create", this.text("sink"), 0));
  }

  /** Reads a whole file of /proc, which gives what it likes to give at a time. */
  contents(path: string): string {
    const fd = this.must("openat", AT_FDCWD, this.text(path), O.RDONLY | O.CLOEXEC, 0);
    const { address, bytes } = this.process.scratch;
    const pieces: string[] = [];
    for (;;) {
      const length = this.must("read", fd, address, BULK_BYTES);
      if (length === 0) break;
      pieces.push(new TextDecoder().decode(bytes.slice(0, length)));
    }
    this.must("close", fd);
    return pieces.join("");
  }

  /** Fills whole pages with one byte each. */
  fillPages(address: number, values: readonly number[]): void {
    const fd = this.must("memfd_create", this.text("source"), 0);
    const { scratch } = this.process;
    for (const [index, value] of values.entries()) {
      scratch.bytes.fill(value, 0, PAGE_SIZE);
      this.must("write", fd, scratch.address, PAGE_SIZE);
      this.must("pread64", fd, address + index * PAGE_SIZE, PAGE_SIZE, index * PAGE_SIZE);
    }
    this.must("close", fd);
  }

  /** Fresh memory at an address where nothing is. */
  mapAnonymous(address: number, byteLength: number, protection: number, flags: number): void {
    this.must("mmap", address, byteLength, protection, MAP.ANONYMOUS | MAP.FIXED_NOREPLACE | flags, -1, 0);
  }

  // ── descriptors ──

  get descriptors(): ReadonlyMap<string, Descriptor> {
    return this.#descriptors;
  }

  descriptor(name: string): Descriptor {
    const found = this.#descriptors.get(name);
    if (found === undefined) throw new CaseProblem(`No descriptor ${name} has been opened`);
    return found;
  }

  nameDescriptor(name: string, fd: number, blocking: boolean): void {
    this.#descriptors.set(name, { fd, blocking });
  }

  // ── threads ──

  /** A handler for SIGUSR1. One with SA_RESTART stays when one without is asked for later. */
  catchUserSignal(restart: boolean): void {
    if (this.#caught && !restart) return;
    this.process.catchUserSignal({ restart });
    this.#caught = true;
  }

  /** Gives a task to a thread by name, and returns when the thread has ended it or waits in the kernel. */
  start(name: string, task: Task): void {
    const running = this.#threads.get(name) ?? this.#adopt(name);
    if (running.thread.state !== "idle") throw new CaseProblem(`Thread ${name} is still busy`);
    running.task = task;
    running.thread.start(task.operation);
    this.machine.settle();
  }

  /** The tokens of what a thread has come to. */
  outcome(name: string): Token[] {
    this.machine.settle();
    const { thread, task } = this.#running(name);
    if (task === undefined) throw new CaseProblem(`Thread ${name} has nothing to do`);
    if (thread.ending === undefined) return [BLOCKED];
    return endingTokens(task, thread.ending, this.#context(true));
  }

  thread(name: string): Thread {
    return this.#running(name).thread;
  }

  /** Makes a thread of the process known by a name. */
  nameThread(name: string, thread: Thread, task: Task): void {
    this.#threads.set(name, { thread, task });
  }

  /** Performs a task by a thread that nobody named, and says at once what became of it. */
  perform(task: Task): Token[] {
    if (task.typed !== undefined) return task.typed();
    if (task.prompt && task.operation.kind === "call") {
      return task.render(this.process.call(task.operation.name, ...task.operation.args), false);
    }
    const thread = this.#spare();
    thread.start(task.operation);
    this.machine.settle();
    if (thread.ending === undefined) return [BLOCKED];
    return endingTokens(task, thread.ending, this.#context(false));
  }

  /** An operation that has to end well for the case to make sense; answers its value. */
  mustPerform(operation: Operation): number {
    const thread = this.#spare();
    thread.start(operation);
    this.machine.settle();
    const { ending } = thread;
    if (ending?.kind === "value") return ending.value;
    const what = ending === undefined ? "blocks" : `ended with ${JSON.stringify(ending)}`;
    throw new CaseProblem(`A ${operation.kind} that prepares the case ${what}`);
  }

  #context(named: boolean): EndingContext {
    return { named, relative: (address) => this.relative(address) };
  }

  /** An idle thread that has no name. */
  #spare(): Thread {
    const named = new Set([...this.#threads.values()].map((running) => running.thread));
    const idle = this.process.threads.find((thread) => !named.has(thread) && thread.state === "idle");
    return idle ?? this.process.spawnThread();
  }

  #adopt(name: string): Running {
    const running: Running = { thread: this.process.spawnThread(), task: undefined };
    this.#threads.set(name, running);
    return running;
  }

  #running(name: string): Running {
    const running = this.#threads.get(name);
    if (running === undefined) throw new CaseProblem(`Thread ${name} was never started`);
    return running;
  }
}
