// The pager in a world that a seed decides: guests on the software userfaultfd, a thread that fetches which is made up, a
// clock that stands still unless it is told to move, and a death of the pager now and then.
//
// What is real is everything that decides: the machine, the fetcher, the fault loop, the resolver. After each step all
// that must hold is checked (`check`), and what the guests have seen is held to the model (model.ts).

import { ERRNO } from "../../src/abi/errno.ts";
import { MADV, MAP, MREMAP, O, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import type { Ending, Operation, Thread } from "../../src/abi/system.ts";
import { UFFD_FEATURE } from "../../src/abi/userfaultfd.ts";
import { wordsFor } from "../../src/base/bitmap.ts";
import type { MinorfaultError } from "../../src/base/errors.ts";
import { hex } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import { type Counters, makeCounters, readStatistics } from "../../src/pager/counters.ts";
import { FaultLoop } from "../../src/pager/fault-loop.ts";
import type { FetchClient } from "../../src/pager/fetch/client.ts";
import type { DirectReader } from "../../src/pager/fetch/direct.ts";
import { Fetcher } from "../../src/pager/fetch/fetcher.ts";
import { RANK, WANTED_MAX } from "../../src/pager/fetch/machine.ts";
import { CallerPort } from "../../src/pager/port.ts";
import { Region, RegionMap, wholePart } from "../../src/pager/regions.ts";
import { Repair } from "../../src/pager/repair.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import type { SoftwareProcess, SoftwareSystem } from "../../src/uffd/software/index.ts";
import { type SimulatedImage, SimulatedLink, type Weather } from "./link.ts";
import { Memory, type Mutation, type Seen } from "./model.ts";

export const PAGES = 16;
const UNIT_PAGES = 4;
const UNIT_BYTES = UNIT_PAGES * PAGE_SIZE;
const UNITS = PAGES / UNIT_PAGES;
/** The unit that is nothing but zeros. */
const HOLE = 2;
/** Far from where the system puts what has no address of its own. */
const BASE = 0x1000_0000;
const SLOTS = 6;
const FETCHES_MAX = 3;
export const DEADLINE_MS = 100;
/** Pages where nothing is, for memory to move to. */
const PLACES = 2 * PAGES;

/** What the clock stands at: for the loops' stamps too. */
export interface Clock {
  ms: number;
}

interface Guest {
  readonly process: SoftwareProcess;
  readonly memory: Memory;
  readonly fd: number;
  readonly regions: RegionMap;
  loop: FaultLoop;
  client: FetchClient;
}

interface Doing {
  readonly guest: Guest;
  readonly thread: Thread;
  readonly what: string;
  readonly page: number;
  /** Of a change. */
  readonly mutation?: Mutation;
  readonly before?: ReadonlyMap<number, ReadonlySet<Seen>>;
  readonly moves?: { readonly to: number; readonly count: number };
}

interface Forking {
  readonly thread: Thread;
  readonly child: () => SoftwareProcess | undefined;
  readonly memory: Memory;
}

export function imageByte(page: number): number {
  return Math.floor(page / UNIT_PAGES) === HOLE ? 0 : 1 + page;
}

export class World {
  readonly clock: Clock = { ms: 1000 };
  readonly log: string[] = [];
  readonly guests: Guest[] = [];
  readonly #random: Random;
  readonly #base: number;
  /** As many zeros as a unit has, then the slots. */
  readonly #staging;
  #doing: Doing[] = [];
  #counters: Counters = makeCounters();
  #link!: SimulatedLink;
  #fetcher!: Fetcher;
  #repair: Repair | undefined;
  #forking: Forking | undefined;
  #weather: Weather;

  constructor(system: SoftwareSystem, random: Random, weather: Weather) {
    this.#random = random;
    this.#weather = weather;
    const process = system.spawnProcess();
    const fd = process.call("userfaultfd", O.NONBLOCK | O.CLOEXEC);
    const ioctls = new Ioctls(process, fd);
    const { EVENT_REMOVE, EVENT_UNMAP, EVENT_REMAP, EVENT_FORK } = UFFD_FEATURE;
    must(ioctls.api(EVENT_REMOVE | EVENT_UNMAP | EVENT_REMAP | EVENT_FORK).errno === 0, "UFFDIO_API");
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED_NOREPLACE;
    this.#base = process.call("mmap", BASE, PAGES * PAGE_SIZE, PROT.READ | PROT.WRITE, flags, -1, 0);
    must(this.#base === BASE, `mmap answered ${this.#base}`);
    must(ioctls.register(this.#base, PAGES * PAGE_SIZE, 1).errno === 0, "UFFDIO_REGISTER");
    const region = new Region({
      pageSize: PAGE_SIZE,
      pageCount: PAGES,
      imageOffset: 0,
      windowPages: UNIT_PAGES >> random.below(3),
      resident: new Uint32Array(wordsFor(PAGES)),
      zero: new Uint32Array(wordsFor(PAGES)),
      hasZeros: false,
    });
    this.#staging = process.share((SLOTS + 2) * UNIT_BYTES);
    this.#startPager();
    const values = Array.from({ length: PLACES }, (_, page): Seen[] => [
      page < PAGES ? imageByte(page) : "segv",
    ]);
    this.#addGuest(process, fd, new RegionMap([wholePart(this.#base, region)]), new Memory(values));
  }

  /** One step of chance. */
  step(): void {
    const roll = this.#random.below(100);
    if (roll < 22) this.#load();
    else if (roll < 28) this.#store();
    else if (roll < 34) this.#discard();
    else if (roll < 36) this.#unmap();
    else if (roll < 38) this.#move();
    else if (roll < 39) this.#fork();
    else if (roll < 60) this.#pump();
    else if (roll < 72) this.#collect();
    else if (roll < 89) this.#link.progress();
    else if (roll < 93) this.#pass(this.#random.below(60));
    else if (roll < 96) this.#wantSome();
    else if (roll < 98) this.#repairSome();
    else this.#die();
    this.settle();
    this.check();
  }

  /** The weather clears up, and everything has to come to an end, in so many rounds. */
  finish(rounds: number): void {
    this.#weather = { failing: 0, hanging: 0 };
    this.#link.weather = this.#weather;
    for (let round = 0; round < rounds && (this.#doing.length > 0 || this.#forking !== undefined); round++) {
      this.#pump();
      this.#link.progress();
      this.#collect();
      this.#pass(5);
      this.settle();
      this.check();
    }
    const left = this.#doing.map(({ what, thread }) => `${what} (${thread.state})`);
    must(left.length === 0, `these wait for ever: ${left.join(", ")}`);
    for (const guest of this.guests) {
      for (let page = 0; page < PLACES; page++) {
        this.#begin(guest, page, `last load ${page}`, {
          kind: "load",
          address: this.#addressOf(page),
          size: 1,
        });
        for (let round = 0; round < rounds && this.#doing.length > 0; round++) {
          this.#pump();
          this.#link.progress();
          this.#collect();
          this.#pass(5);
          this.settle();
        }
        must(this.#doing.length === 0, `the last look at page ${page} waits for ever`);
      }
    }
    this.check();
  }

  close(): void {
    for (const { process } of this.guests) process.kill();
  }

  /** Looks what has ended, and whether it was allowed to end so. */
  settle(): void {
    const before = new Map(
      this.#doing.map((doing) => [doing, new Set(doing.guest.memory.possible(doing.page))]),
    );
    const quiet = new Set(this.#doing.filter(({ guest, page }) => guest.memory.isQuiet(page)));
    for (const { process } of this.guests) process.settle();
    this.#bearChild();
    const ended = this.#doing.filter(({ thread }) => thread.ending !== undefined);
    this.#doing = this.#doing.filter(({ thread }) => thread.ending === undefined);
    // Changes first: a look that ended in the same moment may have seen either.
    for (const doing of ended) if (doing.mutation !== undefined) this.#endMutation(doing);
    for (const doing of ended) {
      const seen = seenOf(doing.thread.ending);
      const { memory } = doing.guest;
      const isStore = doing.what.startsWith("store");
      if (isStore && typeof seen === "number") continue;
      if (doing.mutation !== undefined && !isStore) continue;
      const allowed = new Set([...before.get(doing)!, ...memory.possible(doing.page)]);
      must(allowed.has(seen), `${doing.what} saw ${seen}, allowed were ${[...allowed].join(" ")}`);
      if (quiet.has(doing)) memory.learn(doing.page, seen);
    }
  }

  /** What must hold after every step. */
  check(): void {
    const { machine } = this.#fetcher;
    const { slots, fetches, low, queued } = machine.bounds;
    must(slots === SLOTS, `${slots} slots of ${SLOTS} are known`);
    must(fetches <= FETCHES_MAX, `${fetches} fetches at once`);
    must(low < FETCHES_MAX, `${low} fetches of low rank at once`);
    must(queued <= WANTED_MAX, `${queued} units are queued`);
    must(fetches === this.#link.open, `${fetches} fetches are known, ${this.#link.open} are open`);
    const { faults, outcomes } = readStatistics(this.#counters);
    const { copied, zeroed, continued, poisoned, woken } = outcomes;
    const done = copied + zeroed + continued + poisoned + woken;
    const deferred = this.guests.reduce((sum, { loop }) => sum + loop.resolver.deferred, 0);
    const open = machine.waiting + deferred;
    must(faults === done + open, `${faults} faults, ${done} outcomes, ${open} open`);
  }

  #load(): void {
    const guest = this.#pick(this.guests);
    const page = this.#random.below(PLACES);
    this.#begin(guest, page, `load ${page}`, { kind: "load", address: this.#addressOf(page), size: 1 });
  }

  #store(): void {
    const guest = this.#pick(this.guests);
    const page = this.#random.below(PAGES);
    if (!guest.memory.isMapped(page)) return;
    const value = 100 + this.#random.below(100);
    const before = new Map([[page, new Set(guest.memory.possible(page))]]);
    const mutation = guest.memory.begin([page], value);
    const operation = { kind: "store", address: this.#addressOf(page), value } as const;
    this.#begin(guest, page, `store ${value} at ${page}`, operation, { mutation, before });
  }

  #discard(): void {
    const guest = this.#pick(this.guests);
    const first = this.#random.below(PAGES);
    const pages = range(first, Math.min(PAGES, first + 1 + this.#random.below(6)));
    if (!pages.every((page) => guest.memory.isMapped(page))) return;
    const mutation = guest.memory.begin(pages, 0);
    const args = [this.#addressOf(first), pages.length * PAGE_SIZE, MADV.DONTNEED];
    this.#begin(guest, first, `discard ${pages}`, { kind: "call", name: "madvise", args }, { mutation });
  }

  #unmap(): void {
    const guest = this.#pick(this.guests);
    const first = this.#random.below(PAGES);
    const pages = range(first, Math.min(PAGES, first + 1 + this.#random.below(3)));
    if (!pages.every((page) => guest.memory.isMapped(page))) return;
    const mutation = guest.memory.begin(pages, "segv");
    const args = [this.#addressOf(first), pages.length * PAGE_SIZE];
    this.#begin(guest, first, `unmap ${pages}`, { kind: "call", name: "munmap", args }, { mutation });
  }

  /** mremap, of pages that nobody looks at meanwhile: what they would see has no simple rule. */
  #move(): void {
    const guest = this.#pick(this.guests);
    const from = this.#random.below(PAGES);
    const count = Math.min(PAGES - from, 1 + this.#random.below(4));
    const to = PAGES + from;
    const { memory } = guest;
    const pages = [...range(from, from + count), ...range(to, to + count)];
    const isFree = pages.every(
      (page) =>
        memory.isQuiet(page) && !this.#doing.some((other) => other.guest === guest && other.page === page),
    );
    if (!isFree || !range(from, from + count).every((page) => memory.isMapped(page))) return;
    if (range(to, to + count).some((page) => memory.isMapped(page))) return;
    const bytes = count * PAGE_SIZE;
    const args = [this.#addressOf(from), bytes, bytes, MREMAP.MAYMOVE | MREMAP.FIXED, this.#addressOf(to)];
    // While it is under way both places may be either.
    const mutation = memory.begin(pages, "segv");
    for (const page of range(0, count)) {
      for (const seen of memory.possible(from + page)) memory.allow(to + page, seen);
    }
    const moves = { to, count };
    this.#begin(
      guest,
      from,
      `move ${from} to ${to}`,
      { kind: "call", name: "mremap", args },
      { mutation, moves },
    );
  }

  #fork(): void {
    const [guest] = this.guests;
    if (guest === undefined || this.guests.length > 2 || this.#forking !== undefined) return;
    if (!guest.memory.isAllQuiet) return;
    const { thread, child } = guest.process.fork();
    this.log.push("fork");
    // The child has the memory of this moment, whenever its event is read.
    this.#forking = { thread, child, memory: guest.memory.copy() };
  }

  #bearChild(): void {
    const forking = this.#forking;
    const child = forking?.child();
    if (forking === undefined || child === undefined || forking.thread.ending === undefined) return;
    const born = this.#born;
    must(born !== undefined, "a child was born, and nobody has told");
    this.#forking = undefined;
    this.#born = undefined;
    this.#addGuest(child, born!.fd, born!.regions, forking.memory);
  }

  #born: { readonly fd: number; readonly regions: RegionMap } | undefined;

  #pump(): void {
    for (const { loop } of this.guests) {
      const result = loop.pump(1 + this.#random.below(4));
      must(result === 0 || result === -ERRNO.EAGAIN, `read answered ${result}`);
      if (this.#random.below(2) === 0) loop.resolver.retry();
    }
  }

  #collect(): void {
    for (const { loop } of this.guests) loop.resolver.retry();
    this.#fetcher.collect();
    const { machine } = this.#fetcher;
    must(machine.oldestDeadlineMs > this.clock.ms, "a fault waits past its deadline");
    if (this.#repair?.step() === "done") this.#repair = undefined;
  }

  #pass(ms: number): void {
    this.clock.ms += ms;
  }

  #wantSome(): void {
    const rank = this.#random.below(2) === 0 ? RANK.AHEAD : RANK.BACKGROUND;
    this.#fetcher.want(this.#pick(this.guests).client, this.#random.below(UNITS), rank);
  }

  #repairSome(): void {
    const loops = this.guests.map(({ loop }) => loop);
    this.#repair ??= new Repair(1, loops, { start: 0, until: Number.MAX_SAFE_INTEGER });
  }

  /** The pager dies between two steps; another one takes over the guests' memory and what is known of it. */
  #die(): void {
    // A child that nobody has been told of would be lost with it: a keeper's business, not the pager's.
    if (this.#forking !== undefined) return;
    this.log.push("the pager dies");
    this.#counters = makeCounters();
    this.#startPager();
    for (const guest of this.guests) {
      const { process, fd, regions, memory } = guest;
      [guest.loop, guest.client] = this.#loopFor(process, fd, regions, memory);
      guest.loop.wakeAll();
    }
  }

  #startPager(): void {
    this.#repair = undefined;
    const image = {
      unitBytes: UNIT_BYTES,
      isHole: (unit: number) => unit === HOLE,
      fill: (unit: number, target: Uint8Array) => {
        for (let page = 0; page < UNIT_PAGES; page++) {
          target.fill(imageByte(unit * UNIT_PAGES + page), page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
        }
      },
    };
    const staging = this.#staging.bytes.subarray(UNIT_BYTES, (SLOTS + 1) * UNIT_BYTES);
    this.#link = new SimulatedLink(this.#random, image, staging, this.#weather);
    this.#fetcher = new Fetcher({
      byteLength: PAGES * PAGE_SIZE,
      unitBytes: UNIT_BYTES,
      slots: SLOTS,
      fetchesMax: FETCHES_MAX,
      deadlineMs: DEADLINE_MS,
      expires: true,
      backgroundRate: this.#random.below(2) === 0 ? Number.POSITIVE_INFINITY : 1e6,
      staging: this.#staging.address + UNIT_BYTES,
      link: this.#link,
      holes: new Uint32Array(1),
      direct: this.#random.below(3) === 0 ? this.#directReader(image) : undefined,
      now: () => this.clock.ms,
    });
  }

  /** Reads at the fault itself, when it can; what is there after a failure is anything. */
  #directReader(image: SimulatedImage): DirectReader {
    const target = this.#staging.bytes.subarray((SLOTS + 1) * UNIT_BYTES, (SLOTS + 2) * UNIT_BYTES);
    return {
      address: this.#staging.address + (SLOTS + 1) * UNIT_BYTES,
      read: (unit) => {
        target.fill(this.#random.below(256));
        if (this.#random.below(3) === 0) return undefined;
        if (image.isHole(unit)) return "zero";
        image.fill(unit, target);
        return "bytes";
      },
    };
  }

  #addGuest(process: SoftwareProcess, fd: number, regions: RegionMap, memory: Memory): void {
    const [loop, client] = this.#loopFor(process, fd, regions, memory);
    this.guests.push({ process, fd, regions, memory, loop, client });
  }

  #loopFor(
    process: SoftwareProcess,
    fd: number,
    regions: RegionMap,
    memory: Memory,
  ): [FaultLoop, FetchClient] {
    // A child's userfaultfd is the pager's, whose process is the first one.
    const pager = this.guests[0]?.process ?? process;
    const client = this.#fetcher.client({
      counters: this.#counters,
      deadlineMs: DEADLINE_MS,
      expires: true,
      installsWhole: this.#random.below(2) === 0,
      onError: () => undefined,
    });
    const loop = new FaultLoop({
      port: new CallerPort(pager, fd, () => this.clock.ms),
      regions,
      source: this.#fetcher,
      counters: this.#counters,
      zeros: this.#staging.address,
      now: () => this.clock.ms,
      park: client.park,
      onChange: client.change,
      fetchFrom: client.fetchFrom,
      onError: (error) => this.#lost(error, memory),
      onFork: (child, copy) => {
        this.#born = { fd: child, regions: copy };
      },
    });
    this.#fetcher.add(loop, client);
    return [loop, client];
  }

  /** A page was given up: its thread may get SIGBUS from now on. */
  #lost(error: MinorfaultError, memory: Memory): void {
    this.log.push(`${error.code} at ${hex(error.address ?? 0)}`);
    if (error.address === undefined || error.code !== "ERR_HANDLER_FAILED") return;
    memory.poison(Math.floor((error.address - this.#base) / PAGE_SIZE));
  }

  #begin(
    guest: Guest,
    page: number,
    what: string,
    operation: Operation,
    more: Pick<Doing, "mutation" | "before" | "moves"> = {},
  ): void {
    const thread = guest.process.spawnThread();
    this.log.push(`guest ${this.guests.indexOf(guest)}: ${what}`);
    this.#doing.push({ guest, thread, what, page, ...more });
    thread.start(operation);
  }

  #endMutation({ guest, thread, mutation, before, moves, page, what }: Doing): void {
    const { memory } = guest;
    const seen = seenOf(thread.ending);
    if (moves !== undefined) {
      must(typeof seen === "number" && seen > 0, `${what} ended in ${seen}`);
      memory.move(mutation!, page, moves.to, moves.count);
      return;
    }
    memory.end(mutation!, typeof seen !== "number" || seen < 0, before);
  }

  #addressOf(page: number): number {
    return this.#base + page * PAGE_SIZE;
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#random.below(items.length)]!;
  }
}

function seenOf(ending: Ending | undefined): Seen {
  if (ending?.kind === "value") return ending.value;
  if (ending?.kind === "signal") return ending.signal === 7 ? "bus" : "segv";
  throw new Error(`a thread ended in ${JSON.stringify(ending)}`);
}

function range(from: number, until: number): number[] {
  return Array.from({ length: until - from }, (_, index) => from + index);
}

function must(holds: boolean, message: string): void {
  if (!holds) throw new Error(message);
}
