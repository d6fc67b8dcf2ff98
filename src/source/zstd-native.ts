// Node's own zstd, with contexts that stay.
//
// The synchronous functions of node:zlib make a stream and a context for each call, and throw them away: for 64 KiB
// that takes as long as the work itself. What they call in the end is a stream's handle, which codes from one buffer
// into another and can do so again. It is not a public interface, so it is tried out against those functions
// first, and where it is not what we know (`ZstdNative.open` answers nothing) they are what is used.

import * as zlib from "node:zlib";
import type { RawCodec } from "./codec.ts";

/** The part of node:zlib that Node 20 and its types don't know. */
interface ZstdOptions {
  readonly params?: Readonly<Record<number, number>>;
  readonly chunkSize?: number;
  readonly maxOutputLength?: number;
  readonly pledgedSrcSize?: number;
}
interface BuiltIn {
  readonly zstdCompressSync: (bytes: Uint8Array, options: ZstdOptions) => Uint8Array;
  readonly zstdDecompressSync: (bytes: Uint8Array, options: ZstdOptions) => Uint8Array;
  readonly ZstdCompress: new (options: ZstdOptions) => Stream;
  readonly ZstdDecompress: new (options: ZstdOptions) => Stream;
  readonly constants: { readonly ZSTD_c_compressionLevel: number; readonly ZSTD_e_end: number };
}

/** What we use of a stream: after a write its state is how much room and how much input is left. */
interface Stream {
  readonly _handle: {
    onerror: (message: string) => void;
    writeSync(
      flush: number,
      source: Uint8Array,
      sourceAt: number,
      sourceBytes: number,
      target: Uint8Array,
      targetAt: number,
      targetBytes: number,
    ): void;
  };
  readonly _writeState: Uint32Array;
}

const builtIn = zlib as unknown as BuiltIn;

/** Node's releases whose handles were tried: a call with the wrong arguments would end the process, not throw. */
const TRIED: ReadonlySet<string> = new Set(["22", "24"]);
/** The smallest chunk that zlib takes. */
const CHUNK_BYTES_MIN = 64;
/** LIMIT: bytes of the buffer for compressed bytes that is kept. */
const ROOM_BYTES_KEPT = 2 ** 20;

/** Whether this Node has zstd. */
export function hasZstd(): boolean {
  return "zstdDecompressSync" in zlib;
}

/** The public functions. */
export const zstdFunctions: RawCodec & {
  decompress(bytes: Uint8Array, byteLength: number): Uint8Array;
} = {
  compress: (bytes, level) =>
    plainBytes(builtIn.zstdCompressSync(bytes, { params: levelOf(level), pledgedSrcSize: bytes.byteLength })),
  // One piece of output of exactly the size, so that nothing is joined.
  decompress: (bytes, byteLength) =>
    plainBytes(
      builtIn.zstdDecompressSync(bytes, {
        chunkSize: Math.max(byteLength, CHUNK_BYTES_MIN),
        maxOutputLength: Math.max(byteLength, 1),
      }),
    ),
  decompressInto(bytes, target) {
    const content = zstdFunctions.decompress(bytes, target.byteLength);
    target.set(content);
    return content.byteLength;
  },
};

/** One context, which codes one frame at a time. */
class Coder {
  readonly #stream: Stream;
  #failure: string | undefined;

  constructor(stream: Stream) {
    this.#stream = stream;
    stream._handle.onerror = (message) => {
      this.#failure = message;
    };
  }

  /** Codes all of the source into the target: how many bytes that came to. After it has thrown it is of no use. */
  run(source: Uint8Array, target: Uint8Array): number {
    const { _handle: handle, _writeState: state } = this.#stream;
    const room = target.byteLength;
    handle.writeSync(builtIn.constants.ZSTD_e_end, source, 0, source.byteLength, target, 0, room);
    if (this.#failure !== undefined) throw new Error(this.#failure);
    const [roomLeft = 0, sourceLeft = 0] = state;
    if (sourceLeft !== 0) throw new Error(`${sourceLeft} bytes are left`);
    return room - roomLeft;
  }
}

export class ZstdNative implements RawCodec {
  #decoder: Coder | undefined;
  #encoder: { readonly level: number; readonly coder: Coder } | undefined;
  #room = new Uint8Array(0);

  /** Undefined where handles are not what they were when this was written. */
  static open(): ZstdNative | undefined {
    if (!TRIED.has(process.versions.node.split(".", 1)[0]!)) return undefined;
    try {
      const native = new ZstdNative();
      return native.#isRight() ? native : undefined;
    } catch {
      return undefined;
    }
  }

  compress(bytes: Uint8Array, level: number): Uint8Array {
    const kept = this.#encoder;
    const coder =
      kept?.level === level ? kept.coder : new Coder(new builtIn.ZstdCompress({ params: levelOf(level) }));
    const room = this.#roomFor(bytes.byteLength);
    this.#encoder = undefined;
    const length = coder.run(bytes, room);
    this.#encoder = { level, coder };
    return room.slice(0, length);
  }

  decompressInto(bytes: Uint8Array, target: Uint8Array): number {
    const coder = this.#decoder ?? new Coder(new builtIn.ZstdDecompress({}));
    // One that fails is not used again.
    this.#decoder = undefined;
    const length = coder.run(bytes, target);
    if (length === target.byteLength) this.#decoder = coder;
    return length;
  }

  /** As much as a frame of so many bytes can have (ZSTD_compressBound). */
  #roomFor(byteLength: number): Uint8Array {
    const bound = byteLength + (byteLength >>> 8) + 512;
    if (bound > ROOM_BYTES_KEPT) return new Uint8Array(bound);
    if (this.#room.byteLength < bound) this.#room = new Uint8Array(bound);
    return this.#room;
  }

  /** Two frames one after the other, both ways, against the public functions. */
  #isRight(): boolean {
    return [3, 5000].every((length) => {
      const bytes = Uint8Array.from({ length }, (_, index) => index % 251);
      const there = zstdFunctions.decompress(this.compress(bytes, 3), length);
      const back = new Uint8Array(length);
      this.decompressInto(zstdFunctions.compress(bytes, 3), back);
      return Buffer.compare(there, bytes) === 0 && Buffer.compare(back, bytes) === 0;
    });
  }
}

function levelOf(level: number): Readonly<Record<number, number>> {
  return { [builtIn.constants.ZSTD_c_compressionLevel]: level };
}

/** Not a Buffer, whose `slice` shares memory where that of a Uint8Array copies. */
function plainBytes({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
