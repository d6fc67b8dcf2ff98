// A thread: begins operations, stands in faults and calls, takes signals.
//
// An access of its own needs no memory of how far it came: when the thread is woken, the instruction is simply
// executed again. A system call that has to wait is a generator that stands where it waits.

import { ERRNO } from "../../abi/errno.ts";
import { BUS, SEGV, SIGNAL } from "../../abi/memory.ts";
import type { Ending, Operation, Thread } from "../../abi/system.ts";
import { assert, MinorfaultError } from "../../base/errors.ts";
import { type Access, performAccess, repeatFault } from "./access.ts";
import { FaultWaiter, type Sleeper } from "./context.ts";
import { FAULT, type Faulter } from "./fault.ts";
import type { SoftwareProcess } from "./process.ts";
import { type Blocking, type Runnable, SLEEP, type Sleep } from "./scheduler.ts";
import { performCall } from "./syscall-table.ts";
import { unsigned } from "./words.ts";

/** What a call answers when a signal interrupted it before it did anything: it may begin anew by itself. */
export const RESTART = -512;
const GONE: Ending = { kind: "gone" };

export class SoftwareThread implements Thread, Sleeper, Faulter, Runnable {
  readonly tid: number;
  readonly process: SoftwareProcess;
  readonly waiter: FaultWaiter = new FaultWaiter(this);
  signalsHandled = 0;
  #ending: Ending | undefined;
  #access: Access | undefined;
  #call: (Operation & { readonly kind: "call" }) | undefined;
  #body: Blocking<number> | undefined;
  #sleep: Sleep | 0 = 0;
  /** It was woken in a fault of its own access: the system tries that fault again before the access. */
  #refault = false;
  /** In the scheduler's queue, or running. */
  #awake = false;
  #dead = false;
  readonly #signals: number[] = [];

  constructor(process: SoftwareProcess, tid: number) {
    this.process = process;
    this.tid = tid;
  }

  get state(): "idle" | "running" | "blocked" {
    if (this.#access === undefined && this.#call === undefined) return "idle";
    return this.#awake ? "running" : "blocked";
  }

  get ending(): Ending | undefined {
    return this.#ending;
  }

  /** A signal waits to be handled. */
  get signalled(): boolean {
    return this.#signals.length > 0;
  }

  start(operation: Operation): void {
    if (this.#dead) throw new MinorfaultError("ERR_CLOSED", `Thread ${this.tid} has ended`);
    if (this.state !== "idle") {
      throw new MinorfaultError("ERR_BUSY", `Thread ${this.tid} has not ended its operation`);
    }
    this.#ending = undefined;
    if (operation.kind === "call") {
      this.#call = operation;
    } else {
      this.#access = {
        kind: operation.kind,
        address: unsigned(operation.address),
        size: operation.kind === "load" ? operation.size : operation.kind === "add" ? 8 : 1,
        value: operation.kind === "store" || operation.kind === "add" ? operation.value : 0,
        result: 0,
        faultAddress: 0,
      };
    }
    this.#awake = true;
    this.run();
    this.process.scheduler.drain();
  }

  /** Starts a computation of the system itself, as a call without a name. */
  startBody(name: Operation & { readonly kind: "call" }, body: Blocking<number>): void {
    this.#ending = undefined;
    this.#call = name;
    this.#body = body;
    this.#awake = true;
    this.run();
    this.process.scheduler.drain();
  }

  // ── as the scheduler and the contexts see it ──

  wake(): void {
    if (this.#awake || this.#dead || this.state === "idle") return;
    this.#awake = true;
    this.process.scheduler.ready(this);
  }

  messageRead(): void {
    // With a signal pending, a fault of a system call does not sleep: it is raised again and again. Here, whenever
    // somebody takes notice, so that the system comes to rest.
    if (this.#sleep !== SLEEP.KERNEL_FAULT || !this.signalled) return;
    this.waiter.list?.remove(this.waiter);
    this.wake();
  }

  run(): void {
    if (this.#dead || this.process.ending) return;
    this.#sleep = 0;
    if (this.#access !== undefined) this.#runAccess(this.#access);
    else if (this.#call !== undefined) this.#runCall(this.#call);
  }

  #runAccess(access: Access): void {
    this.waiter.list?.remove(this.waiter);
    const again = this.#refault && !this.signalled;
    this.#refault = false;
    this.#handleSignals();
    const { space } = this.process;
    let result: number = again ? repeatFault(space, this, access) : FAULT.DONE;
    if (result === FAULT.DONE) result = performAccess(space, this, access);
    if (result === FAULT.WAIT) {
      this.#refault = true;
      this.#sleep = SLEEP.USER_FAULT;
      this.#awake = false;
    } else if (result === FAULT.DONE) {
      this.#end({ kind: "value", value: access.result });
    } else {
      const isBus = result === FAULT.BUS || result === FAULT.POISON;
      const signal = isBus ? SIGNAL.SIGBUS : SIGNAL.SIGSEGV;
      const code = isBus ? BUS.ADRERR : result === FAULT.UNMAPPED ? SEGV.MAPERR : SEGV.ACCERR;
      this.#end({ kind: "signal", signal, code, address: access.faultAddress });
    }
  }

  #runCall(call: Operation & { readonly kind: "call" }): void {
    for (;;) {
      const result = this.#step(call);
      if (result === undefined) {
        this.#awake = false;
        return;
      }
      this.#body = undefined;
      if (this.process.ending) return;
      if (result !== RESTART) {
        this.#end({ kind: "value", value: result });
        this.#handleSignals();
        return;
      }
      // Interrupted before it did anything: as the handler wants it.
      if (!this.#handleSignals()) {
        this.#end({ kind: "value", value: -ERRNO.EINTR });
        return;
      }
    }
  }

  /** Goes on with a call as far as it comes: its result, or undefined while it waits. */
  #step(call: Operation & { readonly kind: "call" }): number | undefined {
    if (this.#body === undefined) {
      const started = performCall(this, call.name, call.args);
      if (typeof started === "number") return started;
      this.#body = started;
    }
    const { done, value } = this.#body.next();
    if (done) return value;
    this.#sleep = value as Sleep;
    return undefined;
  }

  #end(ending: Ending): void {
    this.#access = undefined;
    this.#call = undefined;
    this.#body = undefined;
    this.#awake = false;
    this.#ending = ending;
  }

  // ── signals and death ──

  /** Delivers a signal that is caught: at once, or when what the thread does lets it. */
  interrupt(signal: number): void {
    // A signal that is pending already is not pending twice.
    if (!this.#signals.includes(signal)) this.#signals.push(signal);
    if (this.state === "idle") this.#handleSignals();
    else if (this.#sleep === SLEEP.USER_FAULT || this.#sleep === SLEEP.INTERRUPTIBLE) this.wake();
    else this.messageRead();
  }

  /** Runs the handlers of what is pending; true if a call that they interrupted begins anew. */
  #handleSignals(): boolean {
    let restart = true;
    while (this.#signals.length > 0) {
      const signal = this.#signals.shift()!;
      this.signalsHandled++;
      restart &&= this.process.disposition(signal).restart;
    }
    return restart;
  }

  /** The end of the thread, whatever it was doing. */
  kill(): void {
    if (this.#dead) return;
    this.#dead = true;
    const busy = this.state !== "idle";
    // Its `finally` blocks take it out of every queue.
    this.#body?.return(0);
    this.waiter.list?.remove(this.waiter);
    assert(this.waiter.list === undefined, "A dead thread stands in a queue");
    this.#end(busy ? GONE : (this.#ending ?? GONE));
  }
}
