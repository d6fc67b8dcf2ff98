// A thread that hashes, compresses or verifies what lies in shared memory. It has nothing of its own but the codec.

import { parentPort, workerData } from "node:worker_threads";
import { ENCODINGS, hashAt } from "./content.ts";
import { batchViews, type CrunchReply, type CrunchRequest, type CrunchStart } from "./crunch-pool.ts";
import { hashChunks, smallerOf, verifyChunks } from "./cruncher.ts";
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
  const { bytes, hashes, checks, zeros, stored, lengths } = slots[slot]!;
  try {
    if (request.op === "hash") {
      hashChunks(bytes, request.chunks, chunkBytes, hashes, zeros);
      return { slot };
    }
    if (request.op === "verify") {
      const entries = request.chunks.map((_, index) => ({
        hash: hashAt(hashes, index * HASH_BYTES),
        check: hashAt(checks, index * HASH_BYTES),
        encoding: ENCODINGS[zeros[index]!]!,
        storedBytes: lengths[index]!,
        contentBytes: chunkBytes,
      }));
      return { slot, wrong: verifyChunks(request.image, stored, entries, request.chunks) };
    }
    for (const chunk of request.wanted) {
      const content = bytes.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes);
      const smaller = smallerOf(content, level);
      lengths[chunk] = smaller === content ? 0 : smaller.byteLength;
      if (smaller === content) continue;
      stored.set(smaller, chunk * chunkBytes);
      checks.set(sha256(smaller), chunk * HASH_BYTES);
    }
    return { slot };
  } catch (error) {
    return { slot, error: error instanceof Error ? error.message : String(error) };
  }
}
