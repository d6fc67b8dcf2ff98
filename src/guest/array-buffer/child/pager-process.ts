// A process that serves the faults of another one: the same pager as in a worker thread, told over a channel.
//
// It has the userfaultfd by inheritance, and nothing else of the guest: pages are installed through the descriptor. It
// ends when its parent does.

import { type Pager, startPager } from "../../../pager/index.ts";
import { plainError, plainReplay } from "./plain-error.ts";
import {
  FILE_IN_CHILD,
  type PagerNote,
  type PagerOrder,
  type PagerStart,
  UFFD_IN_CHILD,
} from "./protocol.ts";

/** How often the parent hears of the counters, when they have changed. */
const STATISTICS_MS = 20;

let pager: Pager | undefined;
let toldTouches = 0;
const tell = (note: PagerNote): void => {
  // A parent that has just ended is noticed by "disconnect", not by a message that can't be delivered.
  if (process.connected) process.send?.(note, undefined, undefined, () => undefined);
};

process.on("message", (order: PagerOrder) => {
  take(order).catch((error: unknown) => {
    tell({ kind: "error", error: plainError(error) });
    process.exit(1);
  });
});
process.on("disconnect", () => process.exit(0));
// Ctrl-C in a terminal reaches the whole group: it is the parent who decides.
process.on("SIGINT", () => undefined);

async function take(order: PagerOrder): Promise<void> {
  if (order.kind === "start") await start(order.start);
  else if (order.kind === "install") await install(order.id, order.start, order.until);
  else if (order.kind === "repair") await repair(order.id, order.start, order.until);
  else if (order.kind === "trace") tellTouches(order.id);
  else await end();
}

async function start({ address, byteLength, pid, ...options }: PagerStart): Promise<void> {
  const { fileBytes, source, writes, plan, placement, trace } = options;
  pager = await startPager({
    descriptor: UFFD_IN_CHILD,
    regions: [{ start: address, byteLength, imageOffset: 0 }],
    writes,
    guest: { pid },
    onError: (error) => tell({ kind: "error", error: plainError(error) }),
    ...(fileBytes === undefined ? {} : { image: { descriptor: FILE_IN_CHILD, byteLength: fileBytes } }),
    ...(source === undefined ? {} : { source }),
    ...(plan === undefined ? {} : { plan }),
    ...(placement === undefined ? {} : { placement }),
    ...(trace === undefined ? {} : { trace }),
  });
  pager.replayed.then((report) => {
    tell({ kind: "replayed", ...(report !== undefined && { report: plainReplay(report) }) });
  });
  pager.ended.then((ended) => {
    if (ended.reason === "failed") tell({ kind: "error", error: plainError(ended.error) });
    process.exit(ended.reason === "failed" ? 1 : 0);
  });
  let last = "";
  setInterval(() => {
    if (trace) tellTouches();
    const statistics = pager?.statistics();
    const text = JSON.stringify(statistics);
    if (statistics === undefined || text === last) return;
    last = text;
    tell({ kind: "statistics", statistics });
  }, STATISTICS_MS);
  tell({ kind: "ready" });
}

async function install(id: number, from: number, until: number): Promise<void> {
  try {
    await pager?.installAll({ range: { start: from, until } });
    tell({ kind: "installed", id });
  } catch (error) {
    tell({ kind: "installed", id, error: plainError(error) });
  }
}

async function repair(id: number, from: number, until: number): Promise<void> {
  try {
    const report = await pager?.repair({ start: from, until });
    tell({ kind: "repaired", id, ...(report !== undefined && { report }) });
  } catch (error) {
    tell({ kind: "repaired", id, error: plainError(error) });
  }
}

/** Touches that the parent has not heard of: they must outlive this process. */
function tellTouches(id?: number): void {
  const { touches = [], dropped = 0 } = pager?.trace() ?? {};
  const fresh = touches.slice(toldTouches);
  if (id === undefined && fresh.length === 0) return;
  toldTouches = touches.length;
  tell({ kind: "touches", ...(id !== undefined && { id }), trace: { touches: fresh, dropped } });
}

async function end(): Promise<void> {
  await pager?.close();
  process.exit(0);
}
