// A thread of the pool that reads pages: lets everybody else go first, from its first instruction on, and is ready before
// it is told of an image.

import { setPriority } from "node:os";
import { parentPort } from "node:worker_threads";
import type { PoolMessage } from "./page-pool.ts";

/** Guests, and whoever answers them, come first. On Linux this is of the calling thread alone. */
const NICE = 5;

setPriority(NICE);
const { PageFiller } = await import("./page-filler.ts");
const fillers = new Map<number, InstanceType<typeof PageFiller>>();

parentPort?.on("message", async (message: PoolMessage) => {
  const { kind, reader } = message;
  if (kind === "start") fillers.set(reader, new PageFiller(message));
  else if (kind === "read") parentPort?.postMessage(await fillers.get(reader)!.answer(message));
  else {
    const filler = fillers.get(reader);
    fillers.delete(reader);
    await filler?.close();
  }
});
