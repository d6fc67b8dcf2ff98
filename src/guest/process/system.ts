// The real kernel as a `System`: each process is a bare one, started from an executable that we write into a memfd.

import type { System } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { check, local, memfd, putBytes, spawn, syscallNumbers } from "../../linux/index.ts";
import { CODE_OFFSET, elfImage } from "./elf.ts";
import { Family } from "./family.ts";
import { TEXT_ADDRESS } from "./layout.ts";
import { GuestProcess } from "./process.ts";
import { assembleProgram, CONTROL_FD, PROCESS_NAME, type Program } from "./program.ts";
import { Slot } from "./slot.ts";

const DEADLINE_MS = 5000;

export interface KernelSystemOptions {
  /** How long a process may take for a call of its control thread, and its threads to come to rest. Default 5 s. */
  readonly deadlineMs?: number;
}

export class KernelSystem implements System {
  readonly name = "kernel";
  readonly #program: Program;
  readonly #executable: number;
  readonly #deadlineMs: number;
  readonly #families = new Set<Family>();
  #closed = false;

  constructor(options: KernelSystemOptions = {}) {
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    if (process.platform !== "linux" || process.arch !== "x64") {
      throw new MinorfaultError(
        "ERR_UNSUPPORTED_HOST",
        `Bare processes run on Linux on x64, this is ${process.platform} on ${process.arch}`,
      );
    }
    this.#program = assembleProgram(TEXT_ADDRESS + CODE_OFFSET);
    const image = elfImage(this.#program.code, TEXT_ADDRESS, this.#program.at("start"));
    this.#executable = memfd(local, PROCESS_NAME, 0);
    check(local.call("write", this.#executable, putBytes(local, 0, image), image.byteLength), "write");
  }

  spawnProcess(): GuestProcess {
    if (this.#closed) throw new MinorfaultError("ERR_CLOSED", "The system has been closed");
    for (const family of this.#families) if (family.closed) this.#families.delete(family);
    const family = new Family(this.#program, this.#deadlineMs);
    this.#families.add(family);
    try {
      const slot = new Slot(family.control);
      slot.submit({ entry: this.#program.at("call"), number: syscallNumbers("x64").getpid, args: [] });
      const descriptors = new Map([[CONTROL_FD, family.control.fd]]);
      const pid = spawn(`/proc/self/fd/${this.#executable}`, PROCESS_NAME, descriptors);
      const born = new GuestProcess(family, pid, slot);
      born.awaitBirth();
      return born;
    } catch (error) {
      family.kill();
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const family of this.#families) family.kill();
    local.call("close", this.#executable);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
