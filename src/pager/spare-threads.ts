// Threads that have been started and warmed up before anybody needs them, so that a pager is there in milliseconds.
//
// A thread of JavaScript takes some 50 to 200 ms until it has loaded and compiled what it needs. A spare one has done
// that, and waits for its order; it keeps nobody alive and costs no CPU.

import { type Transferable, Worker } from "node:worker_threads";

const SCRIPTS = {
  serve: new URL("./pager-worker.js", import.meta.url),
  fetch: new URL("./fetch/fetch-worker.js", import.meta.url),
} as const;

export type ThreadKind = keyof typeof SCRIPTS;

/** LIMIT: spare threads of each kind. */
const SPARE_MAX = 64;

const spare: Record<ThreadKind, Worker[]> = { serve: [], fetch: [] };

/** Starts threads for so many pagers to come, and resolves when they are ready; `sources` with those that fetch. */
export async function prepareThreads(count = 1, { sources = true } = {}): Promise<void> {
  const kinds: readonly ThreadKind[] = sources ? ["serve", "fetch"] : ["serve"];
  await Promise.all(
    kinds.flatMap((kind) => {
      const missing = Math.max(0, Math.min(count, SPARE_MAX) - spare[kind].length);
      return Array.from({ length: missing }, () => prepare(kind));
    }),
  );
}

/** A thread with its order: a spare one, or a new one. */
export function startThread(kind: ThreadKind, order: object, transferList: readonly Transferable[]): Worker {
  const prepared = spare[kind].pop();
  if (prepared === undefined) {
    // Flags such as --input-type are for the program, and would be refused here.
    return new Worker(SCRIPTS[kind], { workerData: order, transferList: [...transferList], execArgv: [] });
  }
  // Not all at once: Node has listeners of its own there, without which no message comes any more.
  for (const event of ["error", "exit"]) prepared.removeAllListeners(event);
  prepared.ref();
  prepared.postMessage(order, [...transferList]);
  return prepared;
}

async function prepare(kind: ThreadKind): Promise<void> {
  const worker = new Worker(SCRIPTS[kind], { execArgv: [] });
  await new Promise<void>((resolve, reject) => {
    worker.once("message", () => resolve());
    worker.once("error", reject);
  });
  // One that ends while it waits is not to be handed out, and its failure shows in the next one that is started.
  worker.on("error", () => undefined);
  worker.once("exit", () => {
    const at = spare[kind].indexOf(worker);
    if (at >= 0) spare[kind].splice(at, 1);
  });
  worker.unref();
  spare[kind].push(worker);
}
