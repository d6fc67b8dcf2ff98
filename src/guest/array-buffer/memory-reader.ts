// Copies pieces of a memory out of it, for a flush.

import type { AddressRange } from "../../linux/index.ts";

/** Copies the bytes from an offset on into the target, which is not itself paged. */
export type PieceReader = (offset: number, target: Uint8Array) => void;

/** Bytes of a view: Node 20 can't have more than four of these in one. */
const VIEW_BYTES = 2 ** 30;

/** Reads through few views, one after the other: to make one costs as much as to copy some pages. */
export function readMemory(range: AddressRange): PieceReader {
  let first = -1;
  let view = new Uint8Array(0);
  return (offset, target) => {
    for (let done = 0; done < target.byteLength; ) {
      const at = (offset + done) % VIEW_BYTES;
      const start = offset + done - at;
      if (start !== first) {
        view = new Uint8Array(range.view(start, Math.min(VIEW_BYTES, range.byteLength - start)));
        first = start;
      }
      const part = view.subarray(at, at + target.byteLength - done);
      target.set(part, done);
      done += part.byteLength;
    }
  };
}
