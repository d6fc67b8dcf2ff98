// How a thread of a pager gets its order: with its start, or later, when it has been prepared.

import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";

/** What a thread is started with that has no order yet. */
export interface Preparation {
  /** Closed when it is ready, or has its order. */
  readonly preparing: MessagePort;
  /** Else it does no more than it would have to do with its order. */
  readonly rehearses: boolean;
}

type Step = () => void | Promise<void>;

/**
 * The order; a thread that has none yet makes itself ready, step by step, until it has done so or has its order. `needed`: what
 * it would do then all the same.
 */
export async function orderOf<Order>(needed: readonly Step[], rehearsals: readonly Step[]): Promise<Order> {
  const given = workerData as Order | Preparation;
  if (typeof given !== "object" || given === null || !("preparing" in given)) return given as Order;
  for (const step of given.rehearses ? [...needed, ...rehearsals] : needed) {
    const early = parentPort && receiveMessageOnPort(parentPort);
    if (early) {
      given.preparing.close();
      return early.message as Order;
    }
    await step();
  }
  return new Promise((resolve) => {
    parentPort?.once("message", resolve);
    given.preparing.close();
  });
}
