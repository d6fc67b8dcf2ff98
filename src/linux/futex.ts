// Waiting for a 32-bit word of shared memory to change, and waking who waits: between threads and between processes.

import { ERRNO } from "../abi/errno.ts";
import type { Caller } from "../abi/system.ts";
import { check } from "./failure.ts";
import { writeTimespec } from "./poll.ts";

const FUTEX_WAIT = 0;
const FUTEX_WAKE = 1;

/**
 * Waits while the word at `address` is `expected`, at most so many milliseconds (fractions count). Returns for any
 * reason: look at the word again.
 */
export function futexWait(caller: Caller, address: number, expected: number, timeoutMs: number): void {
  const { scratch } = caller;
  writeTimespec(scratch.view, 0, timeoutMs);
  const result = caller.call("futex", address, FUTEX_WAIT, expected, scratch.address);
  if (result === -ERRNO.EAGAIN || result === -ERRNO.EINTR || result === -ERRNO.ETIMEDOUT) return;
  check(result, "futex(FUTEX_WAIT)", { address });
}

/** Wakes at most `count` waiters of the word at `address`; answers how many. */
export function futexWake(caller: Caller, address: number, count = 1): number {
  return check(caller.call("futex", address, FUTEX_WAKE, count), "futex(FUTEX_WAKE)", { address });
}
