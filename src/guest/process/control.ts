// The control memory of one family of bare processes (a process and all that are forked from it), seen from our side:
// the slots of its threads, and the pieces that it shares with us. See layout.ts for the picture.

import type { Scratch } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { check, local, type Memory, mapMemory, memfd } from "../../linux/index.ts";
import {
  CONTROL_ADDRESS,
  CONTROL_BYTES,
  FIELD,
  FIELDS_BYTES,
  SHARES_OFFSET,
  SLOT_BYTES,
  SLOTS_MAX,
} from "./layout.ts";

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

export class ControlMemory {
  readonly fd: number;
  /** The slots that were ever taken, each mapped here by itself: most families have few. */
  readonly #slots: Memory[] = [];
  readonly #free: number[] = [];
  #sharesUntil = SHARES_OFFSET;
  #closed = false;

  constructor() {
    this.fd = memfd(local, "minorfault-control", CONTROL_BYTES);
  }

  /** A slot that nobody uses, its fields all zero. */
  takeSlot(): { readonly index: number; readonly memory: Memory } {
    const index = this.#free.pop() ?? this.#slots.length;
    if (index >= SLOTS_MAX) {
      throw new MinorfaultError(
        "ERR_LIMIT",
        `A process and its children have at most ${SLOTS_MAX} threads together`,
      );
    }
    const offset = index * SLOT_BYTES;
    const memory = this.#slots[index] ?? mapMemory(SLOT_BYTES, { fd: this.fd, offset });
    this.#slots[index] = memory;
    memory.bytes.fill(0, 0, FIELDS_BYTES);
    memory.view.setUint32(FIELD.OWNER, process.pid, true);
    return { index, memory };
  }

  /** The thread of this slot is gone. */
  returnSlot(index: number): void {
    this.#free.push(index);
  }

  /** Memory that is there already, at the address given, in every process of the family. */
  share(byteLength: number): Scratch & { close(): void } {
    const offset = this.#sharesUntil;
    const memory = mapMemory(byteLength, { fd: this.fd, offset });
    this.#sharesUntil = roundUp(offset + memory.byteLength, 0x10000);
    const { bytes, view } = memory;
    return {
      address: CONTROL_ADDRESS + offset,
      bytes,
      view,
      close: () => {
        memory.close();
        if (!this.#closed) this.#punch(offset, memory.byteLength);
      },
    };
  }

  /** Gives the pages back; the addresses stay, and read as zeros. */
  #punch(offset: number, byteLength: number): void {
    const mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
    check(local.call("fallocate", this.fd, mode, offset, byteLength), "fallocate");
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const slot of this.#slots) slot.close();
    local.call("close", this.fd);
  }
}
