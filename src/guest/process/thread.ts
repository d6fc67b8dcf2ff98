// One thread of a bare process: begins operations, and tells how they stand.

import type { Ending, Operation, Scratch, Thread } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { local, setAffinity } from "../../linux/index.ts";
import { syscallNumbers } from "../../linux/syscall-numbers.ts";
import { type Look, Looker } from "./look.ts";
import type { Program } from "./program.ts";
import type { Command, Slot } from "./slot.ts";

const NR = syscallNumbers("x64");

/** The command for an operation. */
export function command(program: Program, operation: Operation): Command {
  switch (operation.kind) {
    case "call":
      return { entry: program.at("call"), number: NR[operation.name], args: operation.args };
    case "load":
      return { entry: program.at(operation.size === 1 ? "load1" : "load8"), args: [operation.address] };
    case "store":
    case "add":
      return { entry: program.at(operation.kind), args: [operation.address, operation.value] };
    case "execute":
      return { entry: program.at("execute"), args: [operation.address] };
    default:
      return operation satisfies never;
  }
}

/** Pages to visit, one byte each. */
export interface Walk {
  /** Address of page 0. */
  readonly base: number;
  /** Page numbers, in shared memory of the process (see `share`), or a count of pages so many pages apart. */
  readonly order:
    | { readonly list: Scratch; readonly count: number }
    | { readonly count: number; readonly stride: number };
  /** Store this byte instead of loading; absent: load. */
  readonly write?: number;
  /** Where the time of each access is noted, 32 bits each, in ticks of the time stamp counter. */
  readonly record?: Scratch;
}

/** What to do about a process that has ended. */
export const DEATH_HINT = "Look for what killed it: somebody, or the kernel for want of memory";

const GONE: Ending = { kind: "gone" };

export class GuestThread implements Thread {
  readonly tid: number;
  readonly #slot: Slot;
  readonly #program: Program;
  readonly #looker: Looker;
  /** Whether the process has ended. */
  readonly #isGone: () => boolean;
  /** The last operation reads memory: its value is a word, not a result that may be an errno. */
  #reads = false;
  #started = false;
  /** How it ended and what it counted: once it is gone its slot may be another's. */
  #last: { readonly ending: Ending; readonly signalsHandled: number; readonly progress: number } | undefined;

  constructor(pid: number, tid: number, slot: Slot, program: Program, isGone: () => boolean) {
    this.tid = tid;
    this.#slot = slot;
    this.#program = program;
    this.#looker = new Looker(pid, tid);
    this.#isGone = isGone;
  }

  start(operation: Operation): void {
    this.submit(command(this.#program, operation), operation.kind === "load" || operation.kind === "add");
  }

  /** Visits pages in machine code. The value it ends with is the sum of the bytes loaded. */
  walk(walk: Walk): void {
    const { base, order, write, record } = walk;
    const list = "list" in order ? order.list.address : 0;
    const stride = "stride" in order ? order.stride : 0;
    const store = write === undefined ? 0 : 256 + (write & 255);
    const args = [base, order.count, list, stride, store, record?.address ?? 0];
    this.submit({ entry: this.#program.at("walk"), args });
  }

  /** Begins a command of the program. */
  submit(what: Command, reads = false): void {
    if (this.gone) {
      const message = `Thread ${this.tid} has ended, nothing can be called in it`;
      throw new MinorfaultError("ERR_CLOSED", message, { hint: DEATH_HINT });
    }
    if (!this.#slot.done)
      throw new MinorfaultError("ERR_BUSY", `Thread ${this.tid} has not ended its operation`);
    this.#started = true;
    this.#reads = reads;
    this.#slot.submit(what);
  }

  get state(): "idle" | "running" | "blocked" {
    if (this.idle) return "idle";
    const look = this.look();
    // It may have ended while we looked.
    if (this.idle) return "idle";
    return look.kind === "waiting" ? "blocked" : "running";
  }

  get ending(): Ending | undefined {
    if (!this.#started) return undefined;
    if (this.gone) return this.#last?.ending;
    return this.#slot.done ? this.#ending() : undefined;
  }

  get signalsHandled(): number {
    return this.#last?.signalsHandled ?? this.#slot.signalsHandled;
  }

  /** Pages that the present or last walk has visited. */
  get progress(): number {
    return this.#last?.progress ?? this.#slot.progress;
  }

  /** Whether it has nothing to do (any more). */
  get idle(): boolean {
    return this.gone || this.#slot.done;
  }

  /** Whether the thread, or its process, has ended. */
  get gone(): boolean {
    if (this.#last === undefined && this.#isGone()) this.end();
    return this.#last !== undefined;
  }

  look(): Look {
    const look = this.#looker.look();
    if (look.kind === "gone") this.end();
    return look;
  }

  /** Waits for the end of the operation, at most so many milliseconds. */
  wait(timeoutMs: number): boolean {
    return this.idle || this.#slot.wait(timeoutMs);
  }

  /** Confines it to one CPU. */
  pin(cpu: number): void {
    setAffinity(local, [cpu], this.tid);
  }

  /** It has ended: what is known of it is kept, the files that tell of it are closed. */
  end(): void {
    if (this.#last !== undefined) return;
    const ending = this.#slot.done ? this.#ending() : GONE;
    this.#last = { ending, signalsHandled: this.#slot.signalsHandled, progress: this.#slot.progress };
    this.#looker.close();
  }

  #ending(): Ending {
    const ending = this.#slot.ending;
    if (!this.#reads || ending.kind !== "value") return ending;
    return { kind: "value", value: Number(BigInt.asUintN(53, this.#slot.resultBits)) };
  }
}
