// Whether the memory behind a userfaultfd still has a process: nothing else tells, since who has ended faults no more, and
// a read of its userfaultfd waits for ever.
//
// The question is a fill where nothing is ever mapped: ENOENT as long as the process lives, ESRCH afterwards.

import { ERRNO } from "../abi/errno.ts";
import { PAGE_SIZE, TASK_SIZE } from "../abi/memory.ts";

/** The last page of user space: the kernel keeps it free. */
const NOWHERE: number = TASK_SIZE - PAGE_SIZE;

/** `zeropage` is UFFDIO_ZEROPAGE of the userfaultfd in question; it answers an errno. */
export function isProcessGone(zeropage: (start: number, byteLength: number) => number): boolean {
  return zeropage(NOWHERE, PAGE_SIZE) === ERRNO.ESRCH;
}
