// A pager in a thread that makes garbage: see garbage-worker.ts.

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { interrupt } from "../src/linux/index.ts";
import { makeGuestOrder } from "../src/pager/guest-order.ts";
import type { PagerOptions } from "../src/pager/index.ts";
import type { Served } from "./crowd.ts";
import type { GarbageOrder } from "./garbage-worker.ts";

const BYTES_PER_SECOND = 100e6;
const INTERRUPT_MS = 1;

export class Litterer {
  readonly #words = new Int32Array(new SharedArrayBuffer(16));

  /** Garbage made so far. */
  get bytes(): number {
    return this.#words[2]! * 1024;
  }

  /** Serves a guest whose image is memory of this process, or a descriptor. */
  async serve(options: PagerOptions): Promise<Served> {
    const { image } = options;
    if (image === undefined || "path" in image) throw new Error("The litterer wants an image that is open");
    const workerData: GarbageOrder = {
      order: makeGuestOrder(1, options, image),
      words: this.#words,
      bytesPerSecond: BYTES_PER_SECOND,
    };
    const worker = new Worker(new URL("./garbage-worker.js", import.meta.url), { workerData, execArgv: [] });
    const ended = once(worker, "exit");
    await once(worker, "message");
    const words = this.#words;
    return {
      threadId: words[0]!,
      ended,
      async close() {
        Atomics.store(words, 1, 1);
        const ringer = setInterval(() => interrupt(words[0]!), INTERRUPT_MS);
        await ended;
        clearInterval(ringer);
      },
    };
  }
}
