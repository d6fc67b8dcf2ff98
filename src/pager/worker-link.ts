// The owner's end of the line to a serving thread: orders by a port and interrupts, answers by messages.

import { MessageChannel, type MessagePort, type Transferable, type Worker } from "node:worker_threads";
import { MinorfaultError } from "../base/errors.ts";
import { interrupt } from "../linux/index.ts";
import {
  CONTROL,
  CONTROL_WORDS,
  type GuestMessage,
  type ServeMessage,
  type ServeOrder,
  type ThreadOrder,
} from "./control.ts";
import { errorOf } from "./notes.ts";
import type { PlacementReport } from "./options.ts";
import { startThread } from "./spare-threads.ts";

/** How often an interrupt is repeated until the serving thread has seen it. */
const INTERRUPT_MS = 1;
/** A start that takes longer waits for something that may not come: interrupted, it goes on without it. */
const START_MS = 1000;
/** How long the end of the process waits for the thread to let go. */
const EXIT_MS = 500;

export interface LinkListener {
  onMessage(message: GuestMessage): void;
  onDropped(source: number): void;
}

export class WorkerLink {
  /** Resolves with the placement when the thread serves; rejects when it ends before. */
  readonly placed: Promise<PlacementReport>;
  /** Resolves when the thread has ended, with what ended it unless that was an order. */
  readonly ended: Promise<MinorfaultError | undefined>;
  readonly #control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
  readonly #orders: MessagePort;
  readonly #worker: Worker;
  readonly #atExit = (): void => this.#stopAtExit();
  #ringer: NodeJS.Timeout | undefined;
  #isPlaced = false;
  #hasEnded = false;

  constructor(order: Omit<ThreadOrder, "control" | "orders">, listener: LinkListener) {
    const { port1, port2 } = new MessageChannel();
    this.#orders = port1;
    const worker = startThread("serve", { ...order, control: this.#control, orders: port2 }, [port2]);
    this.#worker = worker;
    const starting = setInterval(() => this.#interrupt(), START_MS);
    // Without this the end of the process would wait for ever for a thread that waits for faults.
    process.on("exit", this.#atExit);

    let failure: MinorfaultError | undefined;
    let place: (placement: PlacementReport) => void;
    const placing = new Promise<PlacementReport>((resolve) => {
      place = resolve;
    });
    worker.on("message", (message: ServeMessage) => {
      if (message.kind === "placed") {
        this.#isPlaced = true;
        place(message.placement);
        if (!this.#isSeen) this.#ringUntilSeen();
      } else if (message.kind === "failed") {
        failure = errorOf(message.error);
      } else if (message.kind === "dropped") {
        listener.onDropped(message.source);
      } else {
        listener.onMessage(message);
      }
    });
    worker.on("error", (error) => {
      failure = bug(`The serving thread failed: ${error.stack ?? error.message}`);
    });
    this.ended = new Promise((resolve) => {
      worker.on("exit", () => {
        this.#hasEnded = true;
        clearInterval(starting);
        clearInterval(this.#ringer);
        process.off("exit", this.#atExit);
        this.#orders.close();
        if (Atomics.load(this.#control, CONTROL.STOP) === 0) {
          failure ??= bug("The serving thread ended without a word");
        }
        resolve(failure);
      });
    });
    const failed = this.ended.then((error) => {
      throw error ?? new MinorfaultError("ERR_CLOSED", "The pager ended before it served");
    });
    this.placed = Promise.race([placing, failed]).finally(() => clearInterval(starting));
    failed.catch(() => undefined);
    this.placed.catch(() => undefined);
  }

  get threadId(): number {
    return Atomics.load(this.#control, CONTROL.TID);
  }

  /** Whether the thread keeps the process alive. */
  keepAlive(on: boolean): void {
    if (on) this.#worker.ref();
    else this.#worker.unref();
  }

  /** Has the thread look at an order. */
  send(order: ServeOrder, transferList: readonly Transferable[] = []): void {
    if (this.#hasEnded) return;
    this.#orders.postMessage(order, [...transferList]);
    Atomics.add(this.#control, CONTROL.REQUEST, 1);
    // One that prepares itself is not to be disturbed, and takes its orders when it has done so.
    if (this.#isPlaced) this.#ringUntilSeen();
  }

  /** The thread is to end: it serves what has arrived, and wakes everybody who waits. */
  stop(): void {
    Atomics.store(this.#control, CONTROL.STOP, 1);
    this.send({ kind: "stop" });
  }

  #ringUntilSeen(): void {
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

function bug(message: string): MinorfaultError {
  return new MinorfaultError("ERR_BUG", message);
}
