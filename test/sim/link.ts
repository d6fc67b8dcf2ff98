// The thread that fetches, made up: it does things in an order that a seed decides, and some of them badly.
//
// Like the real one it owns a slot from the request to the end, and may write anything into it until then. It
// verifies: lies and short reads of the source behind it end as failures, with the wrong bytes left in the slot.

import { MinorfaultError } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import type { FetchEnd, FetchLink, FetchRequest } from "../../src/pager/fetch/link.ts";

export interface Weather {
  /** Of a hundred fetches, so many fail, and so many never end. */
  readonly failing: number;
  readonly hanging: number;
}

interface Pending {
  readonly ticket: number;
  readonly unit: number;
  readonly slot: number;
  isCancelled: boolean;
  isHung: boolean;
}

export interface SimulatedImage {
  readonly unitBytes: number;
  fill(unit: number, target: Uint8Array): void;
  isHole(unit: number): boolean;
}

export class SimulatedLink implements FetchLink {
  weather: Weather;
  readonly #random: Random;
  readonly #image: SimulatedImage;
  readonly #staging: Uint8Array;
  readonly #pending: Pending[] = [];
  readonly #ends: FetchEnd[] = [];
  readonly #owned = new Set<number>();
  /** Tickets whose first end has been received. */
  readonly #echoes = new Set<number>();

  constructor(random: Random, image: SimulatedImage, staging: Uint8Array, weather: Weather) {
    this.#random = random;
    this.#image = image;
    this.#staging = staging;
    this.weather = weather;
  }

  send(request: FetchRequest): void {
    if (request.kind === "cancel") {
      const found = this.#pending.find(({ ticket }) => ticket === request.ticket);
      if (found !== undefined) found.isCancelled = true;
      return;
    }
    // Nothing is replayed here.
    if (request.kind !== "fetch") return;
    const { ticket, unit, slot, count } = request;
    for (let at = 0; at < count; at++) {
      if (this.#owned.has(slot + at)) throw new Error(`Slot ${slot + at} is given to two fetches`);
      this.#owned.add(slot + at);
      const isHung = this.#random.below(100) < this.weather.hanging;
      this.#pending.push({
        ticket: ticket + at,
        unit: unit + at,
        slot: slot + at,
        isCancelled: false,
        isHung,
      });
    }
  }

  receive(): FetchEnd | undefined {
    const end = this.#ends.shift();
    if (end !== undefined) this.#echoes.add(end.ticket);
    return end;
  }

  /** Fetches whose end has not been received. */
  get open(): number {
    return this.#pending.length + this.#ends.filter(({ ticket }) => !this.#echoes.has(ticket)).length;
  }

  /** Something happens to one of the fetches. */
  progress(): void {
    // A reply that comes once more.
    const [old] = this.#echoes;
    if (old !== undefined && this.#random.below(50) === 0)
      this.#ends.push({ kind: "end", ticket: old, count: 1, result: "bytes" });
    if (this.#pending.length === 0) return;
    const index = this.#random.below(this.#pending.length);
    const fetch = this.#pending[index]!;
    const slot = this.#slot(fetch.slot);
    // Half-written, or another unit's bytes: nobody may look yet.
    slot.fill(this.#random.below(256));
    if (fetch.isHung || this.#random.below(4) === 0) return;
    this.#pending.splice(index, 1);
    this.#owned.delete(fetch.slot);
    this.#ends.push(this.#endOf(fetch, slot));
  }

  #endOf({ ticket, unit, isCancelled }: Pending, slot: Uint8Array): FetchEnd {
    const fails =
      this.#random.below(100) < this.weather.failing || (isCancelled && this.#random.below(2) === 0);
    if (fails) {
      return {
        kind: "end",
        ticket,
        count: 1,
        result: "failed",
        error: new MinorfaultError("ERR_WRONG_BYTES", `unit ${unit} is a lie`),
      };
    }
    if (this.#image.isHole(unit)) return { kind: "end", ticket, count: 1, result: "zero" };
    this.#image.fill(unit, slot);
    return { kind: "end", ticket, count: 1, result: "bytes" };
  }

  #slot(slot: number): Uint8Array {
    const { unitBytes } = this.#image;
    return this.#staging.subarray(slot * unitBytes, (slot + 1) * unitBytes);
  }
}
