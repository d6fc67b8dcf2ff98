// Threads that have been started and warmed up before anybody needs them, so that a pager is there in milliseconds.
//
// A thread of JavaScript takes some 50 to 200 ms until it has loaded and compiled what it needs. A spare one has done
// that, and waits for its order; it keeps nobody alive and costs no CPU. One that is needed
// before it is ready gets its order at once, and leaves the rest of its preparation.

import { MessageChannel, type Transferable, Worker } from "node:worker_threads";
import type { Preparation } from "./thread-order.ts";

const SCRIPTS = {
  serve: new URL("./pager-worker.js", import.meta.url),
  fetch: new URL("./fetch/fetch-worker.js", import.meta.url),
} as const;

export type ThreadKind = keyof typeof SCRIPTS;

/** LIMIT: spare threads of each kind. */
const SPARE_MAX = 64;

interface SpareThread {
  readonly worker: Worker;
  readonly ready: Promise<void>;
  isReady: boolean;
}

const spare: Record<ThreadKind, SpareThread[]> = { serve: [], fetch: [] };

/**
 * Starts threads for so many pagers to come, and resolves when they are ready; `sources`: with those that fetch; `rehearses`:
 * with their code compiled, and not only loaded.
 */
export async function prepareThreads(count = 1, { sources = true, rehearses = true } = {}): Promise<void> {
  const kinds: readonly ThreadKind[] = sources ? ["serve", "fetch"] : ["serve"];
  await Promise.all(
    kinds.flatMap((kind) => {
      while (spare[kind].length < Math.min(count, SPARE_MAX)) prepare(kind, rehearses);
      return spare[kind].map(({ ready }) => ready);
    }),
  );
}

/** A thread with its order: a spare one, ready or not, or a new one. */
export function startThread(kind: ThreadKind, order: object, transferList: readonly Transferable[]): Worker {
  const taken = spare[kind].find(({ isReady }) => isReady) ?? spare[kind][0];
  if (taken === undefined) {
    // Flags such as --input-type are for the program, and would be refused here.
    return new Worker(SCRIPTS[kind], { workerData: order, transferList: [...transferList], execArgv: [] });
  }
  spare[kind].splice(spare[kind].indexOf(taken), 1);
  const { worker } = taken;
  // Not all at once: Node has listeners of its own there, without which no message comes any more.
  for (const event of ["error", "exit"]) worker.removeAllListeners(event);
  worker.ref();
  worker.postMessage(order, [...transferList]);
  return worker;
}

function prepare(kind: ThreadKind, rehearses: boolean): void {
  const { port1, port2 } = new MessageChannel();
  const workerData: Preparation = { preparing: port2, rehearses };
  const worker = new Worker(SCRIPTS[kind], { workerData, transferList: [port2], execArgv: [] });
  const ready = new Promise<void>((resolve, reject) => {
    // Of one that is ready, that was taken, or that has ended.
    port1.once("close", resolve);
    worker.once("error", reject);
  }).then(() => {
    if (!spare[kind].includes(thread)) return;
    thread.isReady = true;
    // Its failure shows in the next one that is started.
    worker.on("error", () => undefined);
    worker.unref();
  });
  ready.catch(() => undefined);
  const thread: SpareThread = { worker, ready, isReady: false };
  spare[kind].push(thread);
  // One that ends while it waits is not to be handed out.
  worker.once("exit", () => {
    const at = spare[kind].indexOf(thread);
    if (at >= 0) spare[kind].splice(at, 1);
  });
}
