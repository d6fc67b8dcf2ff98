// The thread behind readiness.ts: waits in epoll, and posts the descriptors that are ready.

import { parentPort, workerData } from "node:worker_threads";
import { Epoll, local } from "../linux/index.ts";
import type { ReadinessOrder } from "./readiness.ts";

const { epoll, end } = workerData as ReadinessOrder;
const set = new Epoll(local, process.arch, epoll);
for (;;) {
  const ready = set.wait(-1).map(({ fd }) => fd);
  if (ready.includes(end)) break;
  if (ready.length > 0) parentPort?.postMessage(ready);
}
