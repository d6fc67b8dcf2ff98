// Between addresses and JavaScript's buffers: a view of memory at an address, and the address of a buffer.

import { MinorfaultError } from "../base/errors.ts";
import { native } from "./native.ts";

const NODE_MAJOR = Number(process.versions.node.split(".")[0]);

/** LIMIT: bytes of one ArrayBuffer. V8 before Node 22 aborts the process beyond 4 GiB; later ones were tried with 1 TiB. */
export const BUFFER_BYTES_MAX: number = NODE_MAJOR >= 22 ? 2 ** 42 : 2 ** 32;

/**
 * The memory at an address as an ArrayBuffer.
 *
 * SAFETY: the range must stay mapped until this buffer has been collected.
 */
export function viewMemory(address: number, byteLength: number): ArrayBuffer {
  if (!Number.isSafeInteger(byteLength) || byteLength <= 0) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `A length of memory is a positive integer, not ${byteLength}`,
    );
  }
  if (byteLength > BUFFER_BYTES_MAX) {
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `An ArrayBuffer of Node ${process.versions.node} has at most ${BUFFER_BYTES_MAX} bytes, not ${byteLength}`,
      { byteLength, hint: "Take windows of it, or use Node 22 or later" },
    );
  }
  return native().view(address, byteLength);
}

/** Where the bytes of a buffer are. Only for memory outside the JavaScript heap that does not move: WebAssembly's. */
export function addressOfBuffer(buffer: ArrayBufferLike): number {
  if (buffer.byteLength === 0) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "An empty or detached buffer has no address");
  }
  return native().addressOfBytes(new Uint8Array(buffer));
}
