// Hashes and compresses batches of chunks, or verifies them as they are stored: in this thread, or in as many threads as
// the machine has processors.
//
// When building, a batch goes twice over the fence: first all its chunks are hashed, then those are compressed that are
// stored nowhere yet, which only the builder knows.

import { availableParallelism } from "node:os";
import { MinorfaultError } from "../base/errors.ts";
import { compress, LEVEL_DEFAULT } from "../source/codec.ts";
import { contentOf, type Encoding, type Stored } from "./content.ts";
import { sha256 } from "./hash.ts";
import { HASH_BYTES } from "./limits.ts";
import type { ChunkRecord } from "./walk.ts";

/** What a chunk comes to; valid until the batch is released. */
export interface StoredChunk {
  readonly bytes: Uint8Array;
  /** SHA-256 of these bytes. */
  readonly check: Uint8Array;
  readonly encoding: Encoding;
}

/** A batch in memory that is filled by whoever reads, and read by whoever hashes. */
export interface Batch {
  /** Room for `capacity` chunks. */
  readonly bytes: Uint8Array;
  readonly capacity: number;
  /** After hash(): 32 bytes a chunk. */
  readonly hashes: Uint8Array;
  /** 1 where a chunk is nothing but zeros; such a chunk has no hash. Before hash(): where that is known already. */
  readonly zeros: Uint8Array;
  /** `areNew`: they are likely to be wanted, so all are compressed at once, while a processor has them at hand. */
  hash(chunks: number, areNew: boolean): Promise<void>;
  /** Compresses the chunks `wanted`, unless that has been done; `stored` then says what is to be stored. */
  compress(wanted: readonly number[]): Promise<void>;
  stored(chunk: number): StoredChunk;
  /** Room for chunks as they are stored, one after the other, to be verified. */
  readonly storedRoom: Uint8Array;
  /** Compares all hashes of what lies there with what the index says; answers what is wrong. */
  verify(image: string, records: readonly ChunkRecord[]): Promise<readonly WrongChunk[]>;
  /** Gives the batch back. */
  release(): void;
}

export interface WrongChunk {
  readonly chunk: number;
  readonly code: string;
  readonly message: string;
}

export interface Cruncher {
  /** Whether batches lie in memory that other threads can read as well. */
  readonly isShared: boolean;
  /** A free batch; waits until there is one. */
  take(): Promise<Batch>;
  close(): Promise<void>;
}

export interface CruncherOptions {
  readonly chunkBytes: number;
  /** Undefined: nothing is compressed. */
  readonly level: number | undefined;
}

/** LIMIT: bytes of a batch, or one chunk. */
const BATCH_BYTES = 2 ** 20;
/** LIMIT: threads. */
const THREADS_MAX = 16;
/** Content below which threads would have cost more than they bring. */
const THREADS_PAY_BYTES = 24 * 2 ** 20;

export function batchChunks(chunkBytes: number): number {
  return Math.max(1, BATCH_BYTES / chunkBytes);
}

/** `contentBytes`: about how much there is to do. */
export async function openCruncher(options: CruncherOptions, contentBytes: number): Promise<Cruncher> {
  const threads = Math.min(availableParallelism(), THREADS_MAX);
  if (threads < 2 || contentBytes < THREADS_PAY_BYTES) return new InlineCruncher(options);
  const { CrunchPool } = await import("./crunch-pool.ts");
  return CrunchPool.open(options, threads);
}

class InlineCruncher implements Cruncher {
  readonly isShared = false;
  readonly #batch: InlineBatch;
  readonly #waiting: (() => void)[] = [];
  #isTaken = false;

  constructor(options: CruncherOptions) {
    this.#batch = new InlineBatch(options, () => {
      const next = this.#waiting.shift();
      if (next === undefined) this.#isTaken = false;
      else next();
    });
  }

  async take(): Promise<Batch> {
    if (this.#isTaken) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#isTaken = true;
    return this.#batch;
  }

  async close(): Promise<void> {}
}

class InlineBatch implements Batch {
  readonly capacity: number;
  readonly bytes: Uint8Array;
  readonly hashes: Uint8Array;
  readonly zeros: Uint8Array;
  readonly noise: Uint8Array;
  readonly storedRoom: Uint8Array;
  readonly release: () => void;
  readonly #options: CruncherOptions;

  constructor(options: CruncherOptions, release: () => void) {
    this.capacity = batchChunks(options.chunkBytes);
    this.bytes = new Uint8Array(this.capacity * options.chunkBytes);
    this.hashes = new Uint8Array(this.capacity * HASH_BYTES);
    this.zeros = new Uint8Array(this.capacity);
    this.noise = new Uint8Array(this.capacity);
    this.storedRoom = new Uint8Array(this.capacity * options.chunkBytes);
    this.release = release;
    this.#options = options;
  }

