// Two threads verify a replay: hashing takes longer than anything else that is done about a frame which is stored as it is.
// So the thread that fetches leaves a frame unproven to the one that serves, where that one has nothing better to do, and
// goes on with the next one.
//
//   the thread that fetches    read 0 │ read 1 │ read 2, verify 2       │ read 3 │ …
//   the thread that serves            │ verify 0, install 0 │ verify 1, install 1 │ install 2 │ …
//
// Whose a frame is, is settled when it is told of, and never changes. How many are left so at once is limited: should the
// other thread turn to something else it finds no more of them when it comes back.

import { type Unproven, verify } from "../../image/content.ts";
import { REPLAY_BYTES } from "./link.ts";
import { WIRE } from "./order.ts";
import { type SlotMemory, slotsAt } from "./slots.ts";

/** LIMIT: frames that are left unproven at once: one that is being verified, and the next one. */
const LEFT_MAX = 2;

/** What the thread that fetches knows of it. */
export class ProofsLeft {
  readonly #words: Int32Array;
  /** Frames that have been left. */
  #left = 0;

  constructor(words: Int32Array) {
    this.#words = words;
  }

  /** Whether the next frame can be left; it need not be. */
  get isWelcome(): boolean {
    if (Atomics.load(this.#words, WIRE.PROVES) === 0) return false;
    return ((this.#left - Atomics.load(this.#words, WIRE.PROVEN)) | 0) < LEFT_MAX;
  }

  leave(): void {
    this.#left = (this.#left + 1) | 0;
  }
}

/** The side of the thread that serves. */
export class Prover {
  readonly #words: Int32Array;
  readonly #slots: SlotMemory;

  /** `staging`: where slot 0 of the replay is. */
  constructor(words: Int32Array, staging: number) {
    this.#words = words;
    this.#slots = slotsAt(staging, REPLAY_BYTES);
  }

  /** Whether frames are welcome that are not proven yet. */
  set helps(on: boolean) {
    const word = on ? 1 : 0;
    if (this.#words[WIRE.PROVES] !== word) Atomics.store(this.#words, WIRE.PROVES, word);
  }

  /** Throws what is wrong with the bytes of a slot, of which nothing may be used then. */
  prove(slot: number, unproven: Unproven): void {
    try {
      verify(this.#slots(slot).subarray(0, unproven.byteLength), unproven);
    } finally {
      Atomics.add(this.#words, WIRE.PROVEN, 1);
    }
  }
}
