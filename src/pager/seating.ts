// Makes what a guest's order says: its regions, its bytes, the loop that serves it, and what outlives us.

import { HUGE_PAGE_SIZE, MAP, PAGE_SIZE, PROT, SIGNAL } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import { close, local, mmap, munmap, pidfdOpen, signalByPidfd } from "../linux/index.ts";
import { Ioctls } from "../uffd/ioctls.ts";
import { openPort } from "./chain-port.ts";
import type { GuestMessage, GuestOrder, ImageOrder, SourceOrder } from "./control.ts";
import { COUNTER } from "./counters.ts";
import { FaultLoop, type LoopState } from "./fault-loop.ts";
import type { FetchClient } from "./fetch/client.ts";
import type { Companion } from "./fetch/companion.ts";
import type { ReplayEnd } from "./fetch/link.ts";
import { HugePages } from "./huge-ahead.ts";
import { giveMemory, takeMemory } from "./memory-pool.ts";
import { noteOf } from "./notes.ts";
import { WINDOW_PAGES_MAX } from "./plan.ts";
import { type Part, Region, RegionMap, wholePart } from "./regions.ts";
import { Seat } from "./seat.ts";
import type { Server } from "./server.ts";
import { type AddressableSource, MemorySource } from "./source.ts";
import { PagerState, pagerStateBytes, STATE_PARTS_MAX } from "./state.ts";
import { Tracer } from "./trace.ts";
import { AdaptiveWidth } from "./width.ts";
import { Writes } from "./writes.ts";

/** LIMIT: pages of a window where other guests may wait: a tenth of a millisecond's work. */
const SHARED_WINDOW_PAGES = 64;

export interface SeatingOptions {
  readonly server: Server;
  /** The lines to those who fetch, by the numbers of their sources. */
  readonly companions: ReadonlyMap<number, Companion>;
  readonly isSole: boolean;
  readonly now: () => number;
  readonly tell: (message: GuestMessage) => void;
}

/** What all loops of a guest have in common. */
interface Common {
  readonly seat: Seat;
  /** Undefined: its bytes are fetched. */
  readonly source: AddressableSource | undefined;
  readonly state: PagerState | undefined;
  readonly regions: readonly Region[];
}

/** As many zeros as a huge page has, for all guests of this thread; 0 until one needs them. */
let zeros = 0;

export class Seating {
  readonly #options: SeatingOptions;

  constructor(options: SeatingOptions) {
    this.#options = options;
  }

