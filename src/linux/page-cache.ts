// What the system keeps of files in memory: has it read there ahead of us, and asks whether it has.

import { ERRNO } from "../abi/errno.ts";
import { RWF } from "../abi/memory.ts";
import { local } from "./local.ts";

const FADV_WILLNEED = 3;
/** Where in the scratch the byte goes that is read, behind the struct iovec. */
const BYTE = 64;

/** Sets the disk to work, and does not wait for it. Of one call the system reads no more than some MiB. */
export function expectRead(fd: number, offset: number, byteLength: number): void {
  local.call("fadvise64", fd, offset, byteLength, FADV_WILLNEED);
}

/** Whether a byte of a file can be read without waiting; undefined where the system does not say. */
export function isCached(fd: number, offset: number): boolean | undefined {
  const { address, bytes } = local.scratch;
  const vector = new DataView(bytes.buffer, bytes.byteOffset, BYTE);
  vector.setBigUint64(0, BigInt(address + BYTE), true);
  vector.setBigUint64(8, 1n, true);
  const result = local.call("preadv2", fd, address, 1, offset, 0, RWF.NOWAIT);
  if (result >= 0) return true;
  return result === -ERRNO.EAGAIN ? false : undefined;
}
