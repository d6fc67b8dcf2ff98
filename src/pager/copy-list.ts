// Copies that nobody waits for, many of them made in one step out of JavaScript: a chain (src/linux/chain.ts) of COPYs that
// stops at the first one that fails.
//
// A working set is mostly single pages. One by one each of them costs a way out of JavaScript and back, and all that
// JavaScript does in between, which is most of the time while that has hardly been compiled.

import { UFFDIO, UFFDIO_COPY_MODE } from "../abi/userfaultfd.ts";
import { CHAIN_ENTRY, type ChainCall, chainsWork, local, makeChain } from "../linux/index.ts";

/** LIMIT: copies in one step: a quarter of a MiB in small pages. */
export const COPIES_MAX = 64;
/** Bytes from one copy's struct to the next one's. */
const STRUCT_BYTES = 64;
const STRUCTS_AT = (COPIES_MAX + 1) * CHAIN_ENTRY.SIZE;
const STRUCT_WORDS = STRUCT_BYTES / 4;
const ENTRY_WORDS = CHAIN_ENTRY.SIZE / 4;
const FD_WORD = CHAIN_ENTRY.ARGUMENTS / 4;
const RESULT_WORD = CHAIN_ENTRY.RESULT / 4;
const TWO_32 = 2 ** 32;
/** An ioctl of no descriptor: it fails, and ends the list. */
const NO_FD = -1;

export class CopyList {
  readonly #memory = local.share(STRUCTS_AT + COPIES_MAX * STRUCT_BYTES);
  readonly #words = new Int32Array(this.#memory.bytes.buffer, this.#memory.bytes.byteOffset);
  readonly #run: () => void;
  #count = 0;

  constructor() {
    const { address } = this.#memory;
    const calls: ChainCall[] = Array.from({ length: COPIES_MAX + 1 }, (_, index) => ({
      name: "ioctl",
      args: [NO_FD, UFFDIO.COPY, address + STRUCTS_AT + index * STRUCT_BYTES],
    }));
    this.#run = makeChain(local, this.#memory, 0, calls);
  }

  get isFull(): boolean {
    return this.#count === COPIES_MAX;
  }

  /** Adds a copy into the memory of a userfaultfd; it will wake nobody. */
  add(fd: number, target: number, source: number, byteLength: number): void {
    const words = this.#words;
    const index = this.#count++;
    const at = STRUCTS_AT / 4 + index * STRUCT_WORDS;
    words[index * ENTRY_WORDS + FD_WORD] = fd;
    // As in the filler: the low words by themselves, and nothing is done until the system says so.
    words[at] = target;
    words[at + 1] = target / TWO_32;
    words[at + 2] = source;
    words[at + 3] = source / TWO_32;
    words[at + 4] = byteLength;
    words[at + 5] = byteLength / TWO_32;
    words[at + 6] = UFFDIO_COPY_MODE.DONTWAKE;
    words[at + 8] = 0;
    words[at + 9] = 0;
  }

  /** Makes the copies, in order. Answers how many have been made when one failed, or all; the list is empty then. */
  run(): number {
    const count = this.#count;
    this.#count = 0;
    if (count === 0) return 0;
    const words = this.#words;
    words[count * ENTRY_WORDS + FD_WORD] = NO_FD;
    this.#run();
    let done = 0;
    while (done < count && words[done * ENTRY_WORDS + RESULT_WORD] === 0) done++;
    return done;
  }
}

let list: CopyList | undefined;
let isRefused = !chainsWork();

/** That of this thread; undefined where memory may not become executable. */
export function copyList(): CopyList | undefined {
  if (list !== undefined || isRefused) return list;
  try {
    list = new CopyList();
  } catch {
    isRefused = true;
  }
  return list;
}
