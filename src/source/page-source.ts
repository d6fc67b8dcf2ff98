// Where bytes come from: the one seam between a pager or an image and the world.
//
// LAW 1  `read` fills the target wholly or throws; what a target holds after a failure means nothing. Once the
//        promise has settled, nothing writes to the target any more.
// LAW 2  All reads of one source are of one version of the content: a replaced object is ERR_SOURCE_CHANGED,
//        never a mixture.
// LAW 3  A read beyond the end is the caller's mistake (ERR_OUT_OF_RANGE), known before anything is asked.
// LAW 4  After the signal is aborted `read` rejects soon with the signal's reason, and leaves the target alone.
// LAW 5  Closing is allowed twice; a read afterwards is ERR_CLOSED.
//
// Errors are of kind source and say with `retryable` whether the same read may go better another time.
// The suite in minorfault/testing holds every implementation to these laws.

import { MinorfaultError } from "../base/errors.ts";

export interface PageSource {
  /** For errors and tables: a path, a URL without credentials and query. Never a secret. */
  readonly name: string;
  readonly byteLength: number;
  /** Names this very content: sources of equal identity read the same bytes, in any process. Absent where unknown. */
  readonly identity?: string;

  /** Fills the target wholly with the bytes from `offset`. */
  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;

  /** The same without waiting for a loop or a pool, where the bytes are at hand; absent where they are not. */
  readSync?(offset: number, target: Uint8Array): void;

  /**
   * As `read`, for a source that knows where it has zeros: it may say so with a 1 in `zeros`, which has a 0 for each unit of
   * the target, and leave the unit as it is.
   */
  readSparse?(
    offset: number,
    target: Uint8Array,
    unitBytes: number,
    zeros: Uint8Array,
    signal?: AbortSignal,
  ): Promise<void>;

  /** These bytes will be read soon: a hint that costs nothing where it is of no use. Never waits, never throws. */
  expect?(offset: number, byteLength: number): void;

  /** Whether a byte can be read without waiting for a disk; undefined: that is not known. Never waits, never throws. */
  isCached?(offset: number): boolean | undefined;

  close(): Promise<void>;
}

/** LAW 3, the same for every source. */
export function checkRead(source: PageSource, offset: number, byteLength: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || offset + byteLength > source.byteLength) {
    throw outOfRange(`the ${source.byteLength} bytes of ${source.name}`, offset, byteLength);
  }
}

/** `what` has no such bytes. */
export function outOfRange(what: string, offset: number, byteLength: number): MinorfaultError {
  const message = `${byteLength} bytes at ${offset} are not within ${what}`;
  return new MinorfaultError("ERR_OUT_OF_RANGE", message, { byteLength });
}

/** The error of LAW 5. */
export function closedSource(name: string): MinorfaultError {
  return new MinorfaultError("ERR_CLOSED", `${name} has been closed`);
}
