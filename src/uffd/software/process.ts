// A process: memory, descriptors, credentials, threads, signal dispositions, and its end.

import { PAGE_SIZE, PROT, SIGNAL } from "../../abi/memory.ts";
import type { Word } from "../../abi/structs.ts";
import type { Process, Scratch, SyscallName } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { AddressSpace } from "./address-space.ts";
import { Descriptors } from "./descriptors.ts";
import { NullFile } from "./device-files.ts";
import { FastCalls } from "./fast-calls.ts";
import { forkProcess } from "./fork.ts";
import { mapWired } from "./mapping.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SoftwareSystem } from "./system.ts";
import { SoftwareThread } from "./thread.ts";
import { WaitQueue } from "./wait-queue.ts";
import { unsigned } from "./words.ts";

/** What happens on a signal. */
export interface Disposition {
  readonly kind: "default" | "ignore" | "catch";
  /** Interrupted calls begin anew (SA_RESTART). */
  readonly restart: boolean;
}

const DEFAULT: Disposition = { kind: "default", restart: true };
/** SIGCHLD, SIGCONT, SIGURG, SIGWINCH: ignored unless caught. */
const HARMLESS: ReadonlySet<number> = new Set([SIGNAL.SIGCHLD, 18, 23, 28]);
const SCRATCH_BYTES = 2 ** 18;

export class SoftwareProcess implements Process {
  readonly system: SoftwareSystem;
  readonly pid: number;
  readonly parent: SoftwareProcess | undefined;
  readonly space: AddressSpace;
  readonly descriptors: Descriptors;
  readonly children = new Set<SoftwareProcess>();
  /** Told when a child ends. */
  readonly childEnded = new WaitQueue();
  readonly scratch: Scratch;
  /** Has CAP_SYS_PTRACE, CAP_SYS_ADMIN and the like. */
  privileged: boolean;
  uid = 0;
  /** Its end has been decided. */
  ending = false;
  #exited: number | undefined;
  readonly #threads: SoftwareThread[] = [];
  readonly #hidden: SoftwareThread[] = [];
  #control: SoftwareThread;
  readonly #fast = new FastCalls(this);
  readonly #dispositions = new Map<number, Disposition>();

  /** A fresh process, or (with the parent's memory and descriptors already copied) a forked one. */
  constructor(
    system: SoftwareSystem,
    inherited?: {
      readonly parent: SoftwareProcess;
      readonly space: AddressSpace;
      readonly descriptors: Descriptors;
    },
  ) {
    this.system = system;
    this.pid = system.nextId();
    this.parent = inherited?.parent;
    this.space = inherited?.space ?? new AddressSpace(system.profile, system.pool);
    this.descriptors = inherited?.descriptors ?? new Descriptors();
    this.privileged = inherited?.parent.privileged ?? system.privileged;
    this.uid = inherited?.parent.uid ?? (system.privileged ? 0 : 65534);
    if (inherited === undefined) {
      mapWired(this.space, new Uint8Array(PAGE_SIZE), PROT.READ | PROT.EXEC, "[vdso]");
      for (let fd = 0; fd < 3; fd++) this.descriptors.add(new NullFile(2), false);
    } else {
      for (const [signal, how] of inherited.parent.#dispositions) this.#dispositions.set(signal, how);
    }
    this.scratch = this.#wire(SCRATCH_BYTES);
    this.#control = new SoftwareThread(this, this.pid);
  }

  get scheduler(): Scheduler {
    return this.system.scheduler;
  }
  get threads(): readonly SoftwareThread[] {
    return this.#threads;
  }
  get exited(): number | undefined {
    return this.#exited;
  }

  // ── calls of the control thread ──

  call(name: SyscallName, ...args: readonly Word[]): number {
    if (this.ending) {
      throw new MinorfaultError(
        "ERR_CLOSED",
        `Process ${this.pid} has ended, ${name} cannot be called in it`,
        {
          operation: name,
        },
      );
    }
    const control = this.#control;
    control.start({ kind: "call", name, args });
    const { ending } = control;
    if (ending?.kind === "value") return ending.value;
    if (ending?.kind === "gone") return 0;
    // It stands there until something lets it go on; the next call is made by another thread.
    this.#hidden.push(control);
    this.#control = new SoftwareThread(this, this.system.nextId());
    throw new MinorfaultError("ERR_DEADLINE", `${name} of process ${this.pid} would wait for ever`, {
      operation: name,
      hint: "Calls that may wait belong on a thread of the process, not on `call`",
    });
  }

  ioctl(fd: number, request: number, argument: Word): number {
    const answer = this.ending ? undefined : this.#fast.ioctl(fd, request, unsigned(argument));
    if (answer === undefined) return this.call("ioctl", fd, request, argument);
    this.scheduler.drain();
    return answer;
  }

  read(fd: number, address: Word, byteLength: number): number {
    const answer = this.ending ? undefined : this.#fast.read(fd, unsigned(address), byteLength);
    if (answer === undefined) return this.call("read", fd, address, byteLength);
    this.scheduler.drain();
    return answer;
  }

  share(byteLength: number): Scratch & { close(): void } {
    const shared = this.#wire(byteLength);
    const close = (): void => {
      const vma = this.space.vmas.at(shared.address);
      if (vma?.wired === shared.bytes) this.space.vmas.remove(vma);
    };
    return { ...shared, close };
  }

  #wire(byteLength: number): Scratch {
    const bytes = new Uint8Array(roundUp(byteLength, PAGE_SIZE));
    const address = mapWired(this.space, bytes);
    return { address, bytes, view: new DataView(bytes.buffer) };
  }

