// How a thread of a pager gets its order: with its start, or later, when it has been prepared.

import { parentPort, workerData } from "node:worker_threads";

/** The order; a thread that has none yet makes itself ready, says so, and waits for it. */
export async function orderOf<Order>(makeReady: () => void | Promise<void>): Promise<Order> {
  if (workerData !== null && workerData !== undefined) return workerData as Order;
  await makeReady();
  return new Promise((resolve) => {
    parentPort?.once("message", resolve);
    parentPort?.postMessage({ kind: "prepared" });
  });
}
