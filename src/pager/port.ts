// Through which a fault loop speaks with one userfaultfd: a page of memory with a list of two calls in it,
// and three ways to make them.
//
//   0    entry FILL: ioctl(fd, request, struct)       fill()   the first
//   64   entry READ: read(fd, message, 32)            read()   the second
//   128  struct of COPY (40 bytes)                    turn()   both, the second only if the first worked
//   192  struct of ZEROPAGE and POISON (32 bytes)
//   256  one message (32 bytes)
//   320  where a message goes, for reads that take a list of places (16 bytes)
//
// An entry has the form of src/linux/chain.ts, where both calls can be made in one step out of JavaScript. Here
// they are made one by one over any `Caller`. All is prepared once; a fault rewrites the words that change.
//
// One message is read at a time: the kernel spends less on it than on a batch, nothing is copied on old knowledge
// (an event that waits makes the fill fail with EAGAIN), and `turn` makes a read as cheap as none.

import { UFFD_MSG_SIZE } from "../abi/message.ts";
import { writeWord } from "../abi/structs.ts";
import type { Caller, Scratch } from "../abi/system.ts";
import { UFFDIO } from "../abi/userfaultfd.ts";
import type { CopyList } from "./copy-list.ts";

export const PORT_BYTES = 4096;

/** Byte offsets in a port's memory. */
export const PORT = { FILL: 0, READ: 64, COPY: 128, RANGE: 192, MESSAGE: 256, PLACE: 320 } as const;

const ENTRY = { ARGUMENTS: 8, RESULT: 48, STAMP: 56 } as const;

/** The same as indexes of 32-bit words; of 64-bit values the low word, the high one follows. */
export const WORD = {
  REQUEST: (PORT.FILL + ENTRY.ARGUMENTS + 8) / 4,
  STRUCT: (PORT.FILL + ENTRY.ARGUMENTS + 16) / 4,
  FILL_RESULT: (PORT.FILL + ENTRY.RESULT) / 4,
  FILL_STAMP: (PORT.FILL + ENTRY.STAMP) / 4,
  READ_RESULT: (PORT.READ + ENTRY.RESULT) / 4,
  READ_STAMP: (PORT.READ + ENTRY.STAMP) / 4,
  /** COPY: dst, src, len, mode, copy. */
  COPY: PORT.COPY / 4,
  COPY_MODE: (PORT.COPY + 24) / 4,
  COPY_DONE: (PORT.COPY + 32) / 4,
  /** ZEROPAGE, POISON: start, len, mode, and bytes done. */
  RANGE: PORT.RANGE / 4,
  RANGE_MODE: (PORT.RANGE + 16) / 4,
  RANGE_DONE: (PORT.RANGE + 24) / 4,
  MESSAGE: PORT.MESSAGE / 4,
} as const;

export interface FaultPort {
  readonly fd: number;
  /** For many copies at once, where this host allows that. */
  readonly copies?: CopyList | undefined;
  /** The port's memory. */
  readonly words: Int32Array;
  readonly memory: Scratch;
  /** How many nanoseconds one step of the stamps is. */
  readonly nanosecondsPerTick: number;
  fill(): void;
  read(): void;
  turn(): void;
  /** From now on reads wait where the descriptor says so: this system has none that never wait. */
  readPlainly(): void;
  close(): void;
}

/** Fills in both entries of a port's memory but for what a fault writes. */
export function layPort(memory: Scratch, fd: number): void {
  const { view, address } = memory;
  for (let at = 0; at < PORT_BYTES; at += 8) writeWord(view, at, 0);
  writeWord(view, PORT.FILL + ENTRY.ARGUMENTS, fd);
  writeWord(view, PORT.READ + ENTRY.ARGUMENTS, fd);
  writeWord(view, PORT.READ + ENTRY.ARGUMENTS + 8, address + PORT.MESSAGE);
  writeWord(view, PORT.READ + ENTRY.ARGUMENTS + 16, UFFD_MSG_SIZE);
  writeWord(view, PORT.PLACE, address + PORT.MESSAGE);
  writeWord(view, PORT.PLACE + 8, UFFD_MSG_SIZE);
  writeWord(view, PORT.FILL + ENTRY.ARGUMENTS + 8, UFFDIO.COPY);
  writeWord(view, PORT.FILL + ENTRY.ARGUMENTS + 16, address + PORT.COPY);
}

export function wordsOf(memory: Scratch): Int32Array {
  return new Int32Array(memory.bytes.buffer, memory.bytes.byteOffset, PORT_BYTES / 4);
}

/** A port over a `Caller`: works everywhere. `now` gives milliseconds. */
export class CallerPort implements FaultPort {
  readonly fd: number;
  readonly words: Int32Array;
  readonly memory: Scratch;
  readonly nanosecondsPerTick = 1;
  readonly #own: (Scratch & { close(): void }) | undefined;
  readonly #caller: Caller;
  readonly #now: () => number;
  readonly #readFd: number;

  /** `memory` is a page for the port, where it is not to have one of its own. */
  constructor(caller: Caller, fd: number, now: () => number, readFd: number = fd, memory?: Scratch) {
    this.fd = fd;
    this.#readFd = readFd;
    this.#caller = caller;
    this.#now = now;
    this.#own = memory === undefined ? caller.share(PORT_BYTES) : undefined;
    this.memory = memory ?? this.#own!;
    layPort(this.memory, fd);
    this.words = wordsOf(this.memory);
  }

  fill(): void {
    const { words } = this;
    const request = words[WORD.REQUEST]! >>> 0;
    const offset = request === UFFDIO.COPY || request === UFFDIO.MOVE ? PORT.COPY : PORT.RANGE;
    const result = this.#caller.ioctl(this.fd, request, this.memory.address + offset);
    words[WORD.FILL_RESULT] = result;
    this.#stamp(WORD.FILL_STAMP);
  }

  read(): void {
    const address = this.memory.address + PORT.MESSAGE;
    this.words[WORD.READ_RESULT] = this.#caller.read(this.#readFd, address, UFFD_MSG_SIZE);
    this.#stamp(WORD.READ_STAMP);
  }

  turn(): void {
    this.fill();
    if (this.words[WORD.FILL_RESULT]! >= 0) this.read();
  }

  readPlainly(): void {}

  close(): void {
    this.#own?.close();
  }

  #stamp(word: number): void {
    const nanoseconds = Math.round(this.#now() * 1e6);
    this.words[word] = nanoseconds;
    this.words[word + 1] = nanoseconds / 2 ** 32;
  }
}
