// The serving thread's end of the line to the thread that fetches: messages of a port, and words that both look at.
//
// It knows what it has asked for. A thread that has died ends nothing any more: then this says that it has all failed.

import { receiveMessageOnPort } from "node:worker_threads";
import { MinorfaultError } from "../../base/errors.ts";
import { errorOf } from "../notes.ts";
import type { FetchLink, FetchNews, FetchRequest } from "./link.ts";
import { type FetchOrder, WIRE, type WireEnd, type WireNews } from "./order.ts";

export class PortLink implements FetchLink {
  readonly #order: Pick<FetchOrder, "port" | "words" | "replaying">;
  /** Sent, and not ended yet. */
  readonly #open = new Set<number>();
  /** Came with others, or was too long to be taken as a whole. */
  #ends: WireEnd[] = [];
  /** Working sets whose replay has not ended yet, in their order. */
  readonly #replays: string[] = [];
  #seen = 0;

  constructor(order: Pick<FetchOrder, "port" | "words" | "replaying">) {
    this.#order = order;
    if (order.replaying !== undefined) this.#replays.push(order.replaying);
  }

  get hasNews(): boolean {
    const { words } = this.#order;
    if (this.#ends.length > 0) return true;
    if (Atomics.load(words, WIRE.DEAD) !== 0) return this.#open.size + this.#replays.length > 0;
    return Atomics.load(words, WIRE.DONE) !== this.#seen;
  }

  send(request: FetchRequest): void {
    const { port } = this.#order;
    if (request.kind === "fetch") {
      const { ticket, count } = request;
      for (let each = ticket; each < ticket + count; each++) this.#open.add(each);
    }
    if (request.kind === "replay") this.#replays.push(request.workingSet);
    port.postMessage(request);
    this.ring();
  }

  /** Wakes the thread that fetches where its source never waits. */
  ring(): void {
    const { words } = this.#order;
    Atomics.add(words, WIRE.RUNG, 1);
    Atomics.notify(words, WIRE.RUNG);
  }

  receive(unitsMax: number): FetchNews | undefined {
    const { port, words } = this.#order;
    const next = this.#ends.shift();
    if (next !== undefined) return this.#takeEnd(next, unitsMax);
    if (!this.hasNews) return undefined;
    const got = receiveMessageOnPort(port);
    if (got === undefined) return Atomics.load(words, WIRE.DEAD) === 0 ? undefined : this.#endOfTheDead();
    this.#seen = (this.#seen + 1) | 0;
    const message = got.message as WireNews;
    if (message.kind === "piece" || message.kind === "replaying") return message;
    if (message.kind === "end") return this.#takeEnd(message, unitsMax);
    if (message.kind === "replayed") {
      this.#replays.shift();
      return withError(message);
    }
    this.#ends = [...message.ends];
    return this.receive(unitsMax);
  }

  /** What it would have said in the end: that all has failed which it has not done. */
  #endOfTheDead(): FetchNews | undefined {
    const error = new MinorfaultError("ERR_BUG", "The thread that fetches has failed");
    const [ticket] = this.#open;
    if (ticket !== undefined) {
      this.#open.delete(ticket);
      return { kind: "end", ticket, count: 1, result: "failed", error };
    }
    const workingSet = this.#replays.shift();
    return workingSet === undefined ? undefined : { kind: "replayed", workingSet, error };
  }

  #takeEnd(end: WireEnd, unitsMax: number): FetchNews {
    const count = Math.min(end.count, Math.max(1, unitsMax));
    const { ticket } = end;
    for (let each = ticket; each < ticket + count; each++) this.#open.delete(each);
    if (count < end.count) this.#ends.unshift({ ...end, ticket: ticket + count, count: end.count - count });
    return withError({ ...end, count });
  }
}

function withError(message: Extract<WireNews, { readonly kind: "end" | "replayed" }>): FetchNews {
  const { error, ...news } = message;
  return error === undefined ? news : { ...news, error: errorOf(error) };
}
