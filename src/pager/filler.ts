// The fills of one userfaultfd, through its port: writes the struct, makes the call, and tells how far it came.
//
// A count and an errno are two properties (LAW 1 of the contract): `errno` is 0 or positive, `bytesDone` says how much
// was installed, whether or not the rest failed.

import { ERRNO } from "../abi/errno.ts";
import { UFFDIO, UFFDIO_COPY_MODE, UFFDIO_WRITEPROTECT_MODE } from "../abi/userfaultfd.ts";
import { type FaultPort, PORT, WORD } from "./port.ts";

const TWO_32 = 2 ** 32;

export class Filler {
  /** Of the last fill: 0 or a positive errno. */
  errno = 0;
  /** Of the last fill. */
  bytesDone = 0;
  readonly #port: FaultPort;
  readonly #words: Int32Array;
  readonly #copyMode: number;
  readonly #copyStruct: number;
  readonly #rangeStruct: number;

  /** With `protects`, every copy installs its pages write-protected. */
  constructor(port: FaultPort, protects = false) {
    this.#port = port;
    this.#words = port.words;
    this.#copyMode = protects ? UFFDIO_COPY_MODE.WP : 0;
    this.wakes = true;
    this.#copyStruct = port.memory.address + PORT.COPY;
    this.#rangeStruct = port.memory.address + PORT.RANGE;
  }

  /** Whether copies wake who waits for their pages. While they don't, somebody has to do so afterwards. */
  set wakes(on: boolean) {
    this.#words[WORD.COPY_MODE] = this.#copyMode | (on ? 0 : UFFDIO_COPY_MODE.DONTWAKE);
  }

  /** Puts a COPY into the port, for `port.fill` or `port.turn`. */
  stageCopy(target: number, source: number, byteLength: number): void {
    const words = this.#words;
    // Storing into an Int32Array takes a number modulo 2^32: the low word, without a bigint.
    words[WORD.REQUEST] = UFFDIO.COPY;
    words[WORD.STRUCT] = this.#copyStruct;
    words[WORD.STRUCT + 1] = this.#copyStruct / TWO_32;
    words[WORD.COPY] = target;
    words[WORD.COPY + 1] = target / TWO_32;
    words[WORD.COPY + 2] = source;
    words[WORD.COPY + 3] = source / TWO_32;
    words[WORD.COPY + 4] = byteLength;
    // The system leaves it alone when it refuses an argument: so nothing is done until it says so.
    words[WORD.COPY_DONE] = 0;
    words[WORD.COPY_DONE + 1] = 0;
  }

  /** Puts a MOVE into the port: it takes what a COPY takes, and what lay at the source is gone afterwards. */
  stageMove(target: number, source: number, byteLength: number): void {
    this.stageCopy(target, source, byteLength);
    this.#words[WORD.REQUEST] = UFFDIO.MOVE;
  }

  /** Puts a call that takes a range (ZEROPAGE, POISON, CONTINUE, WAKE ...) into the port. */
  stageRange(request: number, target: number, byteLength: number): void {
    const words = this.#words;
    words[WORD.REQUEST] = request;
    words[WORD.STRUCT] = this.#rangeStruct;
    words[WORD.STRUCT + 1] = this.#rangeStruct / TWO_32;
    words[WORD.RANGE] = target;
    words[WORD.RANGE + 1] = target / TWO_32;
    words[WORD.RANGE + 2] = byteLength;
    words[WORD.RANGE + 3] = byteLength / TWO_32;
    words[WORD.RANGE_DONE] = 0;
    words[WORD.RANGE_DONE + 1] = 0;
  }

  /** Makes the call that was staged: 0, or a positive errno. */
  run(byteLength: number): number {
    this.#port.fill();
    if (this.#words[WORD.FILL_RESULT]! >= 0) {
      this.errno = 0;
      this.bytesDone = byteLength;
    } else {
      this.takeFailure();
    }
    return this.errno;
  }

  /** Reads how far the call in the port came, which has failed. */
  takeFailure(): void {
    const words = this.#words;
    const request = words[WORD.REQUEST]! >>> 0;
    const isLong = request === UFFDIO.COPY || request === UFFDIO.MOVE;
    const doneWord = isLong ? WORD.COPY_DONE : WORD.RANGE_DONE;
    const done = words[doneWord + 1]! * TWO_32 + (words[doneWord]! >>> 0);
    this.errno = -words[WORD.FILL_RESULT]!;
    this.bytesDone = done > 0 ? done : 0;
  }

  copy(target: number, source: number, byteLength: number): number {
    this.stageCopy(target, source, byteLength);
    return this.run(byteLength);
  }

  move(target: number, source: number, byteLength: number): number {
    this.stageMove(target, source, byteLength);
    return this.run(byteLength);
  }

  zero(target: number, byteLength: number): number {
    this.stageRange(UFFDIO.ZEROPAGE, target, byteLength);
    return this.run(byteLength);
  }

  poison(target: number, byteLength: number): number {
    this.stageRange(UFFDIO.POISON, target, byteLength);
    return this.run(byteLength);
  }

  continue(target: number, byteLength: number): number {
    this.stageRange(UFFDIO.CONTINUE, target, byteLength);
    return this.run(byteLength);
  }

  /** Write-protects the pages that are there. */
  protect(target: number, byteLength: number): number {
    this.stageRange(UFFDIO.WRITEPROTECT, target, byteLength);
    const words = this.#words;
    words[WORD.RANGE_MODE] = UFFDIO_WRITEPROTECT_MODE.WP;
    const errno = this.run(byteLength);
    words[WORD.RANGE_MODE] = 0;
    return errno;
  }

  /** Takes the write protection away and wakes who waits for it. */
  unprotect(target: number, byteLength: number): number {
    this.stageRange(UFFDIO.WRITEPROTECT, target, byteLength);
    return this.run(byteLength);
  }

  /** Makes every thread that waits in the range look again. Fails only when the range itself is impossible. */
  wake(target: number, byteLength: number): void {
    this.stageRange(UFFDIO.WAKE, target, byteLength);
    this.run(byteLength);
  }

  /**
   * Whether the last fill was put off: an event waits to be read, or memory is short for a moment. ENOSPC is what
   * kernels before 4.11 say when the process is about to go.
   */
  get isPutOff(): boolean {
    const { errno } = this;
    return (
      (errno === ERRNO.EAGAIN && this.bytesDone === 0) || errno === ERRNO.ENOMEM || errno === ERRNO.ENOSPC
    );
  }
}
