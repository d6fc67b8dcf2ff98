// Whether a server's answer is the range that was asked for, of the object that was opened.
//
// All we trust is what the headers say and what we then count: a server may ignore ranges (200 and everything),
// answer another range, another object, or the same one replaced a moment ago.

import { MinorfaultError } from "../base/errors.ts";
import type { HttpHeaders } from "./http-client.ts";
import { statusFailure } from "./http-failure.ts";

/** What an object was when it was opened. */
export interface HttpIdentity {
  readonly byteLength: number;
  readonly etag: string | undefined;
  readonly lastModified: string | undefined;
}

interface ContentRange {
  readonly start: number;
  /** The last byte, as HTTP counts. */
  readonly last: number;
  /** Undefined where the server doesn't say. */
  readonly total: number | undefined;
}

/**
 * The identity of an object by the answer to a request for `wanted` bytes of it (1 to open it, more to have all of a
 * small one, or those that are read first): throws unless exactly these come, or all where there are fewer.
 */
export function identify(
  status: number,
  headers: HttpHeaders,
  name: string,
  wanted: number,
  offset = 0,
): HttpIdentity {
  const validators = { etag: text(headers, "etag"), lastModified: text(headers, "last-modified") };
  if (status === 416 || status === 200) {
    // Nothing has no first byte: servers refuse the range, or answer with all of it.
    const isEmpty =
      text(headers, status === 200 ? "content-length" : "content-range") ===
      (status === 200 ? "0" : "bytes */0");
    if (isEmpty) return { byteLength: 0, ...validators };
    throw rangeIgnored(name, `it answered with status ${status}`);
  }
  if (status !== 206) throw statusFailure(status, name);
  checkPlain(headers, name);
  const { start, last, total } = parseContentRange(headers, name);
  if (start !== offset || total === undefined || last !== Math.min(offset + wanted, total) - 1) {
    throw rangeIgnored(name, "it did not answer with these bytes and the length");
  }
  return { byteLength: total, ...validators };
}

/** Throws unless the answer is exactly the range [offset, offset + byteLength) of that object. */
export function checkRange(
  status: number,
  headers: HttpHeaders,
  name: string,
  identity: HttpIdentity,
  offset: number,
  byteLength: number,
): void {
  // 412: our If-Match; 416: it has become shorter than what we know to be there.
  if (status === 412 || status === 416) throw changed(name);
  if (status !== 200 && status !== 206) throw statusFailure(status, name);
  if (isOther(identity.etag, headers, "etag")) throw changed(name);
  // A time has seconds only: it speaks where there is no tag.
  if (identity.etag === undefined && isOther(identity.lastModified, headers, "last-modified")) {
    throw changed(name);
  }
  if (status === 200) throw rangeIgnored(name, "it answered with everything");
  checkPlain(headers, name);
  const range = parseContentRange(headers, name);
  if (range.total !== undefined && range.total !== identity.byteLength) throw changed(name);
  if (range.start !== offset || range.last > offset + byteLength - 1) {
    throw rangeIgnored(name, `it answered with bytes ${range.start}-${range.last}`);
  }
  if (range.last < offset + byteLength - 1) {
    throw new MinorfaultError(
      "ERR_SOURCE_SHORT",
      `${name} answered with ${range.last - offset + 1} of ${byteLength} bytes`,
      { retryable: true },
    );
  }
}

function isOther(known: string | undefined, headers: HttpHeaders, header: string): boolean {
  const now = text(headers, header);
  return known !== undefined && now !== undefined && now !== known;
}

/** A range of something compressed on the way is not a range of the object. */
function checkPlain(headers: HttpHeaders, name: string): void {
  const encoding = text(headers, "content-encoding") ?? "identity";
  if (encoding !== "identity") throw rangeIgnored(name, "it compressed its answer");
}

function parseContentRange(headers: HttpHeaders, name: string): ContentRange {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(text(headers, "content-range") ?? "");
  if (match === null) throw rangeIgnored(name, "it did not say which bytes it answers with");
  const [, start = "", last = "", total = ""] = match;
  return {
    start: Number(start),
    last: Number(last),
    total: total === "*" ? undefined : Number(total),
  };
}

export function text(headers: HttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" ? value : value?.[0];
}

function changed(name: string): MinorfaultError {
  return new MinorfaultError("ERR_SOURCE_CHANGED", `${name} has been replaced since it was opened`);
}

function rangeIgnored(name: string, reason: string): MinorfaultError {
  return new MinorfaultError(
    "ERR_SOURCE_RANGE_IGNORED",
    `${name} was asked for a range and did not answer with it: ${reason}`,
  );
}
