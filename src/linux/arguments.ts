// How arguments that are not integers get to a system call: through the scratch of the process that makes it.

import type { Caller } from "../abi/system.ts";
import { MinorfaultError } from "../base/errors.ts";

/** Puts bytes at an offset of the scratch; answers their address in that process. */
export function putBytes(caller: Caller, offset: number, bytes: Uint8Array): number {
  const { scratch } = caller;
  if (offset + bytes.byteLength > scratch.bytes.byteLength) {
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `${bytes.byteLength} bytes do not fit the ${scratch.bytes.byteLength} bytes that a system call's arguments have`,
    );
  }
  scratch.bytes.set(bytes, offset);
  return scratch.address + offset;
}

/** Puts a string and its final zero at an offset of the scratch; answers its address. */
export function putString(caller: Caller, offset: number, text: string): number {
  if (text.includes("\0")) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "A path or name contains a zero byte");
  }
  return putBytes(caller, offset, new TextEncoder().encode(`${text}\0`));
}
