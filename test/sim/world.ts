// The pager in a world that a seed decides: guests on the software userfaultfd, some of them from the start and some
// forked, all of one source; a clock that stands still unless it is told to move, and a death of the pager now and then.
//
// After each step all that must hold is checked (`check`), and what the guests have seen is held to the model (model.ts).

import { MADV, MAP, MREMAP, O, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import type { Ending, Operation, Thread } from "../../src/abi/system.ts";
import { UFFD_FEATURE } from "../../src/abi/userfaultfd.ts";
import type { Random } from "../../src/base/random.ts";
import { readStatistics } from "../../src/pager/counters.ts";
import { RANK, WANTED_MAX } from "../../src/pager/fetch/machine.ts";
import type { RegionMap } from "../../src/pager/regions.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import type { SoftwareProcess, SoftwareSystem } from "../../src/uffd/software/index.ts";
import type { Weather } from "./link.ts";
import { Memory, type Mutation, type Seen } from "./model.ts";
import {
  BASE,
  type Clock,
  FETCHES_MAX,
  imageByte,
  PAGES,
  type Seat,
  SimulatedPager,
  SLOTS,
  UNIT_PAGES,
  UNITS,
} from "./pager.ts";

/** Pages where nothing is, for memory to move to. */
const PLACES = 2 * PAGES;
const GUESTS_MAX = 3;

interface Guest {
  readonly process: SoftwareProcess;
  readonly memory: Memory;
  readonly seat: Seat;
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

export class World {
  readonly clock: Clock = { ms: 1000 };
  readonly log: string[] = [];
  readonly guests: Guest[] = [];
  readonly #random: Random;
  readonly #pager: SimulatedPager;
  readonly #pagerProcess: SoftwareProcess;
  /** Guests may fork; their pagers leave nothing behind then but what their successors are told. */
  readonly #mayFork: boolean;
  #doing: Doing[] = [];
  #lastPage = 0;
  #forking: Forking | undefined;
  #born: { readonly fd: number; readonly regions: RegionMap } | undefined;

  constructor(system: SoftwareSystem, random: Random, weather: Weather) {
    this.#random = random;
    const process = system.spawnProcess();
    this.#pagerProcess = process;
    this.#mayFork = random.below(2) === 0;
    const onFork = (fd: number, regions: RegionMap): void => {
      this.#born = { fd, regions };
    };
    const { clock, log } = this;
    const hasState = !this.#mayFork;
    this.#pager = new SimulatedPager({ process, random, clock, log, hasState, onFork }, weather);
    const count = 1 + random.below(GUESTS_MAX);
    for (let index = 0; index < count; index++) this.#addGuest(system.spawnProcess());
  }

  #addGuest(process: SoftwareProcess): void {
    const own = process.call("userfaultfd", O.NONBLOCK | O.CLOEXEC);
    const ioctls = new Ioctls(process, own);
    const { EVENT_REMOVE, EVENT_UNMAP, EVENT_REMAP, EVENT_FORK } = UFFD_FEATURE;
    const features = EVENT_REMOVE | EVENT_UNMAP | EVENT_REMAP | (this.#mayFork ? EVENT_FORK : 0n);
    must(ioctls.api(features).errno === 0, "UFFDIO_API");
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED_NOREPLACE;
    const start = process.call("mmap", BASE, PAGES * PAGE_SIZE, PROT.READ | PROT.WRITE, flags, -1, 0);
    must(start === BASE, `mmap answered ${start}`);
    must(ioctls.register(BASE, PAGES * PAGE_SIZE, 1).errno === 0, "UFFDIO_REGISTER");
    const pidfd = this.#pagerProcess.call("pidfd_open", process.pid, 0);
    const fd = this.#pagerProcess.call("pidfd_getfd", pidfd, own, 0);
    must(fd >= 0, `pidfd_getfd answered ${fd}`);
    // The pager has the only one: what it closes is closed.
    process.call("close", own);
    const values = Array.from({ length: PLACES }, (_, page): Seen[] => [
      page < PAGES ? imageByte(page) : "segv",
    ]);
    const memory = new Memory(values);
    this.guests.push({ process, memory, seat: this.#pager.seat(fd, memory) });
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
    else if (roll < 60) this.#pager.pump();
    else if (roll < 72) this.#collect();
    else if (roll < 89) this.#pager.progress();
    else if (roll < 93) this.#pass(this.#random.below(60));
    else if (roll < 96) this.#wantSome();
    else if (roll < 98) this.#pager.repairSome();
    else this.#die();
    this.settle();
    this.check();
  }

  /** The weather clears up, and everything has to come to an end, in so many rounds. */
  finish(rounds: number): void {
    this.#pager.weather = { failing: 0, hanging: 0 };
    for (let round = 0; round < rounds && (this.#doing.length > 0 || this.#forking !== undefined); round++) {
      this.#pager.pump();
      this.#pager.progress();
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
          this.#pager.pump();
          this.#pager.progress();
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
    this.#pagerProcess.kill();
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
    const { machine } = this.#pager.fetcher;
    const { slots, fetches, low, queued } = machine.bounds;
    must(slots === SLOTS, `${slots} slots of ${SLOTS} are known`);
    must(fetches <= FETCHES_MAX, `${fetches} fetches at once`);
    must(low < FETCHES_MAX, `${low} fetches of low rank at once`);
    must(queued <= WANTED_MAX, `${queued} units are queued`);
    must(
      fetches === this.#pager.link.open,
      `${fetches} fetches are known, ${this.#pager.link.open} are open`,
    );
    const { faults, outcomes } = readStatistics(this.#pager.counters);
    const { copied, zeroed, continued, poisoned, woken } = outcomes;
    const done = copied + zeroed + continued + poisoned + woken;
    const deferred = this.guests.reduce((sum, { seat }) => sum + seat.loop.resolver.deferred, 0);
    const open = machine.waiting + deferred;
    must(faults === done + open, `${faults} faults, ${done} outcomes, ${open} open`);
  }

  #load(): void {
    const guest = this.#pick(this.guests);
    const page = this.#nextPage();
    this.#begin(guest, page, `load ${page}`, { kind: "load", address: this.#addressOf(page), size: 1 });
  }

  /** Somewhere, or behind the last one: guests go in order, too. */
  #nextPage(): number {
    const goesOn = this.#random.below(2) === 0 && this.#lastPage + UNIT_PAGES < PAGES;
    this.#lastPage = goesOn ? this.#lastPage + UNIT_PAGES : this.#random.below(PLACES);
    return this.#lastPage;
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
    if (guest === undefined || !this.#mayFork || this.#forking !== undefined) return;
    if (this.guests.length > GUESTS_MAX) return;
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
    const seat = this.#pager.seat(born!.fd, forking.memory, born!.regions);
    this.guests.push({ process: child, memory: forking.memory, seat });
  }

  #collect(): void {
    this.#pager.collect();
    const { machine } = this.#pager.fetcher;
    must(machine.oldestDeadlineMs > this.clock.ms, "a fault waits past its deadline");
  }

  #pass(ms: number): void {
    this.clock.ms += ms;
  }

  #wantSome(): void {
    const rank = this.#random.below(2) === 0 ? RANK.AHEAD : RANK.BACKGROUND;
    this.#pager.want(this.#pick(this.guests).seat, this.#random.below(UNITS), rank);
  }

  /** The pager dies. */
  #die(): void {
    // A child that nobody has been told of would be lost with it: a keeper's business, not the pager's.
    if (this.#forking === undefined) this.#pager.die();
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
    return BASE + page * PAGE_SIZE;
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