  async hash(chunks: number): Promise<void> {
    hashChunks(this, chunks, this.#options.chunkBytes);
  }

  async compress(): Promise<void> {}

  stored(chunk: number): StoredChunk {
    const { chunkBytes, level } = this.#options;
    const content = this.bytes.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes);
    const bytes = smallerOf(content, level, this.noise[chunk] === 1);
    const hash = this.hashes.subarray(chunk * HASH_BYTES, (chunk + 1) * HASH_BYTES);
    return bytes === content
      ? { bytes, check: hash, encoding: "raw" }
      : { bytes, check: sha256(bytes), encoding: "zstd" };
  }

  async verify(image: string, records: readonly ChunkRecord[]): Promise<readonly WrongChunk[]> {
    const contentBytes = this.#options.chunkBytes;
    const entries = records.map(({ record }) => ({ ...record, contentBytes }));
    const numbers = records.map(({ chunk }) => chunk);
    return verifyChunks(image, this.storedRoom, entries, numbers);
  }
}

/** Verifies chunks that are stored one after the other; `numbers` are theirs in the image. */
export function verifyChunks(
  image: string,
  stored: Uint8Array,
  entries: readonly Stored[],
  numbers: readonly number[],
): WrongChunk[] {
  const wrong: WrongChunk[] = [];
  let at = 0;
  for (const [index, entry] of entries.entries()) {
    const chunk = numbers[index]!;
    const bytes = stored.subarray(at, at + entry.storedBytes);
    at += entry.storedBytes;
    try {
      contentOf(bytes, entry, () => `chunk ${chunk} of ${image}`, { both: true });
    } catch (error) {
      if (!(error instanceof MinorfaultError) || error.kind !== "source") throw error;
      wrong.push({ chunk, code: error.code, message: error.message });
    }
  }
  return wrong;
}

/** Samples of content whose bytes are counted, and the least content that it is done for. */
const SAMPLES = 4096;
const SAMPLED_BYTES_MIN = 4 * SAMPLES;
/**
 * Of noise the squares of the counts of 4096 bytes sum up to 69,616 ± 361: more where some bytes are preferred (of 7.97
 * bits a byte, to 72,000), less where they take turns.
 */
const NOISE_SQUARES = { min: 68_000, max: 72_000 };
const counts = new Uint32Array(256);

/**
 * Whether content looks as if it were compressed or encrypted already, which a compressor would find out as well, after
 * forty times as long. Content of noise that repeats itself within a chunk is not found out.
 */
function isNoise(content: Uint8Array): boolean {
  if (content.byteLength < SAMPLED_BYTES_MIN) return false;
  // Odd, so that every byte of a word has its turn.
  const stride = (Math.floor(content.byteLength / SAMPLES) - 1) | 1;
  counts.fill(0);
  for (let sample = 0, at = 0; sample < SAMPLES; sample++, at += stride) counts[content[at]!]!++;
  let squares = 0;
  for (let byte = 0; byte < counts.length; byte++) squares += counts[byte]! ** 2;
  return squares > NOISE_SQUARES.min && squares < NOISE_SQUARES.max;
}

/** Compressed content where that is smaller, else the content itself. Who asks for a high level has time to try. */
export function smallerOf(content: Uint8Array, level: number | undefined, seemsNoise?: boolean): Uint8Array {
  if (level === undefined || (level <= LEVEL_DEFAULT && (seemsNoise ?? isNoise(content)))) return content;
  const compressed = compress(content, level);
  return compressed.byteLength < content.byteLength ? compressed : content;
}

/** A batch as those see it who look at its chunks. */
export interface LookedAt {
  readonly bytes: Uint8Array;
  readonly hashes: Uint8Array;
  readonly zeros: Uint8Array;
  /** 1 where compressing a chunk would be in vain. */
  readonly noise: Uint8Array;
}

/**
 * Finds zeros, beside those that are known, and hashes the rest. Samples are taken first: that brings all of a chunk
 * from memory at once, for which a hash would wait line by line, a quarter of its time.
 */
export function hashChunks(
  { bytes, hashes, zeros, noise }: LookedAt,
  chunks: number,
  chunkBytes: number,
  hashed: (chunk: number, content: Uint8Array) => void = () => {},
): void {
  const words = new Float64Array(bytes.buffer, bytes.byteOffset, (chunks * chunkBytes) / 8);
  const wordsPerChunk = chunkBytes / 8;
  for (let chunk = 0; chunk < chunks; chunk++) {
    if (zeros[chunk] === 1) continue;
    const isZero = areZeros(words, bytes, chunk * wordsPerChunk, (chunk + 1) * wordsPerChunk);
    zeros[chunk] = isZero ? 1 : 0;
    if (isZero) continue;
    const content = bytes.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes);
    noise[chunk] = isNoise(content) ? 1 : 0;
    hashes.set(sha256(content), chunk * HASH_BYTES);
    hashed(chunk, content);
  }
}

/** Doubles are the widest words that JavaScript compares quickly; -0 equals 0, so a hit is looked at bytewise. */
function areZeros(words: Float64Array, bytes: Uint8Array, from: number, until: number): boolean {
  for (let word = from; word < until; word++) {
    if (words[word] !== 0) return false;
  }
  for (let byte = from * 8 + 7; byte < until * 8; byte += 8) {
    if (bytes[byte] !== 0) return false;
  }
  return true;
}
