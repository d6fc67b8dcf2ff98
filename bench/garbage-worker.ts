// A serving thread that makes garbage: what a pager is in whose isolate somebody else allocates.

import { parentPort, workerData } from "node:worker_threads";
import { acceptInterrupts, local, threadId } from "../src/linux/index.ts";
import type { GuestOrder } from "../src/pager/control.ts";
import { Follower } from "../src/pager/follower.ts";
import { rehearse } from "../src/pager/rehearsal.ts";
import { Seating } from "../src/pager/seating.ts";
import { Server } from "../src/pager/server.ts";

export interface GarbageOrder {
  readonly order: GuestOrder;
  /** 0: the thread's id. 1: it is to end. 2: bytes of garbage, in KiB. */
  readonly words: Int32Array;
  readonly bytesPerSecond: number;
}

const PIECE_BYTES = 4096;
/** LIMIT: garbage that is made at once, after a rest. */
const BURST_BYTES = 1024 * 1024;

const { order, words, bytesPerSecond } = workerData as GarbageOrder;
const now = (): number => performance.now();
let lastMs = now();
let debt = 0;
/** What was made last: for as long it is no garbage. */
const kept: unknown[] = new Array(64);

acceptInterrupts();
rehearse();
words[0] = threadId(local);
const follower = new Follower("same-cpu", now);
const server = new Server({ mode: "same-cpu", follower, now, isNested: false, isSole: true });
const seating = new Seating({
  server,
  companions: new Map(),
  isSole: true,
  now,
  tell: (message) => parentPort?.postMessage(message),
});
seating.seat(order);
follower.follow(order.tid);
server.serve(() => {
  makeGarbage();
  return Atomics.load(words, 1) !== 0;
});
server.close();

function makeGarbage(): void {
  const atMs = now();
  debt = Math.min(BURST_BYTES, debt + ((atMs - lastMs) * bytesPerSecond) / 1000);
  lastMs = atMs;
  for (; debt >= PIECE_BYTES; debt -= PIECE_BYTES) {
    // 8 bytes an element: on the heap of this isolate, unlike the bytes of a buffer.
    kept[(debt / PIECE_BYTES) & 63] = new Array(PIECE_BYTES / 8).fill(debt);
    words[2]! += PIECE_BYTES / 1024;
  }
}
