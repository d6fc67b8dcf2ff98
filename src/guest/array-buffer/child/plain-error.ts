// Errors, and reports that have one, as plain data and back.

import { MinorfaultError } from "../../../base/errors.ts";
import type { ReplayReport } from "../../../pager/index.ts";
import type { PlainError, ReplayNote } from "./protocol.ts";

export function plainError(error: unknown): PlainError {
  if (error instanceof MinorfaultError) {
    const { code, message, hint, cause } = error;
    return { code, message, hint, ...(cause === undefined ? {} : { cause: plainError(cause) }) };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: "ERR_BUG", message, hint: new MinorfaultError("ERR_BUG", message).hint };
}

export function errorOf(plain: PlainError): MinorfaultError {
  const { code, message, hint, cause } = plain;
  return new MinorfaultError(code, message, {
    hint,
    ...(cause === undefined ? {} : { cause: errorOf(cause) }),
  });
}

export function plainReplay({ error, ...report }: ReplayReport): ReplayNote {
  return { ...report, ...(error !== undefined && { error: plainError(error) }) };
}

export function replayOf({ error, ...report }: ReplayNote): ReplayReport {
  return { ...report, ...(error !== undefined && { error: errorOf(error) }) };
}
