// Which pages of a range this process has in memory, by its page table: /proc/self/pagemap.

import { O, PAGE_SIZE } from "../../abi/memory.ts";
import { check, close, local, open } from "../../linux/index.ts";

const ENTRY_BYTES = 8;
/** In the last byte of an entry: present, or swapped out by the kernel. */
const PRESENT = 0xc0;

/** Calls back with the number of each page that is there, counted from `address`. */
export function presentPages(address: number, pageCount: number, onPage: (page: number) => void): void {
  const { scratch } = local;
  const pagesPerRead = scratch.bytes.byteLength / ENTRY_BYTES;
  const fd = open(local, "/proc/self/pagemap", O.RDONLY);
  try {
    for (let first = 0; first < pageCount; first += pagesPerRead) {
      const count = Math.min(pagesPerRead, pageCount - first);
      const offset = (address / PAGE_SIZE + first) * ENTRY_BYTES;
      check(local.call("pread64", fd, scratch.address, count * ENTRY_BYTES, offset), "pread64 of pagemap");
      for (let page = 0; page < count; page++) {
        if ((scratch.bytes[page * ENTRY_BYTES + 7]! & PRESENT) !== 0) onPage(first + page);
      }
    }
  } finally {
    close(local, fd);
  }
}
