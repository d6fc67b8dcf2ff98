// zstd, synchronous and bounded: what a chunk decodes to is known before anything is decoded or allocated.
//
// LAW 1  Decompressing gives exactly as many bytes as are asked for or throws ERR_SOURCE_CORRUPT. Input is one frame that
//        declares that size, nothing before or behind it: a bomb is refused by its header (zstd-frame.ts).
// LAW 2  All calls run in the calling thread. libuv's threads, which zlib's asynchronous calls use, may be
//        standing in the faults that a decompression would end.
//
// Two implementations, of which `codec()` picks the first that this Node has: node:zlib (from 22.15 on), else
// zstd compiled to WebAssembly. What one writes the other reads.

import { MinorfaultError } from "../base/errors.ts";
import { checkFrame } from "./zstd-frame.ts";
import { hasZstd, ZstdNative, zstdFunctions } from "./zstd-native.ts";
import { ZstdWasm } from "./zstd-wasm.ts";

/** LIMIT: bytes that one frame may decode to. */
export const DECODED_BYTES_MAX: number = 64 * 2 ** 20;
export const LEVEL_MIN = 1;
export const LEVEL_MAX = 19;
export const LEVEL_DEFAULT = 3;

export type CodecImplementation = "node:zlib" | "zstd-wasm";

export interface Codec {
  readonly implementation: CodecImplementation;
  /** One frame with its content's size in the header. */
  compress(bytes: Uint8Array, level?: number): Uint8Array;
  /** The content of one frame; `byteLength` is what it must decode to. */
  decompress(bytes: Uint8Array, byteLength: number): Uint8Array;
  /** The same into a target, which it must fill; the target may hold anything when this throws. */
  decompressInto(bytes: Uint8Array, target: Uint8Array): void;
}

/** What an implementation provides, behind the checks. */
export interface RawCodec {
  compress(bytes: Uint8Array, level: number): Uint8Array;
  /** Answers how many bytes it has written; fails by throwing anything, or by answering another length. */
  decompressInto(bytes: Uint8Array, target: Uint8Array): number;
}

const opened = new Map<CodecImplementation, Codec>();

/** The codec of this thread. `implementation` insists on one; built-in is ERR_FEATURE_MISSING before Node 22.15. */
export function codec(implementation: CodecImplementation = hasZstd() ? "node:zlib" : "zstd-wasm"): Codec {
  let found = opened.get(implementation);
  if (found === undefined) {
    const raw = implementation === "node:zlib" ? builtIn() : new ZstdWasm();
    found = new CheckedCodec(implementation, raw);
    opened.set(implementation, found);
  }
  return found;
}

export function compress(bytes: Uint8Array, level?: number): Uint8Array {
  return codec().compress(bytes, level);
}

export function decompress(bytes: Uint8Array, byteLength: number): Uint8Array {
  return codec().decompress(bytes, byteLength);
}

export function decompressInto(bytes: Uint8Array, target: Uint8Array): void {
  codec().decompressInto(bytes, target);
}

class CheckedCodec implements Codec {
  readonly implementation: CodecImplementation;
  readonly #raw: RawCodec;

  constructor(implementation: CodecImplementation, raw: RawCodec) {
    this.implementation = implementation;
    this.#raw = raw;
  }

  compress(bytes: Uint8Array, level: number = LEVEL_DEFAULT): Uint8Array {
    checkLength(bytes.byteLength);
    if (!Number.isInteger(level) || level < LEVEL_MIN || level > LEVEL_MAX) {
      throw new MinorfaultError(
        "ERR_BAD_ARGUMENT",
        `A zstd level is an integer from ${LEVEL_MIN} to ${LEVEL_MAX}, not ${level}`,
      );
    }
    return this.#raw.compress(bytes, level);
  }

  decompress(bytes: Uint8Array, byteLength: number): Uint8Array {
    // Nothing is allocated for a frame that says that it is longer.
    checkLength(byteLength);
    checkFrame(bytes, byteLength);
    const { buffer } = Buffer.allocUnsafeSlow(byteLength);
    const content = new Uint8Array(buffer, 0, byteLength);
    this.#decode(bytes, content);
    return content;
  }

  decompressInto(bytes: Uint8Array, target: Uint8Array): void {
    checkLength(target.byteLength);
    checkFrame(bytes, target.byteLength);
    this.#decode(bytes, target);
  }

  #decode(bytes: Uint8Array, target: Uint8Array): void {
    let length: number;
    try {
      length = this.#raw.decompressInto(bytes, target);
    } catch (cause) {
      throw new MinorfaultError("ERR_SOURCE_CORRUPT", "A zstd frame cannot be decoded", { cause });
    }
    if (length === target.byteLength) return;
    throw new MinorfaultError(
      "ERR_SOURCE_CORRUPT",
      `A zstd frame decodes to ${length} bytes and declares ${target.byteLength}`,
    );
  }
}

function checkLength(byteLength: number): void {
  if (Number.isSafeInteger(byteLength) && byteLength >= 0 && byteLength <= DECODED_BYTES_MAX) return;
  throw new MinorfaultError(
    "ERR_OUT_OF_RANGE",
    `A zstd frame holds from 0 to ${DECODED_BYTES_MAX} bytes, not ${byteLength}`,
    { byteLength },
  );
}

function builtIn(): RawCodec {
  if (hasZstd()) return ZstdNative.open() ?? zstdFunctions;
  throw new MinorfaultError(
    "ERR_FEATURE_MISSING",
    `Node ${process.versions.node} has no zstd of its own (22.15 is the first)`,
  );
}