  /** Serves a guest from now on, or ends it with what the system says against that. */
  seat(order: GuestOrder): void {
    const { server, companions, tell, now } = this.#options;
    const { image } = order;
    const companion = "source" in image ? companions.get(image.source) : undefined;
    const seat = new Seat({ order, companion, startedMs: now(), now, tell });
    try {
      if (order.swapFd >= 0) seat.onRelease(() => close(local, order.swapFd));
      const source = "source" in image ? undefined : mapImage(seat, image);
      const state = openState(seat);
      const regions = this.#regionsOf(seat, state);
      const map =
        state !== undefined && order.adopts
          ? state.adopt(regions, ({ start, until }) => wake(order.fd, start, until))
          : new RegionMap(wholeParts(order, regions));
      const isKilled = "source" in image && image.kills;
      if (!this.#options.isSole || isKilled) seat.pidfd = pidfdOf(order.guestPid);
      const loop = this.#addLoop({ seat, source, state, regions }, order.fd, map);
      server.add(seat);
      if (order.adopts) loop.wakeAll();
      tell({ kind: "ready", guest: order.guest });
    } catch (error) {
      if (seat.loops.length === 0) close(local, order.fd);
      server.remove(seat, { reason: "failed", error: noteOf(error) });
    }
  }

  #addLoop(common: Common, fd: number, regions: RegionMap): FaultLoop {
    const { server, now } = this.#options;
    const { seat } = common;
    const { order } = seat;
    const { budgetBytes, swapFd, counters } = order;
    const state = common.seat.loops.length === 0 ? common.state : undefined;
    const port = openPort(fd, { memory: state?.port, neverWaits: !this.#options.isSole });
    const client = this.#clientOf(common);
    const loop: FaultLoop = new FaultLoop({
      port,
      regions,
      source: common.source ?? seat.companion!.fetcher,
      counters,
      zeros: this.#zeroPage(order),
      protects: order.writes !== "ignore",
      budget: budgetBytes > 0 ? { caller: local, budgetBytes, swapFd } : undefined,
      hugePages: seat.loops.length === 0 ? hugePagesFor(seat) : undefined,
      tracer: order.trace && new Tracer(order.trace, seat.startedMs),
      state: state && loopState(common, state),
      now,
      onError: (error) => seat.report(error),
      onFork: (child, memory) => this.#addLoop(common, child, memory),
      onPutOff: () => server.putOff(loop),
      onGone: () => server.gone(loop),
      park: client?.park,
      onChange: client?.change,
      fetchFrom: client?.fetchFrom,
    });
    server.addLoop(seat, loop);
    if (client !== undefined) {
      seat.companion!.fetcher.add(loop, client);
      const { replay, isReplaying } = order.image as SourceOrder;
      // Its children have what it had when they were forked.
      if (replay !== undefined && seat.loops[0] === loop) {
        seat.companion!.fetcher.replays.add(client, replay, isReplaying);
      }
    }
    return loop;
  }

  #clientOf({ seat, source }: Common): FetchClient | undefined {
    const { order, companion } = seat;
    const { image } = order;
    if (source !== undefined || companion === undefined || !("source" in image)) return undefined;
    return companion.fetcher.client({
      counters: order.counters,
      deadlineMs: image.deadlineMs,
      expires: image.expires,
      installsWhole: order.windowPages > 1,
      followsFaults: this.#windowPagesMin(seat) !== undefined,
      onError: (error) => seat.report(error),
      // Before its page is poisoned, so that no thread of it sees the SIGBUS.
      onExpired: image.kills ? () => kill(seat) : undefined,
      onReplayed: (end, bytes) => this.#tellReplayed(seat, end, bytes),
    });
  }

  #tellReplayed(seat: Seat, { workingSet, error }: ReplayEnd, bytesInstalled: number): void {
    seat.order.counters[COUNTER.BYTES_REPLAYED] = bytesInstalled;
    const report = { workingSet, bytesInstalled, ms: this.#options.now() - seat.startedMs };
    seat.tell({
      kind: "replayed",
      report: error === undefined ? report : { ...report, error: noteOf(error) },
    });
  }

  #regionsOf(seat: Seat, state: PagerState | undefined): Region[] {
    const { order } = seat;
    const { regions, swapFd, swapBytes } = order;
    let swapAddress = 0;
    if (swapFd >= 0) {
      const address = mmap(local, swapBytes, { protection: PROT.READ, flags: MAP.SHARED, fd: swapFd });
      seat.onRelease(() => munmap(local, address, swapBytes));
      swapAddress = address;
    }
    const pagesMin = this.#windowPagesMin(seat);
    const pagesMax = this.#options.isSole ? WINDOW_PAGES_MAX : SHARED_WINDOW_PAGES;
    return regions.map(({ start: _, writes: bits, zero, hasZeros, ...pages }, index) => {
      const isSmall = pages.pageSize === PAGE_SIZE;
      const region = new Region({
        ...pages,
        zero: zero ?? state!.zeroBits(index),
        hasZeros: hasZeros || order.adopts,
        windowPages: isSmall ? order.windowPages : 1,
        writes: bits === undefined ? undefined : new Writes(bits, swapAddress),
        isEvictable: order.budgetBytes > 0,
        isProtected: order.writes !== "ignore",
      });
      if (pagesMin !== undefined && isSmall) {
        region.width = new AdaptiveWidth(region.windowPages, pagesMax, pagesMin);
      }
      return region;
    });
  }

