// zstd as WebAssembly, for Nodes that have none of their own: @bokuweb/zstd-wasm, entered below its public functions.
//
// Those start asynchronously by way of libuv's threads, and allocate a context and two buffers for each call. Here
// the module is instantiated in place, contexts stay, and buffers grow to the largest that was needed; so that
// decoding 64 KiB takes as long as the built-in one does (about 130 µs here). The package's version is exact in package.json, and the tests go through all
// that is used of it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { MinorfaultError } from "../base/errors.ts";
import type { RawCodec } from "./codec.ts";

/** What we use of the emscripten module; addresses and sizes are 32-bit, negative ones are errors or wrapped. */
interface Zstd {
  HEAPU8: Uint8Array;
  init(): unknown;
  instantiateWasm?: (imports: object, receive: (instance: object) => unknown) => unknown;
  _malloc(byteLength: number): number;
  _free(address: number): void;
  _ZSTD_isError(result: number): number;
  _ZSTD_compressBound(byteLength: number): number;
  _ZSTD_createCCtx(): number;
  _ZSTD_createDCtx(): number;
  _ZSTD_compress_usingDict(
    context: number,
    target: number,
    capacity: number,
    source: number,
    byteLength: number,
    dictionary: number,
    dictionaryBytes: number,
    level: number,
  ): number;
  _ZSTD_decompress_usingDict(
    context: number,
    target: number,
    capacity: number,
    source: number,
    byteLength: number,
    dictionary: number,
    dictionaryBytes: number,
  ): number;
}

/** The part of the global that we use: TypeScript only knows it together with a whole browser. */
interface Engine {
  readonly Module: new (binary: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => object;
}

export class ZstdWasm implements RawCodec {
  readonly #zstd: Zstd;
  readonly #source: WasmBuffer;
  readonly #target: WasmBuffer;
  #compressor = 0;
  #decompressor = 0;

  constructor() {
    this.#zstd = instantiate();
    this.#source = new WasmBuffer(this.#zstd);
    this.#target = new WasmBuffer(this.#zstd);
  }

  compress(bytes: Uint8Array, level: number): Uint8Array {
    const zstd = this.#zstd;
    this.#compressor ||= allocated(zstd._ZSTD_createCCtx());
    const capacity = zstd._ZSTD_compressBound(bytes.byteLength) >>> 0;
    const target = this.#target.reserve(capacity);
    const source = this.#source.fill(bytes);
    const result = zstd._ZSTD_compress_usingDict(
      this.#compressor,
      target,
      capacity,
      source,
      bytes.byteLength,
      0,
      0,
      level,
    );
    return this.#written(result).slice();
  }

  decompressInto(bytes: Uint8Array, target: Uint8Array): number {
    const zstd = this.#zstd;
    const { byteLength } = target;
    this.#decompressor ||= allocated(zstd._ZSTD_createDCtx());
    const room = this.#target.reserve(byteLength);
    const source = this.#source.fill(bytes);
    const written = this.#written(
      zstd._ZSTD_decompress_usingDict(this.#decompressor, room, byteLength, source, bytes.byteLength, 0, 0),
    );
    target.set(written);
    return written.byteLength;
  }

  /** What the last call wrote: the memory of the module is used again by the next one. */
  #written(result: number): Uint8Array {
    if (this.#zstd._ZSTD_isError(result) !== 0) {
      throw new MinorfaultError("ERR_SOURCE_CORRUPT", `zstd failed with its error ${-(result | 0)}`);
    }
    return this.#zstd.HEAPU8.subarray(this.#target.address, this.#target.address + (result >>> 0));
  }
}

/** A piece of the module's memory that only grows. */
class WasmBuffer {
  readonly #zstd: Zstd;
  #byteLength = 0;
  address = 0;

  constructor(zstd: Zstd) {
    this.#zstd = zstd;
  }

  reserve(byteLength: number): number {
    if (byteLength <= this.#byteLength) return this.address;
    if (this.address !== 0) this.#zstd._free(this.address);
    this.address = 0;
    this.#byteLength = 0;
    this.address = allocated(this.#zstd._malloc(byteLength));
    this.#byteLength = byteLength;
    return this.address;
  }

  fill(bytes: Uint8Array): number {
    const address = this.reserve(Math.max(bytes.byteLength, 1));
    // Read anew each time: growing the memory replaces the view.
    this.#zstd.HEAPU8.set(bytes, address);
    return address;
  }
}

function allocated(address: number): number {
  if (address === 0) throw new MinorfaultError("ERR_LIMIT", "The zstd module has no memory left");
  return address >>> 0;
}

function instantiate(): Zstd {
  const require = createRequire(import.meta.url);
  const folder = dirname(require.resolve("@bokuweb/zstd-wasm"));
  const { Module: zstd } = require(join(folder, "zstd.js")) as { Module: Zstd };
  const { Module, Instance } = (globalThis as unknown as { WebAssembly: Engine }).WebAssembly;
  const binary = readFileSync(join(folder, "zstd.wasm"));
  // The hook that emscripten has for those who instantiate themselves; with it `init` is done when it returns.
  zstd.instantiateWasm = (imports, receive) => receive(new Instance(new Module(binary), imports));
  zstd.init();
  return zstd;
}
