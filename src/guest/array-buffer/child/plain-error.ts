// Errors as plain data and back.

import { MinorfaultError } from "../../../base/errors.ts";
import type { PlainError } from "./protocol.ts";

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
