// Errors on their way between threads: what structured cloning keeps of them.

import type { ErrorCode } from "../base/errors.ts";
import { type ErrorDetails, MinorfaultError } from "../base/errors.ts";

export interface ErrorNote {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
  readonly errno?: number;
  readonly operation?: string;
  readonly address?: number;
  readonly byteLength?: number;
  readonly retryable?: boolean;
  readonly cause?: unknown;
}

export function noteOf(error: unknown): ErrorNote {
  if (error instanceof MinorfaultError) {
    const { code, message, hint, errno, operation, address, byteLength, retryable, cause } = error;
    return {
      code,
      message,
      hint,
      ...(errno === undefined ? {} : { errno }),
      ...(operation === undefined ? {} : { operation }),
      ...(address === undefined ? {} : { address }),
      ...(byteLength === undefined ? {} : { byteLength }),
      ...(retryable ? { retryable } : {}),
      ...(cause === undefined
        ? {}
        : { cause: cause instanceof MinorfaultError ? noteOf(cause) : plain(cause) }),
    };
  }
  const message = error instanceof Error ? `${error.message}\n${error.stack}` : String(error);
  return { code: "ERR_BUG", message, hint: "Please report it" };
}

/** The error that a note tells of. */
export function errorOf(note: ErrorNote): MinorfaultError {
  const { code, message, ...rest } = note;
  const details: ErrorDetails = isNote(rest.cause) ? { ...rest, cause: errorOf(rest.cause) } : rest;
  return new MinorfaultError(code, message, details);
}

/** A cause may hold what can't be cloned (a socket, a request): its words are kept. */
function plain(cause: unknown): unknown {
  if (!(cause instanceof Error)) return String(cause);
  return new Error(cause.message);
}

function isNote(cause: unknown): cause is ErrorNote {
  return (
    typeof cause === "object" && cause !== null && "code" in cause && "message" in cause && "hint" in cause
  );
}
