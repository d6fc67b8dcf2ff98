// How an error travels: its code, message and hint as JSON, and a status that suits its code.

import { ERRORS, type ErrorCode, type ErrorKind, MinorfaultError } from "../../base/errors.ts";

const STATUS_OF_CODE: Readonly<Partial<Record<ErrorCode, number>>> = {
  ERR_NO_SUCH: 404,
  ERR_DENIED: 403,
  ERR_BUSY: 409,
  ERR_LIMIT: 429,
  ERR_DEADLINE: 504,
  ERR_CLOSED: 503,
};

const STATUS_OF_KIND: Readonly<Record<ErrorKind, number>> = {
  usage: 400,
  state: 409,
  environment: 503,
  kernel: 500,
  source: 502,
  protocol: 400,
  bug: 500,
};

export interface Failure {
  readonly status: number;
  readonly body: {
    readonly error: { readonly code: ErrorCode; readonly message: string; readonly hint: string };
  };
}

export function failureOf(error: unknown): Failure {
  if (error instanceof MinorfaultError) {
    const { code, message, hint, kind } = error;
    return { status: STATUS_OF_CODE[code] ?? STATUS_OF_KIND[kind], body: { error: { code, message, hint } } };
  }
  const refusal = refusalOf(error);
  if (refusal !== undefined) return refusal;
  // What was not thrown on purpose may hold anything, so it is for the log and not for the peer.
  return make(500, "ERR_BUG", "The server made a mistake; its log has more");
}

/** What fastify refuses by itself: bodies that are no JSON, too long, of another type. */
function refusalOf(error: unknown): Failure | undefined {
  const { statusCode, code } = error as { statusCode?: unknown; code?: unknown };
  if (typeof statusCode !== "number" || statusCode < 400 || statusCode > 499) return undefined;
  if (statusCode === 413 || code === "FST_ERR_CTP_BODY_TOO_LARGE") {
    return make(413, "ERR_LIMIT", "The body of the request is too long");
  }
  if (statusCode === 415) return make(415, "ERR_BAD_ARGUMENT", "A body is application/json");
  return make(statusCode, "ERR_BAD_ARGUMENT", "The request is not one of HTTP with a body of JSON");
}

function make(status: number, code: ErrorCode, message: string): Failure {
  return { status, body: { error: { code, message, hint: ERRORS[code].hint } } };
}
