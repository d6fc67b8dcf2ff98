// The owner's end of the line to a pager's thread: orders by shared words and interrupts, answers by messages.

import type { MessagePort, Worker } from "node:worker_threads";
import { MinorfaultError } from "../base/errors.ts";
import { interrupt } from "../linux/index.ts";
import { CONTROL, type EndNote, type PagerMessage, type ReplayNote, type WorkOrder } from "./control.ts";
import { type ErrorNote, errorOf } from "./notes.ts";
import type { PagerEnd, PlacementReport, RepairReport, ReplayReport } from "./options.ts";
import { startThread } from "./spare-threads.ts";

/** How often an interrupt is repeated until the pager's thread has seen it. */
const INTERRUPT_MS = 1;
/** A start that takes longer waits for something that may not come: interrupted, it goes on without it. */
const START_MS = 1000;
/** How long the end of the process waits for the thread to let go. */
const EXIT_MS = 500;

export interface LinkListener {
  onError(error: MinorfaultError): void;
  onInstalled(id: number): void;
  onFlushed(id: number): void;
  onRepaired(id: number, report: RepairReport): void;
  onReplayed(report: ReplayReport): void;
}

export class WorkerLink {
  /** Resolves with the placement when the thread serves; rejects when it ends before. */
  readonly ready: Promise<PlacementReport>;
  /** Resolves when the thread has ended. */
  readonly ended: Promise<PagerEnd>;
  readonly #control: Int32Array;
  readonly #worker: Worker;
  readonly #atExit = (): void => this.#stopAtExit();
  #ringer: NodeJS.Timeout | undefined;

  constructor(order: WorkOrder, listener: LinkListener, transferList: readonly MessagePort[] = []) {
    this.#control = order.control;
    const worker = startThread("serve", order, transferList);
    this.#worker = worker;
    const starting = setInterval(() => this.#interrupt(), START_MS);
    // Without this the end of the process would wait for ever for a thread that waits for faults.
    process.on("exit", this.#atExit);

    let end: EndNote | undefined;
    let serve: (placement: PlacementReport) => void;
    const serving = new Promise<PlacementReport>((resolve) => {
      serve = resolve;
    });
    worker.on("message", (message: PagerMessage) => {
      if (message.kind === "ready") serve(message.placement);
      else if (message.kind === "error") listener.onError(errorOf(message.error));
      else if (message.kind === "installed") listener.onInstalled(message.id);
      else if (message.kind === "flushed") listener.onFlushed(message.id);
      else if (message.kind === "repaired") listener.onRepaired(message.id, message.report);
      else if (message.kind === "replayed") listener.onReplayed(reportOf(message.report));
      else end = message.end;
    });
    worker.on("error", (error) => {
      end = {
        reason: "failed",
        error: bugNote(`The pager's thread failed: ${error.stack ?? error.message}`),
      };
    });
    this.ended = new Promise((resolve) => {
      worker.on("exit", () => {
        clearInterval(starting);
        clearInterval(this.#ringer);
        process.off("exit", this.#atExit);
        end ??= { reason: "failed", error: bugNote("The pager's thread ended without a word") };
        resolve(end.reason === "failed" ? { ...end, error: errorOf(end.error) } : end);
      });
    });
    const failed = this.ended.then((pagerEnd) => {
      if (pagerEnd.reason === "failed") throw pagerEnd.error;
      throw new MinorfaultError("ERR_CLOSED", "The pager ended before it served");
    });
    this.ready = Promise.race([serving, failed]).finally(() => clearInterval(starting));
    failed.catch(() => undefined);
  }

  get threadId(): number {
    return Atomics.load(this.#control, CONTROL.TID);
  }

  /** Whether the thread keeps the process alive. */
  keepAlive(on: boolean): void {
    if (on) this.#worker.ref();
    else this.#worker.unref();
  }

  /** Writes a word of an order that `request` will complete. */
  order(word: number, value: number): void {
    Atomics.store(this.#control, word, value);
  }

  /** Writes the last word of an order, and makes the thread look at it. */
  request(word: number, value: number): void {
    this.order(word, value);
    Atomics.add(this.#control, CONTROL.REQUEST, 1);
    this.#ringer ??= setInterval(() => this.#ring(), INTERRUPT_MS);
    this.#ring();
  }

  #ring(): void {
    if (!this.#isSeen) {
      this.#interrupt();
      return;
    }
    clearInterval(this.#ringer);
    this.#ringer = undefined;
  }

  get #isSeen(): boolean {
    return Atomics.load(this.#control, CONTROL.SEEN) === Atomics.load(this.#control, CONTROL.REQUEST);
  }

  #interrupt(): void {
    if (this.threadId !== 0) interrupt(this.threadId);
  }

  #stopAtExit(): void {
    Atomics.store(this.#control, CONTROL.STOP, 1);
    Atomics.add(this.#control, CONTROL.REQUEST, 1);
    const until = performance.now() + EXIT_MS;
    while (!this.#isSeen && performance.now() < until) {
      this.#interrupt();
      Atomics.wait(this.#control, CONTROL.SEEN, Atomics.load(this.#control, CONTROL.SEEN), INTERRUPT_MS);
    }
  }
}

function reportOf({ error, ...report }: ReplayNote): ReplayReport {
  return error === undefined ? report : { ...report, error: errorOf(error) };
}

function bugNote(message: string): ErrorNote {
  return { code: "ERR_BUG", message, hint: new MinorfaultError("ERR_BUG", message).hint };
}