  /**
   * The narrowest window where windows follow the faults; undefined where they do not. What is fetched is installed by whole
   * units, and so is what a thread of a single guest verifies: the one that fetches does so ahead of it.
   */
  #windowPagesMin({ order, companion }: Seat): number | undefined {
    if (!order.isAdaptive) return undefined;
    if (companion === undefined) return 1;
    const { windowBytesMin } = companion.fetcher;
    if (windowBytesMin === undefined) return undefined;
    const pages = windowBytesMin / PAGE_SIZE;
    return pages > 1 && this.#options.isSole ? undefined : pages;
  }

  /** As many zeros as a huge page has, for memory that does not take ZEROPAGE; 0 where there is none such. */
  #zeroPage({ regions, writes, image }: GuestOrder): number {
    const takesZeropage = regions.every(({ pageSize }) => pageSize === PAGE_SIZE);
    // A copy of zeros also takes the place of poison, which only a source that fails leaves behind.
    if (takesZeropage && writes === "ignore" && !("source" in image)) return 0;
    if (zeros === 0) {
      const flags = MAP.PRIVATE | MAP.ANONYMOUS;
      const address = mmap(local, HUGE_PAGE_SIZE, { protection: PROT.READ, flags });
      process.on("exit", () => munmap(local, address, HUGE_PAGE_SIZE));
      zeros = address;
    }
    return zeros;
  }
}

function wholeParts({ regions: orders }: GuestOrder, regions: readonly Region[]): Part[] {
  return orders.map(({ start }, index) => wholePart(start, regions[index]!));
}

/** The image's memory: a mapping that ends with the guest, if it is not there already. */
function mapImage(seat: Seat, image: Exclude<ImageOrder, SourceOrder>): AddressableSource {
  const { byteLength } = image;
  if ("address" in image) return new MemorySource(image.address, byteLength);
  const address = mmap(local, byteLength, {
    protection: PROT.READ,
    flags: MAP.SHARED,
    fd: image.descriptor,
  });
  seat.onRelease(() => munmap(local, address, byteLength));
  return new MemorySource(address, byteLength);
}

/** For memory of this process that is a file's; nobody may have to know of single pages of it. */
function hugePagesFor(seat: Seat): HugePages | undefined {
  const { image, isOwnMemory, writes, budgetBytes, trace } = seat.order;
  if (!("descriptor" in image) || !isOwnMemory || writes !== "ignore" || budgetBytes > 0 || trace) return;
  try {
    const pages = new HugePages(image.descriptor);
    seat.onRelease(() => pages.close());
    return pages;
  } catch {
    // No room for them, as a limit of address space may have it: small pages are copied.
    return undefined;
  }
}

function openState(seat: Seat): PagerState | undefined {
  const { stateFd, shapes, adopts } = seat.order;
  if (stateFd < 0) return undefined;
  try {
    const byteLength = pagerStateBytes(shapes);
    const memory = takeMemory(byteLength, stateFd);
    seat.onRelease(() => giveMemory(memory, byteLength));
    // A message must always find its page: a read that can't store it has lost it.
    local.call("mlock", memory.address, PAGE_SIZE);
    return new PagerState(memory, shapes, adopts);
  } finally {
    close(local, stateFd);
  }
}

/** A descriptor for the end of another process, -1 where there is none such. */
function pidfdOf(pid: number): number {
  if (pid === 0 || pid === process.pid) return -1;
  try {
    return pidfdOpen(pid);
  } catch {
    // Not to be seen from here (another namespace), or ended already: it is asked in the other way.
    return -1;
  }
}

function kill({ pidfd, order }: Seat): void {
  // By its descriptor where there is one: a number may be another process's by now.
  if (pidfd >= 0) signalByPidfd(pidfd, SIGNAL.SIGKILL);
  else local.call("kill", order.guestPid, SIGNAL.SIGKILL);
}

function wake(fd: number, start: number, until: number): void {
  new Ioctls(local, fd).wake(start, until - start);
}

function loopState({ seat, regions }: Common, state: PagerState): LoopState {
  let isTold = false;
  return {
    acknowledge: () => state.acknowledge(),
    commit(parts) {
      if (state.commit(parts, regions) || isTold) return;
      isTold = true;
      const message = `Guest memory in ${parts.length} parts, more than ${STATE_PARTS_MAX}, can't be taken over by another pager`;
      seat.report(new MinorfaultError("ERR_LIMIT", message));
    },
  };
}
