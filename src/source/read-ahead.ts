// Says which bytes of a file will be read soon, so that the disk is at work before anybody waits for it.
//
// Node has no call for that. Who has one lends it (a pager's threads do); without one nothing is said, and a read
// takes as long as it takes.

/** Starts to read, and does not wait. */
export type ReadAhead = (fd: number, offset: number, byteLength: number) => void;

let lent: ReadAhead | undefined;

/** For this thread, from now on. */
export function lendReadAhead(readAhead: ReadAhead): void {
  lent = readAhead;
}

export function readAhead(fd: number, offset: number, byteLength: number): void {
  lent?.(fd, offset, byteLength);
}
