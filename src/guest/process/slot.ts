// One thread of a bare process, as the memory through which it is commanded: put a command, see whether it has ended,
// take the result. Who may do what when is thread.ts's and process.ts's business.

import { readSigned, type Word, writeWord } from "../../abi/structs.ts";
import type { Ending, Scratch } from "../../abi/system.ts";
import { futexWait, futexWake, local } from "../../linux/index.ts";
import type { ControlMemory } from "./control.ts";
import { FIELD, SCRATCH_BYTES, SCRATCH_OFFSET, slotAddress } from "./layout.ts";

export interface Command {
  /** Address of the code. */
  readonly entry: number;
  /** At most six. */
  readonly args: readonly Word[];
  /** Of a system call. */
  readonly number?: number;
}

export class Slot {
  /** Its address in the bare process. */
  readonly address: number;
  readonly scratch: Scratch;
  readonly #index: number;
  readonly #control: ControlMemory;
  readonly #view: DataView;
  /** Its address here. */
  readonly #here: number;
  #commands = 0;

  constructor(control: ControlMemory) {
    const { index, memory } = control.takeSlot();
    this.#control = control;
    this.#index = index;
    this.#view = memory.view;
    this.#here = memory.address;
    this.address = slotAddress(index);
    this.scratch = {
      address: this.address + SCRATCH_OFFSET,
      bytes: memory.bytes.subarray(SCRATCH_OFFSET, SCRATCH_OFFSET + SCRATCH_BYTES),
      view: new DataView(memory.bytes.buffer, memory.bytes.byteOffset + SCRATCH_OFFSET, SCRATCH_BYTES),
    };
  }

  /** Gives a command; the slot must be idle. Wakes the thread. */
  submit(command: Command): void {
    const view = this.#view;
    writeWord(view, FIELD.ENTRY, command.entry);
    for (let index = 0; index < 6; index++) {
      writeWord(view, FIELD.ARGUMENTS + 8 * index, command.args[index] ?? 0);
    }
    writeWord(view, FIELD.NUMBER, command.number ?? 0);
    this.#commands = (this.#commands + 1) >>> 0;
    view.setUint32(FIELD.COMMAND, this.#commands, true);
    futexWake(local, this.#here + FIELD.COMMAND);
  }

  get done(): boolean {
    return this.#view.getUint32(FIELD.DONE, true) === this.#commands;
  }

  /** Waits for the end of the present command, at most so many milliseconds. */
  wait(timeoutMs: number): boolean {
    const before = this.#view.getUint32(FIELD.DONE, true);
    if (before !== this.#commands) futexWait(local, this.#here + FIELD.DONE, before, timeoutMs);
    return this.done;
  }

  /** The result of the last command. */
  get result(): number {
    return readSigned(this.#view, FIELD.RESULT);
  }

  /** All 64 bits of it. */
  get resultBits(): bigint {
    return this.#view.getBigUint64(FIELD.RESULT, true);
  }

  /** How the last command ended. */
  get ending(): Ending {
    const view = this.#view;
    const signal = view.getUint32(FIELD.SIGNAL, true);
    if (signal === 0) return { kind: "value", value: this.result };
    const code = view.getInt32(FIELD.SIGNAL_CODE, true);
    // Above 2^53 only for addresses that no user can map: rounding them does no harm.
    const address = Number(view.getBigUint64(FIELD.SIGNAL_ADDRESS, true));
    return { kind: "signal", signal, code, address };
  }

  get signalsHandled(): number {
    return this.#view.getUint32(FIELD.SIGNALS_HANDLED, true);
  }

  get progress(): number {
    return readSigned(this.#view, FIELD.PROGRESS);
  }

  /** Whoever is born on this slot from now on ends itself. */
  disown(): void {
    this.#view.setUint32(FIELD.OWNER, 0, true);
  }

  /** The thread is gone: somebody else may have the slot. */
  release(): void {
    this.#control.returnSlot(this.#index);
  }
}
