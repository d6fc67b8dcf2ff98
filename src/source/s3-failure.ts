// What S3, its client or the way to it answered, in the words of the catalogue.
//
// The client's own errors are not attached as causes: some carry the request that was signed, the key that signed it
// or the text that was to be signed. What is kept is the error's name and status.

import { MinorfaultError } from "../base/errors.ts";
import { networkFailure, statusFailure } from "./http-failure.ts";

const CONFIGURATION = /Credentials|Region is missing|profile|^Token/i;

export function s3Failure(error: unknown, name: string): unknown {
  if (error instanceof MinorfaultError || !(error instanceof Error)) return error;
  const status = statusOf(error);
  // A status of success is a server that broke off or spoke nonsense behind it.
  if (status !== undefined && status >= 300) return serviceFailure(status, error.name, name);
  if (error.name === "TimeoutError") {
    return new MinorfaultError("ERR_SOURCE_TIMEOUT", `${name} did not answer in time`, { retryable: true });
  }
  if (CONFIGURATION.test(error.name) || CONFIGURATION.test(error.message)) {
    const reason = error.name === "Error" ? CONFIGURATION.exec(error.message)?.[0] : error.name;
    return new MinorfaultError("ERR_SOURCE_DENIED", `${name} cannot be asked: ${reason}`, {
      hint: "Set the region and credentials as for any AWS client (AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID ...)",
    });
  }
  const failure = networkFailure(error, name, status !== undefined);
  if (!(failure instanceof MinorfaultError)) return failure;
  return new MinorfaultError(failure.code, failure.message, { retryable: failure.retryable });
}

export function statusOf(error: unknown): number | undefined {
  const metadata = (error as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata;
  return metadata?.httpStatusCode;
}

function serviceFailure(status: number, errorName: string, name: string): MinorfaultError {
  const plain = statusFailure(status, name);
  const hint = status === 301 ? { hint: "The bucket is in another region: set AWS_REGION" } : {};
  // A name is a code like NoSuchKey; anything else might quote what should not be quoted.
  const reason = /^[A-Za-z]{1,60}$/.test(errorName) ? ` (${errorName})` : "";
  return new MinorfaultError(plain.code, `${plain.message}${reason}`, {
    retryable: plain.retryable,
    ...hint,
  });
}
