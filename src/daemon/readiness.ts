// Tells the event loop when descriptors become readable that Node knows nothing about: sockets that carry descriptors, and
// processes. A thread waits in epoll, and passes on which ones.
//
// It tells of news (EPOLLET): whoever is told reads until nothing is left. A descriptor's number may be that of another
// one by the time the loop hears of it, so every listener takes "nothing there" for an answer.

import { Worker } from "node:worker_threads";
import { EPOLL_EDGE, POLL } from "../abi/memory.ts";
import { Epoll, local, socketPair } from "../linux/index.ts";
import { closeAll } from "./ledger.ts";

/** What the thread is started with. */
export interface ReadinessOrder {
  readonly epoll: number;
  /** Readable when the thread has to end. */
  readonly end: number;
}

export class Readiness {
  readonly #epoll = new Epoll(local);
  readonly #listeners = new Map<number, () => void>();
  readonly #end: readonly [number, number] = socketPair(local);

  constructor() {
    const [end] = this.#end;
    this.#epoll.add(end);
    const order: ReadinessOrder = { epoll: this.#epoll.fd, end };
    const worker = new Worker(new URL("./readiness-worker.js", import.meta.url), {
      workerData: order,
      execArgv: [],
    });
    worker.on("message", (ready: readonly number[]) => {
      for (const fd of ready) this.#listeners.get(fd)?.();
    });
    // A process that hears nothing any more is worse than none: another one takes over.
    worker.on("exit", () => process.exit(70));
    // Without it the process could not end: the thread waits in the kernel.
    process.on("exit", () => closeAll([this.#end[1]]));
  }

  /** Calls the listener whenever there is something new to read, and once now if there is. */
  watch(fd: number, listener: () => void): void {
    this.#listeners.set(fd, listener);
    this.#epoll.add(fd, POLL.IN | POLL.RDHUP | EPOLL_EDGE);
  }

  /** Before the descriptor is closed. */
  unwatch(fd: number): void {
    if (this.#listeners.delete(fd)) this.#epoll.remove(fd);
  }
}
