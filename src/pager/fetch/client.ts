// One guest's account with the fetcher that serves many: which of its faults wait, how long they may, and who is told.

import { hasBit } from "../../base/bitmap.ts";
import { hex, MinorfaultError } from "../../base/errors.ts";
import { COUNTER, type Counters } from "../counters.ts";
import type { FaultLoop } from "../fault-loop.ts";
import { type Part, pageAt, type Region, untilPage } from "../regions.ts";
import type { Fault, Parked, Resolver } from "../resolver.ts";
import type { ReplayEnd } from "./link.ts";
import { Pattern } from "./pattern.ts";

/** Units that are brought along with a run of faults, at most: 2 MiB in units of 64 KiB. */
const WIDTH_MAX = 32;

export interface ClientOptions {
  readonly counters: Counters;
  /** Milliseconds that a fault may wait. */
  readonly deadlineMs: number;
  /** Whether a fault is let go of at its deadline. */
  readonly expires: boolean;
  /** Whether all of a unit is installed when it has come, not only what the plan says. */
  readonly installsWhole: boolean;
  /** Whether windows follow the faults, where bytes are read directly: then nothing else is fetched ahead. */
  readonly followsFaults: boolean;
  readonly onError: (error: MinorfaultError) => void;
  /** Called before a fault is given up whose deadline has passed. */
  readonly onExpired?: (() => void) | undefined;
  /** The replay of a working set has ended; so many bytes were installed. */
  readonly onReplayed?: ((end: ReplayEnd, bytesInstalled: number) => void) | undefined;
}

/** What a client has done for it. */
export interface Fetching {
  park(client: FetchClient, fault: Fault, part: Part, page: number): Parked;
  change(client: FetchClient, start: number, until: number): void;
  fetchFrom(client: FetchClient, part: Part, page: number, until: number): number | undefined;
}

export class FetchClient {
  readonly options: ClientOptions;
  readonly #waiting = new Map<number, Fault>();
  /** Installed by the present replay. */
  bytesReplayed = 0;
  readonly #fetching: Fetching;
  readonly #patterns = new WeakMap<Region, Pattern>();
  #loop: FaultLoop | undefined;

  constructor(fetching: Fetching, options: ClientOptions) {
    this.#fetching = fetching;
    this.options = options;
  }

  /** The loop whose faults these are. */
  get loop(): FaultLoop {
    return this.#loop!;
  }

  set loop(loop: FaultLoop) {
    this.#loop = loop;
  }

  /** Faults that wait, by the number under which the machine knows them. */
  get waiting(): ReadonlyMap<number, Fault> {
    return this.#waiting;
  }

  wait(waiter: number, fault: Fault): void {
    this.#waiting.set(waiter, fault);
    this.options.counters[COUNTER.WAITING]! += 1;
  }

  /** A fault waits no longer. */
  leave(waiter: number): void {
    if (this.#waiting.delete(waiter)) this.options.counters[COUNTER.WAITING]! -= 1;
  }

  /** Keeps a fault until the bytes of its page are there. */
  readonly park = (_resolver: Resolver, fault: Fault, part: Part, page: number): Parked =>
    this.#fetching.park(this, fault, part, page);

  /** The guest's memory has changed there: who waits looks again. */
  readonly change = (_resolver: Resolver, start: number, until: number): void =>
    this.#fetching.change(this, start, until);

  /**
   * Fetches the bytes from a page on, for whoever installs everything. Answers the page where to go on, undefined while
   * they are on their way: this page where the image turns out to have a hole, a later one behind what can't be brought.
   */
  readonly fetchFrom = (part: Part, page: number, until: number): number | undefined =>
    this.#fetching.fetchFrom(this, part, page, until);

  /** Whether a fault's page has come, or is none of ours any more. */
  hasPage({ address }: Fault): boolean {
    const part = this.loop.regions.find(address);
    return part === undefined || hasBit(part.region.resident, pageAt(part, address));
  }

  /** What is said of a fault that has waited too long. */
  overdue({ address }: Fault): MinorfaultError {
    const message = `The bytes for the fault at ${hex(address)} did not come within ${this.options.deadlineMs} ms`;
    return new MinorfaultError("ERR_DEADLINE", message, { address });
  }

  /** Units that a fault in one lets expect, in this order: those that are missing in its part. */
  *expected(part: Part, unit: number, unitBytes: number): Generator<number> {
    const { region } = part;
    const { stride, count } = this.#patternOf(region).fault(unit);
    for (let index = 1; index <= count; index++) {
      const next = unit + stride * index;
      const page = (next * unitBytes - region.imageOffset) / region.pageSize;
      if (page < part.firstPage || page >= untilPage(part)) return;
      if (!hasBit(region.resident, Math.floor(page))) yield next;
    }
  }

  #patternOf(region: Region): Pattern {
    let pattern = this.#patterns.get(region);
    if (pattern === undefined) {
      pattern = new Pattern({ widthMax: WIDTH_MAX });
      this.#patterns.set(region, pattern);
    }
    return pattern;
  }
}
