// What the file system answered, in the words of the catalogue.

import { constants } from "node:os";
import { type ErrorCode, MinorfaultError } from "../base/errors.ts";

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "ERR_SOURCE_MISSING",
  ENOTDIR: "ERR_SOURCE_MISSING",
  EISDIR: "ERR_SOURCE_MISSING",
  EACCES: "ERR_SOURCE_DENIED",
  EPERM: "ERR_SOURCE_DENIED",
  EROFS: "ERR_SOURCE_DENIED",
  EEXIST: "ERR_STORE_EXISTS",
  ELOOP: "ERR_STORE_PATH",
  ENAMETOOLONG: "ERR_STORE_PATH",
  EMFILE: "ERR_LIMIT",
  ENFILE: "ERR_LIMIT",
};

const WRITING: ReadonlySet<string> = new Set(["create", "mkdir", "rename", "link"]);

/** Failures that may pass: a disk's error, descriptors that others hold, an interrupted call. */
const RETRYABLE: ReadonlySet<string> = new Set(["EIO", "EMFILE", "ENFILE", "EAGAIN", "EINTR", "ESTALE"]);

const FULL: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);

/** The error of a call of `node:fs`; anything that is not one of those passes through. */
export function fileFailure(error: unknown, operation: string, name: string): unknown {
  if (error instanceof MinorfaultError || !(error instanceof Error) || !("code" in error)) return error;
  const errnoName = String(error.code);
  const errno = (constants.errno as Readonly<Record<string, number>>)[errnoName];
  if (errno === undefined) return error;
  // To write below an object, or where others lie below, is a matter of the key.
  const isMisplaced = WRITING.has(operation) && (errnoName === "EISDIR" || errnoName === "ENOTDIR");
  const code = isMisplaced ? "ERR_STORE_PATH" : (CODES[errnoName] ?? "ERR_SOURCE_FAILED");
  return new MinorfaultError(code, `${operation} of ${name} failed with ${errnoName}`, {
    cause: error,
    errno,
    operation,
    retryable: RETRYABLE.has(errnoName),
    ...(FULL.has(errnoName) && {
      hint: "Make room on that disk and run it again: nothing half-written was left",
    }),
  });
}

/** Runs a call of `node:fs` and gives its failure a name. */
export function fileCall<T>(operation: string, name: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fileFailure(error, operation, name);
  }
}
