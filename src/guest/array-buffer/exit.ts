// The end of the process while threads wait for pages.
//
// Node ends by joining its workers, and a worker that stands at a missing page while its pager has stopped would
// be joined for ever. Giving it zeros instead would be a lie. So where memories are open, the process ends by the
// kernel's own exit_group, which takes threads out of faults, after all listeners of "exit" have run:
//
//   process.exit()     calls process.reallyExit last: ours
//   loop has run dry   "beforeExit" tells; our listener then goes to the end of the line, and exits itself
//   uncaught error     Node still has to print it: the waiting threads are let go, and are stopped before long
//   a worker's end     other threads live on: what the worker has opened reads zeros, as after close()

import { isMainThread } from "node:worker_threads";
import { local } from "../../linux/index.ts";

export interface OpenedHere {
  /** Lets every thread go on that waits in it; synchronous, at the very end. */
  abandon(): void;
}

const open = new Set<OpenedHere>();
let isInstalled = false;
let isCrashing = false;
let hasRunDry = false;

/** From now on the end of this thread takes care of it. */
export function watchExit(memory: OpenedHere): void {
  open.add(memory);
  if (isInstalled) return;
  isInstalled = true;
  process.on("exit", onExit);
  process.on("beforeExit", () => {
    hasRunDry = true;
    process.off("exit", onExit);
    process.on("exit", onExit);
  });
  process.on("uncaughtExceptionMonitor", () => {
    isCrashing = true;
  });
}

export function unwatchExit(memory: OpenedHere): void {
  open.delete(memory);
}

function onExit(code: number): void {
  if (open.size === 0) return;
  if (!isMainThread || isCrashing) {
    for (const memory of open) memory.abandon();
    return;
  }
  if (hasRunDry) exitGroup(code);
  (process as unknown as { reallyExit: (code?: number) => void }).reallyExit = (given) =>
    exitGroup(given ?? code);
}

function exitGroup(code: number): void {
  local.call("exit_group", Number(process.exitCode ?? code) & 0xff);
}
