// The thread of a pager: prepares (image, rehearsal, placement), says "ready", and serves until it is told to stop.

import { parentPort } from "node:worker_threads";
import { HUGE_PAGE_SIZE, MAP, PAGE_SIZE, PROT, SIGNAL } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import type { Range } from "../base/range.ts";
import { acceptInterrupts, affinity, close, local, mmap, munmap, threadId } from "../linux/index.ts";
import { Bulk } from "./bulk.ts";
import { openPort } from "./chain-port.ts";
import { CONTROL, type EndNote, FLUSH_STEPS, type PagerMessage, type WorkOrder } from "./control.ts";
import { COUNTER } from "./counters.ts";
import { FaultLoop } from "./fault-loop.ts";
import { Companion } from "./fetch/companion.ts";
import { DirectUnits } from "./fetch/direct.ts";
import type { ReplayEnd } from "./fetch/link.ts";
import { rehearseFetching, rehearseInstalling } from "./fetch/rehearsal.ts";
import { Follower } from "./follower.ts";
import { noteOf } from "./notes.ts";
import type { PlacementReport } from "./options.ts";
import { WINDOW_PAGES_MAX } from "./plan.ts";
import { Region, RegionMap, wholePart } from "./regions.ts";
import { rehearse } from "./rehearsal.ts";
import { Repair } from "./repair.ts";
import { dismiss, fastest, selfTest } from "./self-test.ts";
import { Server } from "./server.ts";
import { type AddressableSource, MemorySource } from "./source.ts";
import { orderOf } from "./thread-order.ts";
import { Tracer } from "./trace.ts";
import { AdaptiveWidth } from "./width.ts";
import { Writes } from "./writes.ts";

/** How long a pager that is closed goes on with what has arrived already. */
const DRAIN_MS = 200;

let isRehearsed = false;
const order = await orderOf<WorkOrder>(makeReady);
const { control, counters } = order;
/** The last flush step that was taken up. */
let flushed = 0;
/** The last repair that was taken up. */
let repairedId = 0;
let servesSinceMs = 0;
const now = (): number => performance.now();
const tell = (message: PagerMessage): void => parentPort?.postMessage(message);
const onError = (error: unknown): void => tell({ kind: "error", error: noteOf(error) });

const direct = await openDirect();
tell({ kind: "ended", end: run() });
parentPort?.close();

/** While this thread still has an event loop. */
async function openDirect(): Promise<DirectUnits | undefined> {
  const { image } = order;
  if (!("fetch" in image)) return undefined;
  return DirectUnits.open(image.fetch.source, image.fetch.unitBytes);
}

function run(): EndNote {
  let server: Server | undefined;
  try {
    acceptInterrupts();
    Atomics.store(control, CONTROL.TID, threadId(local));
    const placement = prepare();
    const follower = new Follower(placement.mode, now);
    const source = mapImage();
    const companion = source instanceof Companion ? source : undefined;
    const { tid, isNested } = order;
    server = new Server({ mode: placement.mode, counters, follower, tid, now, companion, isNested });
    const zeros = zeroPage();
    servesSinceMs = now();
    addLoop(server, source, zeros, order.fd, guestRegions());
    follower.follow(order.tid);
    tell({ kind: "ready", placement });
    return serve(server);
  } catch (error) {
    return { reason: "failed", error: noteOf(error) };
  } finally {
    if (server === undefined) close(local, order.fd);
    if (order.swapFd >= 0) close(local, order.swapFd);
    server?.close();
  }
}

/** Nobody waits for a thread that is prepared: it may rehearse what not every pager needs. */
function makeReady(): void {
  rehearseOnce();
  try {
    rehearseFetching();
    rehearseInstalling();
  } catch {
    // As below.
  }
}

function rehearseOnce(): void {
  if (isRehearsed) return;
  isRehearsed = true;
  try {
    rehearse();
  } catch {
    // This process may not open a userfaultfd itself: the guest's first faults are the rehearsal.
  }
}

/** Compiles the loop by using it, and finds out where to run it. */
function prepare(): PlacementReport {
  rehearseOnce();
  if (order.placement !== undefined) return order.placement;
  const { toucher } = order;
  try {
    if (toucher === undefined) throw new MinorfaultError("ERR_BUG", "There is nobody for the self-test");
    return fastest(selfTest(toucher, affinity(local)));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { asked: "auto", mode: "same-cpu", why: `no self-test was possible: ${reason}` };
  } finally {
    if (toucher !== undefined) dismiss(toucher);
  }
}

function serve(server: Server): EndNote {
  const shouldStop = (): boolean => Atomics.load(control, CONTROL.REQUEST) !== control[CONTROL.SEEN];
  for (;;) {
    const goesOn = server.serve(shouldStop, tellDone);
    Atomics.store(control, CONTROL.SEEN, Atomics.load(control, CONTROL.REQUEST));
    if (!goesOn) return { reason: "guest-gone" };
    if (Atomics.load(control, CONTROL.STOP) !== 0) {
      server.drain(DRAIN_MS);
      return { reason: "closed" };
    }
    takeUpBulk(server);
    takeUpFlush(server);
    takeUpRepair(server);
  }
}

function tellDone(work: Bulk | Repair): void {
  if (work instanceof Bulk) {
    tell({ kind: "installed", id: work.id });
  } else {
    const { id, repaired, lost } = work;
    tell({ kind: "repaired", id, report: { repaired, lost } });
  }
}

function tellReplayed({ workingSet, error }: ReplayEnd, bytesInstalled: number): void {
  counters[COUNTER.BYTES_REPLAYED] = bytesInstalled;
  const report = { workingSet, bytesInstalled, ms: now() - servesSinceMs };
  tell({ kind: "replayed", report: error === undefined ? report : { ...report, error: noteOf(error) } });
}

