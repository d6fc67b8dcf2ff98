// Memory of a serving thread that guests use one after the other.
//
// What is mapped for JavaScript is given back when its last view has been collected (src/linux/memory.ts), and that is told
// to a thread in its event loop. A thread that serves has none, so it would keep every address range that a guest has
// ever had. It keeps those that are free instead, with their views, for the next guest.

import { MAP, PROT } from "../abi/memory.ts";
import { local, type Memory, mapMemory, mmap } from "../linux/index.ts";

/** LIMIT: free pieces of one size; more are given up. */
const FREE_MAX = 4096;

const free = new Map<number, Memory[]>();

/** Memory of so many bytes: zeros, or this file's. */
export function takeMemory(byteLength: number, fd = -1): Memory {
  const memory = free.get(byteLength)?.pop();
  if (memory === undefined) return mapMemory(byteLength, fd < 0 ? {} : { fd });
  if (fd >= 0) {
    const flags = MAP.SHARED | MAP.FIXED;
    mmap(local, memory.byteLength, { at: memory.address, flags, fd, protection: PROT.READ | PROT.WRITE });
  }
  return memory;
}

/** Nobody uses it any more, or ever will by what he has of it. */
export function giveMemory(memory: Memory, byteLength: number): void {
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED | MAP.NORESERVE;
  // Fresh zeros, so that no file is kept by it, and no content.
  mmap(local, memory.byteLength, { at: memory.address, flags });
  const known = free.get(byteLength);
  if (known === undefined) free.set(byteLength, [memory]);
  else if (known.length < FREE_MAX) known.push(memory);
  else memory.close();
}
