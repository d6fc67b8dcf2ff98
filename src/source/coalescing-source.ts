// Reads whole aligned blocks, and each block once: who asks for a block that is under way waits for that one.
//
//   read A   ├──────────┤
//   read B          ├─────────┤
//   blocks   │  0  │  1  │  2  │        0 and 1 are asked for by A in one request, 2 by B, who shares 1
//
// A request is given up when the last reader that waits for it has gone; a failure is told to all who wait and
// forgotten. Nothing is kept once it was delivered: keeping is a cache's job.

import { LayeredSource } from "./layered-source.ts";
import { checkRead, type PageSource } from "./page-source.ts";

export interface CoalesceOptions {
  readonly blockBytes?: number;
  /** LIMIT: bytes of one request. */
  readonly requestBytesMax?: number;
}

interface Flight {
  readonly start: number;
  readonly bytes: Uint8Array;
  readonly done: Promise<void>;
  readonly controller: AbortController;
  readers: number;
}

export class CoalescingSource extends LayeredSource {
  readonly #blockBytes: number;
  readonly #blocksMax: number;
  /** By block. */
  readonly #flights = new Map<number, Flight>();

  constructor(inner: PageSource, options: CoalesceOptions = {}) {
    super(inner);
    this.#blockBytes = options.blockBytes ?? 65_536;
    this.#blocksMax = Math.max(1, Math.floor((options.requestBytesMax ?? 2 ** 20) / this.#blockBytes));
  }

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    checkRead(this, offset, target.byteLength);
    // A source that was closed says so itself.
    if (target.byteLength === 0) return this.inner.read(offset, target, signal);
    const flights = [...this.#flightsFor(offset, offset + target.byteLength)];
    const leave = () => {
      for (const flight of flights) this.#leave(flight);
    };
    for (const flight of flights) flight.readers++;
    try {
      await untilAborted(Promise.all(flights.map(({ done }) => done)), signal);
    } finally {
      leave();
    }
    for (const flight of flights) copyOverlap(flight, offset, target);
  }

  #flightsFor(offset: number, until: number): Set<Flight> {
    const flights = new Set<Flight>();
    const last = Math.ceil(until / this.#blockBytes);
    for (let block = Math.floor(offset / this.#blockBytes); block < last; block++) {
      flights.add(this.#flights.get(block) ?? this.#launch(block, last));
    }
    return flights;
  }

  /** Asks for `first` and for what follows it, as far as it is wanted and not under way. */
  #launch(first: number, wantedUntil: number): Flight {
    const limit = Math.min(wantedUntil, first + this.#blocksMax);
    let until = first + 1;
    while (until < limit && !this.#flights.has(until)) until++;
    const start = first * this.#blockBytes;
    const bytes = new Uint8Array(Math.min(until * this.#blockBytes, this.byteLength) - start);
    const controller = new AbortController();
    const done = this.inner.read(start, bytes, controller.signal);
    const flight: Flight = { start, bytes, done, controller, readers: 0 };
    for (let block = first; block < until; block++) this.#flights.set(block, flight);
    const land = () => this.#forget(flight);
    done.then(land, land);
    return flight;
  }

  #leave(flight: Flight): void {
    if (--flight.readers > 0) return;
    // Nobody may join a request that is being given up.
    this.#forget(flight);
    flight.controller.abort(new Error("Nobody waits for it any more"));
  }

  #forget(flight: Flight): void {
    const first = flight.start / this.#blockBytes;
    const blocks = Math.ceil(flight.bytes.byteLength / this.#blockBytes);
    for (let block = first; block < first + blocks; block++) {
      if (this.#flights.get(block) === flight) this.#flights.delete(block);
    }
  }
}

function copyOverlap(flight: Flight, offset: number, target: Uint8Array): void {
  const start = Math.max(offset, flight.start);
  const until = Math.min(offset + target.byteLength, flight.start + flight.bytes.byteLength);
  target.set(flight.bytes.subarray(start - flight.start, until - flight.start), start - offset);
}

function untilAborted(done: Promise<unknown>, signal: AbortSignal | undefined): Promise<unknown> {
  if (signal === undefined) return done;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    done.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
