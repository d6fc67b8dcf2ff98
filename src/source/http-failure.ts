// What a server or the way to it answered, in the words of the catalogue. Names in messages carry no query and no
// credentials; headers and bodies of refusals are never quoted.

import { type ErrorCode, MinorfaultError } from "../base/errors.ts";

/** Statuses of which a later try may know better, besides all of 5xx. */
const RETRYABLE_STATUS: ReadonlySet<number> = new Set([408, 425, 429]);
const CODES: Readonly<Record<number, ErrorCode>> = {
  401: "ERR_SOURCE_DENIED",
  403: "ERR_SOURCE_DENIED",
  404: "ERR_SOURCE_MISSING",
  407: "ERR_SOURCE_DENIED",
  410: "ERR_SOURCE_MISSING",
};

/** The error of a status that is no success. */
export function statusFailure(status: number, name: string): MinorfaultError {
  return new MinorfaultError(
    CODES[status] ?? "ERR_SOURCE_FAILED",
    `${name} was answered with status ${status}`,
    { retryable: status >= 500 || RETRYABLE_STATUS.has(status) },
  );
}

/** What node and undici call a connection that cannot be made; those of the name or the certificate stay that way. */
const UNREACHABLE: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "UND_ERR_CONNECT_TIMEOUT",
]);
const TRUST = /CERT|SELF_SIGNED|ERR_TLS|UNABLE_TO_/;
const BROKEN: ReadonlySet<string> = new Set([
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "UND_ERR_SOCKET",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
]);

/** The error of a connection that failed, before (`answered` false) or after the server's headers. */
export function networkFailure(error: unknown, name: string, answered: boolean): unknown {
  if (error instanceof MinorfaultError || !(error instanceof Error)) return error;
  const reason = reasonOf(error);
  if (BROKEN.has(reason) && answered) {
    return new MinorfaultError("ERR_SOURCE_SHORT", `${name} stopped in the middle of its answer`, {
      cause: error,
      retryable: true,
    });
  }
  if (BROKEN.has(reason) || UNREACHABLE.has(reason)) {
    return new MinorfaultError("ERR_SOURCE_UNREACHABLE", `${name} cannot be reached (${reason})`, {
      cause: error,
      retryable: true,
    });
  }
  if (TRUST.test(reason)) {
    return new MinorfaultError("ERR_SOURCE_DENIED", `${name} cannot be trusted (${reason})`, {
      cause: error,
      hint: "Check the server's certificate, or pass its authority by NODE_EXTRA_CA_CERTS",
    });
  }
  if (reason === "UND_ERR_DESTROYED" || reason === "UND_ERR_CLOSED") {
    return new MinorfaultError("ERR_CLOSED", `${name} has been closed`, { cause: error });
  }
  return new MinorfaultError("ERR_SOURCE_FAILED", `${name} gave an answer that is not HTTP (${reason})`, {
    cause: error,
  });
}

/** The code of an error, or of the first of those that it collects (one an address that was tried). */
function reasonOf(error: Error): string {
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return reasonOf(error.errors[0]);
  return "code" in error && typeof error.code === "string" ? error.code : error.name;
}
