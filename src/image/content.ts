// How content is stored, and the one place where stored bytes become content.
//
// LAW 1  Nothing is handed on before its hash was right. Decompression goes to a scratch of our own, with a bound
//        that is known before it begins; only content that has the hash it should have is copied to a target.

import { MinorfaultError } from "../base/errors.ts";
import { decompress } from "../source/codec.ts";
import { isHashAt, sha256, toHex } from "./hash.ts";
import { FORMAT_VERSION, HASH_BYTES } from "./limits.ts";

export type Encoding = "raw" | "zstd";
export const ENCODINGS: readonly Encoding[] = ["raw", "zstd"];

/** Where content lies and what it is. */
export interface Stored {
  /** SHA-256 of the content. */
  readonly hash: Uint8Array;
  readonly encoding: Encoding;
  readonly storedBytes: number;
  readonly contentBytes: number;
}

/** The content of stored bytes, verified. The result may be `stored` itself. `what` names it in errors. */
export function contentOf(stored: Uint8Array, entry: Stored, what: () => string): Uint8Array {
  const content = entry.encoding === "raw" ? stored : decompressed(stored, entry.contentBytes, what);
  if (content.byteLength !== entry.contentBytes) {
    throw wrongBytes(`${what()} has ${content.byteLength} bytes instead of ${entry.contentBytes}`);
  }
  const hash = sha256(content);
  if (!isHashAt(hash, entry.hash, 0)) {
    throw wrongBytes(`${what()} has the SHA-256 ${toHex(hash)} instead of ${toHex(entry.hash)}`);
  }
  return content;
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

function decompressed(stored: Uint8Array, contentBytes: number, what: () => string): Uint8Array {
  try {
    return decompress(stored, contentBytes);
  } catch (cause) {
    throw wrongBytes(`${what()} can not be decompressed to ${contentBytes} bytes`, cause);
  }
}
