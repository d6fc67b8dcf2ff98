// From a result that may be a negative errno to a value or an exception: the convention of the waist on one side,
// the project's errors on the other.

import { errnoName } from "../abi/errno.ts";
import { type ErrorDetails, hex, MinorfaultError } from "../base/errors.ts";

export type FailureDetails = Pick<ErrorDetails, "address" | "byteLength" | "hint"> & {
  /** What it was done to, for the message: a path, a descriptor. */
  readonly subject?: string;
};

/** The error of a system call that answered `-errno`. */
export function failure(errno: number, operation: string, details: FailureDetails = {}): MinorfaultError {
  const { subject, ...rest } = details;
  const where = rest.address === undefined ? "" : ` at address ${hex(rest.address)}`;
  const what = subject === undefined ? "" : ` of ${subject}`;
  return new MinorfaultError("ERR_SYSCALL", `${operation}${what}${where} failed with ${errnoName(errno)}`, {
    ...rest,
    errno: Math.abs(errno),
    operation,
  });
}

/** The result, unless it is a negative errno: then ERR_SYSCALL is thrown. */
export function check(result: number, operation: string, details?: FailureDetails): number {
  if (result < 0) throw failure(result, operation, details);
  return result;
}
