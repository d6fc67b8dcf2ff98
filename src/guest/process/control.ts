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
  SHARES_OFFSET,
  SLOT_BYTES,
  SLOTS_MAX,
  slotAddress,
} from "./layout.ts";

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

export class ControlMemory {
  readonly fd: number;
  readonly #slots: Memory;
  readonly #free: number[] = [];
  #slotsUsed = 0;
  #sharesUntil = SHARES_OFFSET;
  #closed = false;

  constructor() {
    this.fd = memfd(local, "minorfault-control", CONTROL_BYTES);
    this.#slots = mapMemory(SHARES_OFFSET, { fd: this.fd });
  }

  /** The slots, as they are mapped here. */
  get memory(): Memory {
    return this.#slots;
  }

  /** Index of a slot that nobody uses, its fields all zero. */
  takeSlot(): number {
    const index = this.#free.pop() ?? this.#slotsUsed++;
    if (index >= SLOTS_MAX) {
      this.#slotsUsed--;
      throw new MinorfaultError(
        "ERR_LIMIT",
        `A process and its children have at most ${SLOTS_MAX} threads together`,
      );
    }
    const at = index * SLOT_BYTES;
    this.#slots.bytes.fill(0, at, at + 128);
    this.#slots.view.setUint32(at + FIELD.OWNER, process.pid, true);
    return index;
  }

  /** The thread of this slot is gone. */
  returnSlot(index: number): void {
    this.#free.push(index);
  }

  /** A part of a slot as a scratch. */
  scratch(index: number, offset: number, byteLength: number): Scratch {
    const at = index * SLOT_BYTES + offset;
    const { buffer, byteOffset } = this.#slots.bytes;
    return {
      address: slotAddress(index) + offset,
      bytes: new Uint8Array(buffer, byteOffset + at, byteLength),
      view: new DataView(buffer, byteOffset + at, byteLength),
    };
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
    this.#slots.close();
    local.call("close", this.fd);
  }
}
