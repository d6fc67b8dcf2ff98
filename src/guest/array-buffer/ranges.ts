// Offsets and lengths of a memory, checked before anything is done with them.

import { MinorfaultError } from "../../base/errors.ts";

/** Throws ERR_BAD_ARGUMENT or ERR_OUT_OF_RANGE unless [offset, offset + byteLength) lies in a memory of so many bytes. */
export function checkWithin(offset: number, byteLength: number, total: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(byteLength)) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `An offset and a length are integers, not ${String(offset)} and ${String(byteLength)}`,
    );
  }
  if (offset < 0 || byteLength < 1 || offset + byteLength > total) {
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `${byteLength} bytes at ${offset} are not within the ${total} bytes of this memory`,
      { byteLength },
    );
  }
}

export interface ByteRange {
  readonly offset: number;
  readonly byteLength: number;
}
