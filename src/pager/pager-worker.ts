// The thread that serves: prepares (rehearsal, placement), says so, and serves the guests that it is told of until it is
// told to stop.

import { parentPort, receiveMessageOnPort } from "node:worker_threads";
import { MinorfaultError } from "../base/errors.ts";
import { acceptInterrupts, affinity, expectRead, isCached, local, threadId } from "../linux/index.ts";
import { lendReadAhead } from "../source/read-ahead.ts";
import { CONTROL, type SeatOrder, type ServeMessage, type ServeOrder, type ThreadOrder } from "./control.ts";
import { rehearseFills, rehearseReplays } from "./dress-rehearsal.ts";
import { Companion } from "./fetch/companion.ts";
import { DirectUnits } from "./fetch/direct.ts";
import { REPLAY_BYTES } from "./fetch/link.ts";
import { isAtHand } from "./fetch/opened-source.ts";
import { KEPT_BYTES_MAX, type KeptRoom } from "./fetch/replays.ts";
import { Follower } from "./follower.ts";
import { noteOf } from "./notes.ts";
import type { PlacementReport } from "./options.ts";
import { rehearse } from "./rehearsal.ts";
import type { Seat } from "./seat.ts";
import { Seating } from "./seating.ts";
import { dismiss, fastest, selfTest } from "./self-test.ts";
import { Server } from "./server.ts";
import { orderOf } from "./thread-order.ts";

/** How long a guest that is let go of is served what has arrived already; one of many less long. */
const DRAIN_MS = { sole: 200, shared: 5 } as const;
/** LIMIT: bytes that are installed at once while others may wait: a tenth of a millisecond's work. */
const SHARED_PIECE_BYTES = 256 * 1024;

let isRehearsed = false;
const now = (): number => performance.now();
lendReadAhead({ expect: expectRead, isCached });
const order = await orderOf<ThreadOrder>([rehearseOnce], [rehearseMore]);
const { control, orders, isSole } = order;
const tell = (message: ServeMessage): void => parentPort?.postMessage(message);
const companions = new Map<number, Companion>();
const room: KeptRoom = { slots: KEPT_BYTES_MAX / REPLAY_BYTES };

try {
  await run();
} catch (error) {
  tell({ kind: "failed", error: noteOf(error) });
}
orders.close();
parentPort?.close();

async function run(): Promise<void> {
  acceptInterrupts();
  Atomics.store(control, CONTROL.TID, threadId(local));
  const placement = prepare();
  const follower = new Follower(placement.mode, now);
  const server = new Server({ mode: placement.mode, follower, now, isNested: order.isNested, isSole });
  const seating = new Seating({ server, companions, isSole, now, tell });
  try {
    const first = isSole ? await firstOrders((source) => take(source, server, seating)) : undefined;
    tell({ kind: "placed", placement });
    if (first !== undefined) take(first, server, seating);
    for (const { order: guest } of server.seats) follower.follow(guest.tid);
    serve(server, seating);
  } finally {
    server.close();
  }
}

function serve(server: Server, seating: Seating): void {
  const shouldStop = (): boolean => Atomics.load(control, CONTROL.REQUEST) !== control[CONTROL.SEEN];
  for (;;) {
    server.serve(shouldStop);
    const request = Atomics.load(control, CONTROL.REQUEST);
    for (let got = receiveMessageOnPort(orders); got !== undefined; got = receiveMessageOnPort(orders)) {
      take(got.message as ServeOrder, server, seating);
    }
    Atomics.store(control, CONTROL.SEEN, request);
    if (Atomics.load(control, CONTROL.STOP) !== 0) {
      for (const seat of [...server.seats]) server.drain(seat, isSole ? DRAIN_MS.sole : DRAIN_MS.shared);
      return;
    }
    if (isSole && server.isEmpty) {
      Atomics.store(control, CONTROL.STOP, 1);
      return;
    }
  }
}

/** Waits for the only guest: without one there is nothing to wait for. Its source comes first, and is taken at once. */
function firstOrders(takeSource: (one: ServeOrder) => void): Promise<ServeOrder> {
  return new Promise((resolve, reject) => {
    orders.on("message", (one: ServeOrder) => {
      try {
        if (one.kind === "source") takeSource(one);
        else resolve(one);
      } catch (error) {
        reject(error);
      }
    });
  });
}

function take(one: ServeOrder, server: Server, seating: Seating): void {
  switch (one.kind) {
    case "guest":
      seating.seat(one.order);
      return;
    case "source": {
      const { source, identity } = one.order;
      const direct = isAtHand(source, identity) ? new DirectUnits(one.order) : undefined;
      // Its guests are yet to come, and others may wait when they do.
      if (!isSole) direct?.prepare();
      const companion = new Companion({ order: one.order, now, direct, room, isAlone: () => server.isAlone });
      companions.set(one.source, companion);
      server.addCompanion(companion);
      return;
    }
    case "keep":
      companions.get(one.source)?.fetcher.replays.keep(one.workingSet);
      return;
    case "drop": {
      const companion = companions.get(one.source);
      if (companion !== undefined) server.removeCompanion(companion);
      companions.delete(one.source);
      tell({ kind: "dropped", source: one.source });
      return;
    }
    case "stop":
      // A control word says it; this only makes an event of it.
      return;
    default: {
      const seat = server.seatOf(one.guest);
      if (seat !== undefined) takeFor(seat, one, server);
    }
  }
}

function takeFor(seat: Seat, one: SeatOrder, server: Server): void {
  switch (one.kind) {
    case "close":
      server.drain(seat, isSole ? DRAIN_MS.sole : DRAIN_MS.shared);
      server.remove(seat, { reason: "closed" });
      return;
    case "bulk":
      seat.beginBulk(
        one.id,
        isSole ? one.pieceBytes : Math.min(one.pieceBytes, SHARED_PIECE_BYTES),
        one.range,
      );
      server.noticeWork(seat);
      return;
    case "repair":
      seat.beginRepair(one.id, one.range);
      server.noticeWork(seat);
      return;
    case "flush":
      seat.flush(one.id, one.step);
      return;
    default:
      one satisfies never;
  }
}

/** Nobody waits for a thread that is prepared: it may rehearse what not every pager needs. */
async function rehearseMore(): Promise<void> {
  try {
    const { rehearseReading } = await import("./fetch/rehearsal.ts");
    rehearseFills(now);
    await rehearseReading();
    rehearseReplays(now);
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
