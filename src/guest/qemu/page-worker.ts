// A thread of the pool that reads pages: it has the image open for itself, and lets everybody else go first.

import { setPriority } from "node:os";
import { parentPort, workerData } from "node:worker_threads";
import { openImage } from "../../image/index.ts";
import { noteOf } from "../../pager/notes.ts";
import { findZeros } from "./page-content.ts";
import { type PoolReply, type PoolRequest, type PoolStart, slotViews } from "./page-pool.ts";
import { readInto, readIntoSync } from "./page-reader.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** Guests, and whoever answers them, come first. On Linux this is of the calling thread alone. */
const NICE = 5;

const { image: which, slots, pagesMax } = workerData as PoolStart;
const views = slots.map((memory) => slotViews(memory, pagesMax));
const opening = openImage(which.url, { digest: which.digest });
// Whoever asks first is told.
opening.catch(() => {});
let chunk: Uint8Array | undefined;

setPriority(NICE);
parentPort?.on("message", async (request: PoolRequest) => {
  parentPort?.postMessage(await answer(request));
});

async function answer({ slot, range }: PoolRequest): Promise<PoolReply> {
  try {
    const image = await opening;
    const { bytes, zeros } = views[slot]!;
    const target = bytes.subarray(0, range.count * PAGE_BYTES);
    chunk ??= new Uint8Array(image.chunkBytes);
    if (!readIntoSync(image, range, target, chunk)) await readInto(image, range, target);
    findZeros(target, zeros);
    return { slot };
  } catch (error) {
    return { slot, error: noteOf(error) };
  }
}
