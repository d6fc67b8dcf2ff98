// Keeps a pager's process: starts it, passes on what is said, and is there when it dies.
//
// The thread that opened the memory may itself stand at a missing page when that happens, so this is a thread of its own,
// which touches no paged memory. A message that the dead process had read is not lost: WAKE makes every waiting
// thread fault again, for the next process. A pager that dies again and again is not started for ever: then what
// is missing is poisoned, and whoever touches it is told.

import { type ChildProcess, fork } from "node:child_process";
import { parentPort, workerData } from "node:worker_threads";
import { PAGE_SIZE } from "../../../abi/memory.ts";
import { MinorfaultError } from "../../../base/errors.ts";
import { local } from "../../../linux/index.ts";
import type { Touch, Trace } from "../../../pager/index.ts";
import { Ioctls } from "../../../uffd/index.ts";
import { plainError } from "./plain-error.ts";
import type { KeeperNote, KeeperOrder, KeeperStart, PagerNote, TraceRequest } from "./protocol.ts";

/** LIMIT: deaths within a minute before it is given up. */
const DEATHS_MAX = 5;
const DEATHS_WITHIN_MS = 60_000;

const { start, uffd, file, isPinned } = workerData as KeeperStart;
const ioctls = new Ioctls(local, uffd);
const deaths: number[] = [];
/** Orders without an answer: the next process has to carry them out. */
const pending = new Map<number, KeeperOrder>();
/** What all processes have recorded, each after the one before. */
const touches: Touch[] = [];
/** Touches that found no room: of the processes that have ended, and of the present one. */
let droppedBefore = 0;
let dropped = 0;
const bornMs = performance.now();
let launchedMs = bornMs;
const traceRequests = new Map<number, TraceRequest>();
/** Numbers of our own: below 0, those of the opener are above. */
let lastId = 0;
let isClosing = false;
/** Some process has served. */
let isReady = false;
/** The present one does: what it is asked before would be asked again when it says so. */
let isServing = false;
let lastError: KeeperNote | undefined;
let child = launch();

const tell = (note: KeeperNote): void => parentPort?.postMessage(note);

parentPort?.on("message", (said: KeeperOrder | TraceRequest) => {
  const order = said.kind === "await-trace" ? traceOrder(said) : said;
  if (order.kind === "close") isClosing = true;
  else pending.set(order.id, order);
  if (isServing || order.kind === "close") child.send(order);
});

function traceOrder(request: TraceRequest): KeeperOrder {
  const id = --lastId;
  traceRequests.set(id, request);
  return { kind: "trace", id };
}

/** Keeps what was touched; answers whoever waits for it. */
function noteTouches({ id, trace }: Extract<PagerNote, { kind: "touches" }>): void {
  const later = launchedMs - bornMs;
  for (const touch of trace.touches) touches.push({ ...touch, ms: touch.ms + later });
  dropped = trace.dropped;
  if (id === undefined) return;
  pending.delete(id);
  answerTrace(id);
}

function answerTrace(id: number): void {
  const request = traceRequests.get(id);
  traceRequests.delete(id);
  const trace: Trace = { touches, dropped: droppedBefore + dropped };
  request?.port.postMessage(trace);
  if (request === undefined) return;
  Atomics.store(request.isThere, 0, 1);
  Atomics.notify(request.isThere, 0);
}

function launch(): ChildProcess {
  launchedMs = performance.now();
  droppedBefore += dropped;
  dropped = 0;
  const program = new URL("./pager-process.js", import.meta.url);
  const born = fork(program, {
    execArgv: [],
    // UFFD_IN_CHILD and FILE_IN_CHILD are places in this list.
    stdio: ["ignore", "ignore", "inherit", "ipc", uffd, file < 0 ? "ignore" : file],
  });
  born.on("message", (note: PagerNote) => {
    if (note.kind === "ready") {
      // Those who waited for the last one; and what it was asked for.
      if (isReady) wakeAll();
      isServing = true;
      for (const order of pending.values()) born.send(order);
      if (isReady) return;
      isReady = true;
    }
    if (note.kind === "installed" || note.kind === "repaired") pending.delete(note.id);
    if (note.kind === "touches") {
      noteTouches(note);
      return;
    }
    if (note.kind === "error") lastError = note;
    tell(note);
  });
  born.on("error", () => undefined);
  born.on("exit", (code, signal) => buried(code, signal));
  born.send({ kind: "start", start });
  return born;
}

function buried(code: number | null, signal: NodeJS.Signals | null): void {
  isServing = false;
  if (isClosing) {
    tell({ kind: "ended" });
    parentPort?.close();
    return;
  }
  const now = performance.now();
  deaths.push(now);
  const recent = deaths.filter((at) => now - at < DEATHS_WITHIN_MS);
  if (isReady && isPinned && recent.length <= DEATHS_MAX) {
    child = launch();
    tell({ kind: "restarted", signal, code });
    return;
  }
  poisonAll();
  for (const id of traceRequests.keys()) answerTrace(id);
  const how = signal === null ? `with exit code ${code}` : `by ${signal}`;
  const cause = lastError?.kind === "error" ? lastError.error : undefined;
  const message = `The pager's process has ended ${how}${isReady ? "" : " before it served"}`;
  const error = plainError(new MinorfaultError("ERR_HANDLER_FAILED", message));
  tell({ kind: "ended", error: cause === undefined ? error : isReady ? { ...error, cause } : cause });
  parentPort?.close();
}

function wakeAll(): void {
  ioctls.wake(start.address, start.byteLength);
}

/** Page by page: one that is there answers EEXIST, and stays. */
function poisonAll(): void {
  const until = start.address + start.byteLength;
  for (let at = start.address; at < until; at += PAGE_SIZE) ioctls.poison(at, PAGE_SIZE, 0);
  wakeAll();
}
