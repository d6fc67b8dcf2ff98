// What still works where a userfaultfd can't be had, said with the error.

import { MinorfaultError } from "../../base/errors.ts";

const REFUSALS: ReadonlySet<string> = new Set([
  "ERR_UFFD_MISSING",
  "ERR_UFFD_DENIED",
  "ERR_UNSUPPORTED_HOST",
]);

/** The error, with a hint that names the ways around where it is about userfaultfd. */
export function withWayOut(error: unknown): unknown {
  if (!(error instanceof MinorfaultError) || !REFUSALS.has(error.code)) return error;
  return new MinorfaultError(error.code, error.message, {
    cause: error,
    ...(error.errno === undefined ? {} : { errno: error.errno }),
    hint:
      "Run `minorfault doctor`. Without userfaultfd: PagedMemory of minorfault/software loads lazily through methods, " +
      'and open() with implementation: "software" loads everything at once',
  });
}