function takeUpRepair(server: Server): void {
  const id = Atomics.load(control, CONTROL.REPAIR);
  if (id === repairedId) return;
  repairedId = id;
  const range = { start: addressAt(CONTROL.REPAIR_START), until: addressAt(CONTROL.REPAIR_UNTIL) };
  server.repair = new Repair(id, server.loops, range, server.companion?.fetcher);
}

/** An address in two control words. */
function addressAt(word: number): number {
  return control[word + 1]! * 2 ** 32 + (control[word]! >>> 0);
}

function takeUpFlush(server: Server): void {
  const id = Atomics.load(control, CONTROL.FLUSH);
  if (id === flushed) return;
  flushed = id;
  const step = FLUSH_STEPS[control[CONTROL.FLUSH_STEP]!] ?? "failed";
  for (const loop of server.loops) loop.flush(step);
  tell({ kind: "flushed", id });
}

/** Begins, goes on with, or drops installing everything, as the control words say now. */
function takeUpBulk(server: Server): void {
  const wanted = control[CONTROL.BULK]!;
  const [loop] = server.loops;
  if (wanted === (server.bulk?.id ?? 0) || loop === undefined) return;
  const piece = control[CONTROL.BULK_PIECE]!;
  const fetcher = server.companion?.fetcher;
  server.bulk = wanted === 0 ? undefined : new Bulk(wanted, loop, counters, piece, bulkRange(), fetcher);
}

function bulkRange(): Range | undefined {
  const until = addressAt(CONTROL.BULK_UNTIL);
  return until === 0 ? undefined : { start: addressAt(CONTROL.BULK_START), until };
}

function addLoop(
  server: Server,
  image: AddressableSource | Companion,
  zeros: number,
  fd: number,
  regions: RegionMap,
): void {
  const port = openPort(fd);
  const onFork = (child: number, memory: RegionMap): void => addLoop(server, image, zeros, child, memory);
  const { budgetBytes, swapFd } = order;
  const budget = budgetBytes > 0 ? { caller: local, budgetBytes, swapFd } : undefined;
  const protects = order.writes !== "ignore";
  const source = image instanceof Companion ? image.fetcher : image;
  const fetching =
    image instanceof Companion ? { park: image.fetcher.park, onChange: image.fetcher.change } : {};
  const tracer = order.trace && new Tracer(order.trace, servesSinceMs);
  const parts = { port, regions, source, counters, zeros, protects, budget, tracer, ...fetching };
  server.add(new FaultLoop({ ...parts, now, onError, onFork }));
}

function guestRegions(): RegionMap {
  const swapAddress = order.swapFd < 0 ? 0 : mapUntilExit(order.swapBytes, MAP.SHARED, order.swapFd);
  const { regions, image } = order;
  const unitBytes = "fetch" in image ? image.fetch.unitBytes : 0;
  return new RegionMap(
    regions.map(({ start, writes: bits, ...pages }) => {
      const region = new Region({
        ...pages,
        windowPages: pages.pageSize === PAGE_SIZE ? windowWithin(unitBytes, pages.imageOffset) : 1,
        writes: bits === undefined ? undefined : new Writes(bits, swapAddress),
        isEvictable: order.budgetBytes > 0,
        isProtected: order.writes !== "ignore",
      });
      if (order.isAdaptive && unitBytes === 0 && pages.pageSize === PAGE_SIZE) {
        region.width = new AdaptiveWidth(region.windowPages, WINDOW_PAGES_MAX);
      }
      return wholePart(start, region);
    }),
  );
}

/** The largest window that never goes over the end of what is fetched at once. */
function windowWithin(unitBytes: number, imageOffset: number): number {
  let { windowPages } = order;
  if (unitBytes === 0) return windowPages;
  const isCut = (bytes: number): boolean => bytes > unitBytes || imageOffset % bytes !== 0;
  while (windowPages > 1 && isCut(windowPages * PAGE_SIZE)) windowPages >>= 1;
  return windowPages;
}

/** The image's memory, or the line to who fetches it. */
function mapImage(): AddressableSource | Companion {
  const { image } = order;
  if ("fetch" in image) {
    const installsWhole = order.windowPages > 1;
    const { kills } = image.fetch;
    // Before its page is poisoned, so that no thread of it sees the SIGBUS.
    const kill = (): void => void local.call("kill", order.guestPid, SIGNAL.SIGKILL);
    const told = { now, onError, onExpired: kills ? kill : undefined, onReplayed: tellReplayed };
    return new Companion({ order: image.fetch, direct, installsWhole, ...told });
  }
  if ("address" in image) return new MemorySource(image.address, image.byteLength);
  return new MemorySource(mapUntilExit(image.byteLength, MAP.SHARED, image.descriptor), image.byteLength);
}

/** As many zeros as a huge page has, for memory that does not take ZEROPAGE; 0 where there is none such. */
function zeroPage(): number {
  const takesZeropage = order.regions.every(({ pageSize }) => pageSize === PAGE_SIZE);
  // A copy of zeros also takes the place of poison, which only a source that fails leaves behind.
  if (takesZeropage && order.writes === "ignore" && !("fetch" in order.image)) return 0;
  return mapUntilExit(HUGE_PAGE_SIZE, MAP.PRIVATE | MAP.ANONYMOUS, -1);
}

/** A read-only mapping that ends with this thread. */
function mapUntilExit(byteLength: number, flags: number, fd: number): number {
  const address = mmap(local, byteLength, { protection: PROT.READ, flags, fd });
  process.on("exit", () => munmap(local, address, byteLength));
  return address;
}
