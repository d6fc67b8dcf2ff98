// The pager of a simulated world: everything of it that decides is the real thing, around a thread that fetches which is made
// up. It has a process of its own among the guests' ones, and may die there, in the middle of a step if there is something
// that outlives it.

import { ERRNO } from "../../src/abi/errno.ts";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import type { Caller } from "../../src/abi/system.ts";
import { wordsFor } from "../../src/base/bitmap.ts";
import { hex, type MinorfaultError } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import { type Counters, makeCounters } from "../../src/pager/counters.ts";
import { FaultLoop } from "../../src/pager/fault-loop.ts";
import { makeAheadWords } from "../../src/pager/fetch/ahead.ts";
import type { FetchClient } from "../../src/pager/fetch/client.ts";
import type { DirectReader } from "../../src/pager/fetch/direct.ts";
import { Fetcher } from "../../src/pager/fetch/fetcher.ts";
import type { Rank } from "../../src/pager/fetch/machine.ts";
import { WIRE_WORDS } from "../../src/pager/fetch/order.ts";
import { makePaneWords, PANE_UNITS, PANES } from "../../src/pager/fetch/panes.ts";
import { CallerPort } from "../../src/pager/port.ts";
import { Region, RegionMap, wholePart } from "../../src/pager/regions.ts";
import { Repair } from "../../src/pager/repair.ts";
import { PagerState, pagerStateBytes } from "../../src/pager/state.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import type { SoftwareProcess } from "../../src/uffd/software/index.ts";
import { SimulatedFiller } from "./filler.ts";
import { type SimulatedImage, SimulatedLink, type Weather } from "./link.ts";
import type { Memory } from "./model.ts";

export const PAGES = 16;
/** Far from where the system puts what has no address of its own. */
export const BASE = 0x1000_0000;
export const SLOTS = 6;
/** What is read of a plain file at a fault, at most. */
const DIRECT_UNITS = 3;
/** Fewer than a run brings along. */
const AHEAD_UNITS = 2;
const PANES_UNITS = PANES * PANE_UNITS + AHEAD_UNITS;
export const FETCHES_MAX = 3;
const DEADLINE_MS = 100;
export const UNIT_PAGES = 2;
const UNIT_BYTES = UNIT_PAGES * PAGE_SIZE;
export const UNITS: number = PAGES / UNIT_PAGES;
/** The unit that is nothing but zeros. */
const HOLE = 5;
const SHAPES = [{ start: BASE, byteLength: PAGES * PAGE_SIZE, imageOffset: 0 }];

export function imageByte(page: number): number {
  return Math.floor(page / UNIT_PAGES) === HOLE ? 0 : 1 + page;
}

/** What the clock stands at: for the loops' stamps too. */
export interface Clock {
  ms: number;
}

/** What the pager has of one guest's memory. */
export interface Seat {
  readonly fd: number;
  readonly memory: Memory;
  /** What outlives the pager. */
  readonly outlives: ReturnType<SoftwareProcess["share"]> | undefined;
  regions: RegionMap;
  loop: FaultLoop;
  client: FetchClient;
}

export interface SimulatedPagerOptions {
  readonly process: SoftwareProcess;
  readonly random: Random;
  readonly clock: Clock;
  readonly log: string[];
  /** Guests have memory that outlives the pager: it may die anywhere. Without, only between two steps. */
  readonly hasState: boolean;
  readonly onFork: (fd: number, regions: RegionMap) => void;
}

/** The pager has died in a call. */
class Death extends Error {}

export class SimulatedPager {
  readonly seats: Seat[] = [];
  counters: Counters = makeCounters();
  link!: SimulatedLink;
  fetcher!: Fetcher;
  #other!: SimulatedFiller;
  #repair: Repair | undefined;
  #weather: Weather;
  /** Calls until death. */
  #left = Number.POSITIVE_INFINITY;
  readonly #options: SimulatedPagerOptions;
  /** As many zeros as a unit has, then the slots, then where is read directly: of a plain file, or panes and what lies ahead. */
  readonly #staging;
  readonly #caller: Caller;

