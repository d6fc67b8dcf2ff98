// Who serves: of all processes of a server that could, the one whose number stands in a page that all of them share. Whoever
// wants to take over waits until the thread that serves has ended, and puts its own number in the place of that one's;
// who is second finds another number there. So nobody has to be alive to say whose turn it is.
//
// It is the thread that counts: from SIGKILL on it makes no other system call, and is gone in a millisecond; its process
// takes some ten to give its memory back. What other threads of that process were just saying may arrive later.

import { local, type Memory, mapMemory, memfd, pidfdOpen, pidfdOpenThread } from "../linux/index.ts";
import type { PlacementMode } from "../pager/index.ts";

const BYTES = 4096;
/** The thread is that of the process that stands behind it: whoever has just taken the baton has not said his yet. */
const WORD = { PROCESS: 0, THREAD: 1, THREAD_OF: 2, GENERATION: 3, PLACEMENT: 4 } as const;
/** By what stands in the page, less one; 0: nobody has found it out yet. */
const PLACEMENTS: readonly PlacementMode[] = ["same-cpu", "spin", "block"];

/** A new baton, held by nobody. */
export function makeBaton(): number {
  return memfd(local, "minorfault-baton", BYTES);
}

export class Baton {
  readonly #memory: Memory;
  readonly #words: Int32Array;

  constructor(descriptor: number) {
    this.#memory = mapMemory(BYTES, { fd: descriptor });
    this.#words = new Int32Array(this.#memory.bytes.buffer, this.#memory.bytes.byteOffset, BYTES / 4);
  }

  /** The last process that has taken it; 0: nobody yet. */
  get holder(): number {
    return Atomics.load(this.#words, WORD.PROCESS);
  }

  /** A descriptor that is readable once the holder serves no more; undefined when that is so already. */
  watch(): number | undefined {
    const pid = this.holder;
    const tid = Atomics.load(this.#words, WORD.THREAD);
    const isKnown = tid !== 0 && Atomics.load(this.#words, WORD.THREAD_OF) === pid;
    try {
      return (isKnown ? pidfdOpenThread(tid) : undefined) ?? pidfdOpen(pid);
    } catch {
      return undefined;
    }
  }

  /** Takes it from a holder that serves no more; false: somebody else did. */
  take(holder: number): boolean {
    return Atomics.compareExchange(this.#words, WORD.PROCESS, holder, process.pid) === holder;
  }

  /**
   * Counts the keepers that know everything. Whoever has lost its keeper, and has not been told of a newer one that is
   * counted here, has been told nothing since, and must not serve any more.
   */
  get generation(): number {
    return Atomics.load(this.#words, WORD.GENERATION);
  }

  set generation(generation: number) {
    Atomics.store(this.#words, WORD.GENERATION, generation);
  }

  /** Where serving threads run best here, as one of them has found out. */
  get placement(): PlacementMode | undefined {
    return PLACEMENTS[Atomics.load(this.#words, WORD.PLACEMENT) - 1];
  }

  set placement(mode: PlacementMode) {
    Atomics.store(this.#words, WORD.PLACEMENT, PLACEMENTS.indexOf(mode) + 1);
  }

  /** Which thread of the holder serves. */
  serveBy(tid: number): void {
    Atomics.store(this.#words, WORD.THREAD_OF, 0);
    Atomics.store(this.#words, WORD.THREAD, tid);
    Atomics.store(this.#words, WORD.THREAD_OF, process.pid);
  }
}
