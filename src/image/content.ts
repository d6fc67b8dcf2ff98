// How content is stored, and the one place where stored bytes become content.
//
// LAW 1  Nothing is handed on before its hash was right. What is compressed has two: one of the content, which is its
//        name, and one of the stored bytes, its check. Reading compares the check, which costs a third and keeps
//        bytes that nobody vouches for away from the decoder; verifying compares both.
// LAW 2  Decompression has a bound that is known before it begins. It may go to where the content is to be, which nobody
//        looks at before it has ended well.

import { MinorfaultError } from "../base/errors.ts";
import { decompress, decompressInto } from "../source/codec.ts";
import { isHashAt, sha256, toHex } from "./hash.ts";
import { FORMAT_VERSION, HASH_BYTES } from "./limits.ts";

export type Encoding = "raw" | "zstd";
export const ENCODINGS: readonly Encoding[] = ["raw", "zstd"];

/** Where content lies and what it is. */
export interface Stored {
  /** SHA-256 of the content. */
  readonly hash: Uint8Array;
  /** SHA-256 of the stored bytes, if it is known: for content that is stored as it is the same. */
  readonly check?: Uint8Array;
  readonly encoding: Encoding;
  readonly storedBytes: number;
  readonly contentBytes: number;
}

/** What bytes have to be shown to be that are content as they are stored, before anybody uses them. Can be posted. */
export interface Unproven {
  readonly sha256: Uint8Array;
  readonly byteLength: number;
  /** For errors. */
  readonly what: string;
}

/** The content of stored bytes, verified. The result may be `stored` itself. `what` names it in errors. */
export function contentOf(
  stored: Uint8Array,
  entry: Stored,
  what: () => string,
  options: { readonly both?: boolean } = {},
): Uint8Array {
  if (entry.encoding === "raw") return checked(stored, entry.contentBytes, entry.hash, what);
  if (entry.check !== undefined) checked(stored, entry.storedBytes, entry.check, what);
  const content = decompressed(entry, what, () => decompress(stored, entry.contentBytes));
  if (entry.check !== undefined && !options.both) return content;
  return checked(content, entry.contentBytes, entry.hash, what);
}

/** The same into a target, which may hold anything when this throws. */
export function contentInto(stored: Uint8Array, entry: Stored, target: Uint8Array, what: () => string): void {
  const { check, encoding, storedBytes, contentBytes } = entry;
  if (encoding === "raw" || check === undefined || target.byteLength !== contentBytes) {
    target.set(contentOf(stored, entry, what));
    return;
  }
  checked(stored, storedBytes, check, what);
  decompressed(entry, what, () => decompressInto(stored, target));
}

/** Throws what is wrong with bytes that somebody else has read. */
export function verify(bytes: Uint8Array, { byteLength, sha256: expected, what }: Unproven): void {
  checked(bytes, byteLength, expected, () => what);
}

function checked(
  bytes: Uint8Array,
  byteLength: number,
  expected: Uint8Array,
  what: () => string,
): Uint8Array {
  if (bytes.byteLength !== byteLength) {
    throw wrongBytes(`${what()} has ${bytes.byteLength} bytes instead of ${byteLength}`);
  }
  const hash = sha256(bytes);
  if (isHashAt(hash, expected, 0)) return bytes;
  throw wrongBytes(`${what()} has the SHA-256 ${toHex(hash)} instead of ${toHex(expected)}`);
}

export function badImage(message: string, cause?: unknown): MinorfaultError {
  return new MinorfaultError("ERR_BAD_IMAGE", message, cause === undefined ? {} : { cause });
}

export function wrongBytes(message: string, cause?: unknown): MinorfaultError {
  return new MinorfaultError("ERR_WRONG_BYTES", message, cause === undefined ? {} : { cause });
}

/** Binary parts carry the version of the format as well, and are refused by the same rule. */
export function checkBinaryVersion(version: number, what: string): void {
  if (version === FORMAT_VERSION) return;
  throw new MinorfaultError(
    "ERR_IMAGE_VERSION",
    `${what} has version ${version} of the format, this is a reader of version ${FORMAT_VERSION}`,
  );
}

/** A view of 32 bytes at `offset`. */
export function hashAt(bytes: Uint8Array, offset: number): Uint8Array {
  return bytes.subarray(offset, offset + HASH_BYTES);
}

function decompressed<T>({ contentBytes }: Stored, what: () => string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw wrongBytes(`${what()} can not be decompressed to ${contentBytes} bytes`, cause);
  }
}