  constructor(options: SimulatedPagerOptions, weather: Weather) {
    this.#options = options;
    this.#weather = weather;
    const { process } = options;
    this.#staging = process.share((SLOTS + 1 + PANES_UNITS) * UNIT_BYTES);
    this.#caller = {
      call: (name, ...args) => this.#lived(() => process.call(name, ...args)),
      ioctl: (fd, request, argument) => this.#lived(() => process.ioctl(fd, request, argument)),
      read: (fd, address, byteLength) => this.#lived(() => process.read(fd, address, byteLength)),
      scratch: process.scratch,
      share: (byteLength) => process.share(byteLength),
    };
    this.#start();
  }

  set weather(weather: Weather) {
    this.#weather = weather;
    this.link.weather = weather;
    this.#other.weather = weather;
  }

  /** Something happens in the thread that fetches. */
  progress(): void {
    if (this.#options.random.below(2) === 0) this.link.progress();
    else this.#other.progress();
  }

  /** Serves a guest's memory: fresh, or as a child has it. */
  seat(fd: number, memory: Memory, regions?: RegionMap): Seat {
    const outlives = this.#options.hasState
      ? this.#options.process.share(pagerStateBytes(SHAPES))
      : undefined;
    const seat = { fd, memory, outlives } as Seat;
    this.#serve(seat, regions, false);
    this.seats.push(seat);
    return seat;
  }

  pump(): void {
    for (const { loop } of this.seats) {
      this.#mayDie(() => {
        const result = loop.pump(1 + this.#options.random.below(4));
        if (result !== 0 && result !== -ERRNO.EAGAIN) throw new Error(`read answered ${result}`);
        if (this.#options.random.below(2) === 0) loop.resolver.retry();
      });
    }
  }

  collect(): void {
    this.#mayDie(() => {
      for (const { loop } of this.seats) loop.resolver.retry();
      this.fetcher.collect();
      if (this.#repair?.step() === "done") this.#repair = undefined;
    });
  }

  want(seat: Seat, unit: number, rank: Exclude<Rank, 0>): void {
    this.#mayDie(() => this.fetcher.want(seat.client, unit, rank));
  }

  repairSome(): void {
    const loops = this.seats.map(({ loop }) => loop);
    this.#repair ??= new Repair(1, loops, { start: 0, until: Number.MAX_SAFE_INTEGER });
  }

  /** It dies now, or in one of its next calls; another one takes over the guests' memory and what is known of it. */
  die(): void {
    if (this.#options.hasState) this.#left = 1 + this.#options.random.below(12);
    else this.#succeed();
  }

  #lived(call: () => number): number {
    this.#step();
    const result = call();
    this.#step();
    return result;
  }

  #step(): void {
    if (--this.#left <= 0) throw new Death();
  }

  #mayDie(work: () => unknown): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof Death)) throw error;
      this.#left = Number.POSITIVE_INFINITY;
      this.#succeed();
    }
  }

  #succeed(): void {
    this.#options.log.push("the pager dies");
    this.counters = makeCounters();
    this.#start();
    for (const seat of this.seats) {
      this.#serve(seat, seat.regions, true);
      seat.loop.wakeAll();
    }
  }

  #start(): void {
    const { random, clock } = this.#options;
    this.#repair = undefined;
    const image: SimulatedImage = {
      unitBytes: UNIT_BYTES,
      isHole: (unit) => unit === HOLE,
      fill: (unit, target) => {
        for (let page = 0; page < UNIT_PAGES; page++) {
          target.fill(imageByte(unit * UNIT_PAGES + page), page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
        }
      },
    };
    const staging = this.#staging.bytes.subarray(UNIT_BYTES, (SLOTS + 1) * UNIT_BYTES);
    const from = (SLOTS + 1) * UNIT_BYTES;
    const windows = this.#staging.bytes.subarray(from, from + PANES_UNITS * UNIT_BYTES);
    const panes = makePaneWords();
    const ahead = makeAheadWords(AHEAD_UNITS);
    const weather = this.#weather;
    this.#other = new SimulatedFiller({ random, image, panes, ahead, memory: windows, weather });
    this.link = new SimulatedLink(random, image, staging, this.#weather);
    this.fetcher = new Fetcher({
      byteLength: PAGES * PAGE_SIZE,
      unitBytes: UNIT_BYTES,
      runMax: 1 + random.below(3),
      slots: SLOTS,
      fetchesMax: FETCHES_MAX,
      deadlineMs: DEADLINE_MS,
      expires: true,
      backgroundRate: random.below(2) === 0 ? Number.POSITIVE_INFINITY : 1e6,
      staging: this.#staging.address + UNIT_BYTES,
      replayStaging: 0,
      keptSlots: 0,
      room: { slots: 0 },
      link: this.link,
      words: new Int32Array(WIRE_WORDS),
      isAlone: () => true,
      holes: new Uint32Array(1),
      direct: random.below(2) === 0 ? this.#directReader(image, windows) : undefined,
      panes,
      ahead,
      ring: () => undefined,
      // It may do all that it has begun, or nothing.
      await: (_isSo, meanwhile) => {
        if (random.below(2) === 0) this.#other.end();
        while (random.below(2) === 0 && meanwhile?.());
      },
      now: () => clock.ms,
    });
  }

  /** Reads at the fault itself, when it can; what is there after a failure is anything. */
  #directReader(image: SimulatedImage, memory: Uint8Array): DirectReader {
    const { random } = this.#options;
    const isPlain = random.below(3) === 0;
    return {
      address: this.#staging.address + (SLOTS + 1) * UNIT_BYTES,
      isPlain,
      unitsMax: isPlain ? DIRECT_UNITS : PANE_UNITS,
      isCached: () => [true, false, undefined][random.below(3)],
      read: (first, count, slot) => {
        this.#other.checkNotTaken(slot);
        const target = memory.subarray(slot * UNIT_BYTES, (slot + count) * UNIT_BYTES);
        target.fill(random.below(256));
        if (random.below(isPlain ? 3 : 10) === 0) return undefined;
        for (let unit = first; unit < first + count; unit++) {
          if (image.isHole(unit)) return unit - first;
          image.fill(unit, target.subarray((unit - first) * UNIT_BYTES));
        }
        return count;
      },
    };
  }

  /** Gives a seat its loop. */
  #serve(seat: Seat, regions: RegionMap | undefined, adopts: boolean): void {
    const { random, clock, onFork } = this.#options;
    const { fd, memory, outlives } = seat;
    const state = outlives && new PagerState(outlives, SHAPES, adopts);
    const own = (): Region[] => [
      new Region({
        pageSize: PAGE_SIZE,
        pageCount: PAGES,
        imageOffset: 0,
        windowPages: 8 >> random.below(4),
        resident: new Uint32Array(wordsFor(PAGES)),
        zero: state?.zeroBits(0) ?? new Uint32Array(wordsFor(PAGES)),
        hasZeros: adopts,
      }),
    ];
    const known = state !== undefined || regions === undefined ? own() : [];
    if (state !== undefined && adopts) {
      const ioctls = new Ioctls(this.#options.process, fd);
      seat.regions = state.adopt(known, ({ start, until }) => ioctls.wake(start, until - start));
    } else {
      seat.regions = regions ?? new RegionMap([wholePart(BASE, known[0]!)]);
    }
    const client = this.fetcher.client({
      counters: this.counters,
      deadlineMs: DEADLINE_MS,
      expires: true,
      installsWhole: random.below(2) === 0,
      followsFaults: random.below(2) === 0,
      onError: () => undefined,
    });
    const loop = new FaultLoop({
      port: new CallerPort(this.#caller, fd, () => clock.ms, fd, state?.port),
      regions: seat.regions,
      source: this.fetcher,
      counters: this.counters,
      zeros: this.#staging.address,
      now: () => clock.ms,
      park: client.park,
      onChange: client.change,
      fetchFrom: client.fetchFrom,
      state: state && {
        acknowledge: () => state.acknowledge(),
        commit: (parts) => void state.commit(parts, known),
      },
      onError: (error) => this.#lost(error, memory),
      onFork,
    });
    this.fetcher.add(loop, client);
    seat.loop = loop;
    seat.client = client;
  }

  /** A page was given up: its thread may get SIGBUS from now on. */
  #lost(error: MinorfaultError, memory: Memory): void {
    this.#options.log.push(`${error.code} at ${hex(error.address ?? 0)}`);
    if (error.address === undefined || error.code !== "ERR_HANDLER_FAILED") return;
    memory.poison(Math.floor((error.address - BASE) / PAGE_SIZE));
  }
}
