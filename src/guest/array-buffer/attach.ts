// The same memory in another thread: its own buffers over the same addresses.

import { MinorfaultError } from "../../base/errors.ts";
import { AddressRange } from "../../linux/index.ts";
import { Buffers } from "./buffers.ts";
import type { AttachedMemory, MemoryHandle } from "./options.ts";

/**
 * Opens, in this thread, the memory that another thread of this process has shared. The pager and the life of the
 * memory stay with the thread that opened it.
 */
export function attach(handle: MemoryHandle): AttachedMemory {
  if (handle?.kind !== "minorfault-memory" || !(handle.range?.state instanceof Int32Array)) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "attach() takes what share() of a memory has answered");
  }
  const buffers = new Buffers(new AddressRange(handle.range), handle.byteLength);
  return {
    byteLength: handle.byteLength,
    get buffer() {
      return buffers.whole;
    },
    window: (offset, byteLength) => buffers.window(offset, byteLength),
  };
}
