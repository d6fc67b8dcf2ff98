// A bare process of the real kernel: no libc, no code but the loop of program.ts, everything it does told from here.
//
// It dies with us in every way: killed on close, killed at exit, killed by the kernel when the thread that started it
// ends. A forked process is born as our child too (CLONE_PARENT), so that we can wait for it and the same holds.

import { ERRNO } from "../../abi/errno.ts";
import { SIGNAL } from "../../abi/memory.ts";
import { type Word, writeWord } from "../../abi/structs.ts";
import type { Process, Scratch, SyscallName } from "../../abi/system.ts";
import { assert, MinorfaultError } from "../../base/errors.ts";
import {
  failure,
  local,
  pidfdGetfd,
  pidfdOpen,
  reap,
  setAffinity,
  signal,
  syscallNumbers,
  waitForEnd,
} from "../../linux/index.ts";
import type { Birth, Family } from "./family.ts";
import { STACK_TOP } from "./layout.ts";
import { PR_SET_PDEATHSIG, SA } from "./program.ts";
import { settle } from "./settle.ts";
import { Slot } from "./slot.ts";
import { DEATH_HINT, GuestThread } from "./thread.ts";
import { measureTickRate } from "./ticks.ts";

const NR = syscallNumbers("x64");
/** How often a wait looks whether the process still lives: soon at first, since who exits does it at once. */
const LIFE_MS_FIRST = 1;
const LIFE_MS_MAX = 50;

/** CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM. */
const CLONE_THREAD = 0x50f00;
const CLONE_PARENT = 0x8000;

export class GuestProcess implements Process {
  readonly pid: number;
  readonly scratch: Scratch;
  readonly #family: Family;
  readonly #control: GuestThread;
  readonly #slot: Slot;
  readonly #slots: Slot[] = [];
  readonly #threads: GuestThread[] = [];
  #pidfd = -1;
  #exited: number | undefined;
  #tickRate: number | undefined;

  /** @internal Made by the system, and by fork. */
  constructor(family: Family, pid: number, slot: Slot) {
    this.#family = family;
    this.pid = pid;
    this.#slot = slot;
    this.#slots.push(slot);
    this.scratch = slot.scratch;
    this.#pidfd = pidfdOpen(pid);
    this.#control = this.#thread(pid, slot);
    family.members.add(this);
  }

  get threads(): readonly GuestThread[] {
    return this.#threads;
  }

  #thread(tid: number, slot: Slot): GuestThread {
    return new GuestThread(this.pid, tid, slot, this.#family.program, () => this.exited !== undefined);
  }

  // ── calls of the control thread ──

  call(name: SyscallName, ...args: readonly Word[]): number {
    const result = this.#run({ entry: this.#family.program.at("call"), number: NR[name], args }, name);
    // The kernel forgets the wish to die with the parent when a thread becomes another user.
    if (name === "setresuid" && result === 0) this.call("prctl", PR_SET_PDEATHSIG, SIGNAL.SIGKILL);
    // Whoever asks a process to exit cannot be answered by it.
    return result ?? (name === "exit_group" ? 0 : this.#throwEnded(name));
  }

  ioctl(fd: number, request: number, argument: Word): number {
    return this.call("ioctl", fd, request, argument);
  }

  read(fd: number, address: Word, byteLength: number): number {
    return this.call("read", fd, address, byteLength);
  }

  share(byteLength: number): Scratch & { close(): void } {
    return this.#family.control.share(byteLength);
  }

  /** Runs a command on the control thread; undefined if the process ended in it. */
  #run(what: Parameters<Slot["submit"]>[0], name: string): number | undefined {
    if (this.exited !== undefined) this.#throwEnded(name);
    this.#control.submit(what);
    if (!this.#awaitCommand(name, "Calls that may wait belong on a thread of the process, not on `call`")) {
      return undefined;
    }
    const ending = this.#slot.ending;
    assert(ending.kind === "value", `${name} of process ${this.pid} ended in a signal`);
    return ending.value;
  }

