// A thread that waits for pages on behalf of another one, which has an event loop to turn: it asks the kernel for them
// (MADV_POPULATE_READ), and the kernel asks the page server.

import { parentPort } from "node:worker_threads";
import { ERRNO } from "../../../abi/errno.ts";
import { MADV } from "../../../abi/memory.ts";
import { local } from "../../../linux/index.ts";
import type { PopulateNote, PopulateOrder } from "./served-pager.ts";

/** So much at once: a memory that is closed meanwhile does not wait for long. */
const PIECE_BYTES = 2 ** 20;

parentPort?.on("message", ({ id, start, until }: PopulateOrder) => {
  const note: PopulateNote = { id, errno: populate(start, until) };
  parentPort?.postMessage(note);
});

function populate(start: number, until: number): number {
  for (let at = start; at < until; ) {
    const byteLength = Math.min(PIECE_BYTES, until - at);
    const result = local.call("madvise", at, byteLength, MADV.POPULATE_READ);
    if (result === -ERRNO.EINTR || result === -ERRNO.EAGAIN) continue;
    if (result < 0) return -result;
    at += byteLength;
  }
  return 0;
}
