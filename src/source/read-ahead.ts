// Says which bytes of a file will be read soon, so that the disk is at work before anybody waits for it, and asks whether
// they have come.
//
// Node has no calls for that. Who has them lends them (a pager's threads do); without them nothing is said, and a read
// takes as long as it takes.

export interface ReadAhead {
  /** Starts to read, and does not wait. */
  readonly expect: (fd: number, offset: number, byteLength: number) => void;
  /** Whether a byte can be read without waiting; undefined: that is not known. */
  readonly isCached: (fd: number, offset: number) => boolean | undefined;
}

let lent: ReadAhead | undefined;

/** For this thread, from now on. */
export function lendReadAhead(readAhead: ReadAhead): void {
  lent = readAhead;
}

export function readAhead(): ReadAhead | undefined {
  return lent;
}