  /** Waits for the control thread; false if the process ended instead. */
  #awaitCommand(name: string, hint: string): boolean {
    const { deadlineMs } = this.#family;
    const until = performance.now() + deadlineMs;
    for (let slice = LIFE_MS_FIRST; !this.#slot.wait(slice); slice = Math.min(2 * slice, LIFE_MS_MAX)) {
      if (this.exited !== undefined) return false;
      if (performance.now() <= until) continue;
      const message = `${name} of process ${this.pid} had not returned after ${deadlineMs} ms`;
      throw new MinorfaultError("ERR_DEADLINE", message, { operation: name, hint });
    }
    return true;
  }

  #throwEnded(name: string): never {
    throw new MinorfaultError("ERR_CLOSED", `Process ${this.pid} has ended, ${name} cannot be called in it`, {
      errno: ERRNO.ESRCH,
      operation: name,
      hint: DEATH_HINT,
    });
  }

  // ── threads and forks ──

  spawnThread(): GuestThread {
    const slot = new Slot(this.#family.control);
    const entry = this.#family.program.at("clone");
    const args = [CLONE_THREAD, slot.address + STACK_TOP, 0, 0, 0, slot.address];
    const tid = this.#run({ entry, args }, "clone") ?? this.#throwEnded("clone");
    if (tid < 0) {
      slot.release();
      throw failure(tid, "clone", { subject: `process ${this.pid}` });
    }
    this.#slots.push(slot);
    const thread = this.#thread(tid, slot);
    this.#threads.push(thread);
    return thread;
  }

  /** The fork runs on a new thread, since EVENT_FORK may hold it for long. */
  fork(): { readonly thread: GuestThread; readonly child: () => GuestProcess | undefined } {
    const family = this.#family;
    const thread = this.spawnThread();
    const slot = new Slot(family.control);
    // The first command is there before the child is: its end tells that the child runs, and under which id.
    slot.submit({ entry: family.program.at("call"), number: NR.getpid, args: [] });
    const args = [CLONE_PARENT | SIGNAL.SIGCHLD, slot.address + STACK_TOP, 0, 0, 0, slot.address];
    thread.submit({ entry: family.program.at("clone"), args });
    let child: GuestProcess | undefined;
    const birth: Birth = {
      slot,
      child: () => {
        if (child !== undefined || family.closed) return child;
        const { ending } = thread;
        const born = slot.done ? slot.result : ending?.kind === "value" ? ending.value : 0;
        if (born > 0) {
          child = new GuestProcess(family, born, slot);
          child.awaitBirth();
        }
        // Born, refused, or never to be: the forking thread has ended before.
        if (born > 0 || ending !== undefined) family.births.delete(birth);
        return child;
      },
    };
    family.births.add(birth);
    return { thread, child: birth.child };
  }

  /** @internal Waits until the first command, given before the process was started, has ended. */
  awaitBirth(): void {
    if (!this.#awaitCommand("The first command", "The machine may be overloaded")) {
      throw new MinorfaultError("ERR_UNSUPPORTED_HOST", `Process ${this.pid} ended before it began`);
    }
  }

  settle(): void {
    settle(() => this.#family.threads(), this.#family.deadlineMs);
  }

  /** Confines the control thread and all threads to one CPU. */
  pin(cpu: number): void {
    setAffinity(local, [cpu], this.pid);
    for (const thread of this.#threads) thread.pin(cpu);
  }

  // ── what it has ──

  /** A duplicate of one of its descriptors, in this process. */
  descriptor(remoteFd: number): number {
    return pidfdGetfd(this.#pidfd, remoteFd);
  }

  /** Catches SIGUSR1: the handler counts it. With `restart`, interrupted system calls go on by themselves. */
  catchUserSignal(options: { readonly restart: boolean }): void {
    const { program } = this.#family;
    const { view, address } = this.scratch;
    writeWord(view, 0, program.at("onUserSignal"));
    writeWord(view, 8, SA.SIGINFO | SA.RESTORER | (options.restart ? SA.RESTART : 0));
    writeWord(view, 16, program.at("restorer"));
    writeWord(view, 24, 0);
    const result = this.call("rt_sigaction", SIGNAL.SIGUSR1, address, 0, 8);
    assert(result === 0, `rt_sigaction answered ${result}`);
  }

  /** Ticks of the time stamp counter per second, which is what a walk's record is in. Takes some 20 ms once. */
  tickRate(): number {
    this.#tickRate ??= measureTickRate(() => this.#stamp());
    return this.#tickRate;
  }

  #stamp(): number {
    const stamp = this.#run({ entry: this.#family.program.at("stamp"), args: [] }, "rdtsc");
    return stamp ?? this.#throwEnded("rdtsc");
  }

  // ── its end ──

  get exited(): number | undefined {
    if (this.#exited === undefined) {
      this.#exited = reap(this.pid);
      if (this.#exited !== undefined) this.#bury();
    }
    return this.#exited;
  }

  kill(): void {
    if (this.exited !== undefined) return;
    signal(this.pid, SIGNAL.SIGKILL);
    if (!waitForEnd(this.#pidfd, this.#family.deadlineMs)) {
      throw new MinorfaultError(
        "ERR_DEADLINE",
        `Process ${this.pid} survived SIGKILL for ${this.#family.deadlineMs} ms`,
      );
    }
    assert(this.exited !== undefined, `Process ${this.pid} has ended but cannot be waited for`);
  }

  /** Nothing of it runs any more: what was kept for it is free. */
  #bury(): void {
    this.#control.end();
    for (const thread of this.#threads) thread.end();
    for (const slot of this.#slots) slot.release();
    local.call("close", this.#pidfd);
    this.#family.bury(this);
  }
}