  // ── threads and forks ──

  spawnThread(): SoftwareThread {
    if (this.ending) throw new MinorfaultError("ERR_CLOSED", `Process ${this.pid} has ended`);
    const thread = new SoftwareThread(this, this.system.nextId());
    this.#threads.push(thread);
    return thread;
  }

  fork(): { readonly thread: SoftwareThread; readonly child: () => SoftwareProcess | undefined } {
    const thread = this.spawnThread();
    let child: SoftwareProcess | undefined;
    const body = forkProcess(thread, (born) => {
      child = born;
    });
    thread.startBody({ kind: "call", name: "clone", args: [] }, body);
    return { thread, child: () => child };
  }

  settle(): void {
    this.scheduler.drain();
  }

  // ── signals ──

  disposition(signal: number): Disposition {
    return this.#dispositions.get(signal) ?? DEFAULT;
  }

  setDisposition(signal: number, disposition: Disposition): void {
    this.#dispositions.set(signal, disposition);
  }

  /** Catches SIGUSR1: the handler counts it. With `restart`, interrupted system calls begin anew by themselves. */
  catchUserSignal(options: { readonly restart: boolean }): void {
    this.setDisposition(SIGNAL.SIGUSR1, { kind: "catch", restart: options.restart });
  }

  /** A signal for one of its threads, or (undefined) for whichever comes first. */
  signal(signal: number, target: SoftwareThread | undefined): void {
    if (this.ending || signal === 0) return;
    const { kind } = this.disposition(signal);
    if (kind === "ignore" && signal !== SIGNAL.SIGKILL) return;
    if (kind === "catch" && signal !== SIGNAL.SIGKILL) {
      (target ?? this.#control).interrupt(signal);
      return;
    }
    if (!HARMLESS.has(signal)) this.terminate(signal);
  }

  /** A thread by its id, the control thread included. */
  threadById(tid: number): SoftwareThread | undefined {
    if (tid === this.#control.tid || tid === this.pid) return this.#control;
    return [...this.#threads, ...this.#hidden].find((thread) => thread.tid === tid);
  }

  // ── its end ──

  /** Ends the process with a status as wait4 gives it, as soon as the thread that runs has finished its step. */
  terminate(status: number): void {
    if (this.ending) return;
    this.ending = true;
    this.scheduler.afterStep(() => {
      for (const thread of [...this.#threads, ...this.#hidden, this.#control]) thread.kill();
      // Memory goes first, then the files, as in Linux: a context that ends with the process finds no memory.
      this.space.release();
      this.descriptors.closeAll();
      this.#exited = status;
      this.system.buried(this);
      this.parent?.childEnded.wakeAll();
    });
  }

  kill(): void {
    this.terminate(SIGNAL.SIGKILL);
    this.scheduler.drain();
  }
}
