// A thread that hashes, compresses or verifies what lies in shared memory. It has nothing of its own but the codec.

import { parentPort, workerData } from "node:worker_threads";
import { ENCODINGS, hashAt } from "./content.ts";
import {
  type BatchViews,
  batchViews,
  type CrunchReply,
  type CrunchRequest,
  type CrunchStart,
} from "./crunch-pool.ts";
import { hashChunks, smallerOf, verifyChunks, type WrongChunk } from "./cruncher.ts";
import { sha256 } from "./hash.ts";
import { HASH_BYTES } from "./limits.ts";

const { layout, memory } = workerData as CrunchStart;
const { chunkBytes, level } = layout;
const slots = memory.map((shared) => batchViews(shared, layout));

parentPort?.on("message", (request: CrunchRequest) => {
  parentPort?.postMessage(answer(request));
});

function answer(request: CrunchRequest): CrunchReply {
  const { slot } = request;
  const views = slots[slot]!;
  try {
    if (request.op === "hash") {
      const store = (chunk: number, content: Uint8Array) => storeChunk(views, chunk, content);
      hashChunks(views, request.chunks, chunkBytes, request.compress ? store : undefined);
      return { slot };
    }
    if (request.op === "verify") return { slot, wrong: verify(views, request.image, request.chunks) };
    for (const chunk of request.wanted) {
      storeChunk(views, chunk, views.bytes.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes));
    }
    return { slot };
  } catch (error) {
    return { slot, error: error instanceof Error ? error.message : String(error) };
  }
}

function storeChunk(
  { stored, lengths, checks, noise }: BatchViews,
  chunk: number,
  content: Uint8Array,
): void {
  const smaller = smallerOf(content, level, noise[chunk] === 1);
  lengths[chunk] = smaller === content ? 0 : smaller.byteLength;
  if (smaller === content) return;
  stored.set(smaller, chunk * chunkBytes);
  checks.set(sha256(smaller), chunk * HASH_BYTES);
}

function verify(
  { stored, hashes, checks, zeros, lengths }: BatchViews,
  image: string,
  chunks: readonly number[],
): readonly WrongChunk[] {
  const entries = chunks.map((_, index) => ({
    hash: hashAt(hashes, index * HASH_BYTES),
    check: hashAt(checks, index * HASH_BYTES),
    encoding: ENCODINGS[zeros[index]!]!,
    storedBytes: lengths[index]!,
    contentBytes: chunkBytes,
  }));
  return verifyChunks(image, stored, entries, chunks);
}
