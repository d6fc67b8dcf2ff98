// A restore as the serving thread will see it, before there is one: it seats a guest, which is memory of its own, and
// replays a working set into it that nobody has read.
//
// Compiled code holds for the objects that it was compiled for. So everything here is made where it is made for a real
// guest; what was compiled for a stage of other objects would be thrown away, and compiled again, while the guest waits.

import { MessageChannel, type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { MAP, PAGE_SIZE } from "../abi/memory.ts";
import { wordsFor } from "../base/bitmap.ts";
import { Random } from "../base/random.ts";
import { sha256 } from "../image/hash.ts";
import { close, local, type Memory, mmap, munmap, pipe, threadId } from "../linux/index.ts";
import { openUserfaultfd } from "../uffd/open.ts";
import type { SourceOrder } from "./control.ts";
import { makeAheadWords } from "./fetch/ahead.ts";
import { Companion } from "./fetch/companion.ts";
import { REPLAY_BYTES } from "./fetch/link.ts";
import {
  type FetchSettings,
  makeFetchOrder,
  type OpenedSource,
  WIRE,
  WIRE_WORDS,
  type WireNews,
  type WireRequest,
} from "./fetch/order.ts";
import { makePaneWords } from "./fetch/panes.ts";
import { Follower } from "./follower.ts";
import { makeGuestOrder } from "./guest-order.ts";
import { FILL_BYTES_MAX } from "./installer.ts";
import type { Seat } from "./seat.ts";
import { Seating } from "./seating.ts";
import { Server } from "./server.ts";

/** What holds for one guest need not for the next: one of them is so large that offsets in it are no small integers. */
const GUESTS_BYTES = [4 * 2 ** 30, 64 * 2 ** 20];
/** So often until what installs a replay has been compiled for the last time, which takes half of a replay's time. */
const ROUNDS = 3;
const FILL_ROUNDS = 2;
const PIECE_PAGES = REPLAY_BYTES / PAGE_SIZE;
const PIECES = 64;
/** Every so manieth piece is one that this thread verifies. */
const PROVEN_EVERY = 4;
const UNIT_BYTES = 64 * 1024;
const SOURCE = 1;
const GUEST = 1;
const FAULTS = 128;
const NAME = "rehearsal";
/** As many as make runs. */
const SLOTS = 64;
const FETCHES_MAX = 48;
const RUN_MAX = 8;
const FILL = 1;
/** What is filled of each guest. */
const FILLED_BYTES = 16 * 2 ** 20;
/** LIMIT: whatever may go wrong, a thread is ready after that. */
const DEADLINE_MS = 500;
const SETTINGS: FetchSettings = {
  deadlineMs: DEADLINE_MS,
  fetchesMax: FETCHES_MAX,
  backgroundRate: Number.POSITIVE_INFINITY,
  expires: false,
  kills: false,
};

interface Stage {
  readonly server: Server;
  readonly seat: Seat;
  readonly feeder: Feeder;
  readonly address: number;
  readonly guestBytes: number;
  readonly isLate: () => boolean;
}

type Act = (stage: Stage) => void;

/** Throws what opening a userfaultfd throws where this process may not have one. */
export function rehearseReplays(now: () => number): void {
  rehearse(ROUNDS, now, replay);
}

/**
 * The same for guests that are filled. Not the last thing to be rehearsed: what this leaves for the compiler to do, it would do
 * while a guest begins.
 */
export function rehearseFills(now: () => number): void {
  rehearse(FILL_ROUNDS, now, fill);
}

function rehearse(rounds: number, now: () => number, act: Act): void {
  // One for all: V8 takes it for garbage that is to come, and would collect that while a guest begins.
  const staging = local.share(SLOTS * UNIT_BYTES);
  try {
    for (let round = 0; round < rounds; round++) {
      for (const guestBytes of GUESTS_BYTES) rehearseGuest(guestBytes, staging, now, act);
    }
  } finally {
    staging.close();
  }
}

function rehearseGuest(
  guestBytes: number,
  staging: Pick<Memory, "address" | "bytes">,
  now: () => number,
  act: Act,
): void {
  const uffd = openUserfaultfd("kernel", local);
  const address = mmap(local, guestBytes, { flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE });
  const { port1, port2 } = new MessageChannel();
  // Nobody rings.
  const [bell, ringer] = pipe();
  const words = new Int32Array(new SharedArrayBuffer(WIRE_WORDS * 4));
  const wire = { source: { url: NAME }, port: port1, words, bellFd: bell };
  const order = makeFetchOrder(SETTINGS, openedSource(guestBytes, staging.address), wire);
  const companion = new Companion({
    order: structuredClone(order, { transfer: [port1] }),
    now,
    direct: undefined,
    room: { slots: 0 },
    isAlone: () => true,
  });
  const follower = new Follower("block", now);
  const server = new Server({ mode: "block", follower, now, isNested: true, isSole: true });
  try {
    uffd.register(address, guestBytes, { missing: true });
    server.addCompanion(companion);
    const companions = new Map([[SOURCE, companion]]);
    const seating = new Seating({ server, companions, isSole: true, now, tell: () => undefined });
    const regions = [{ start: address, byteLength: guestBytes, imageOffset: 0 }];
    // As it comes out of a message: that makes other objects than we do.
    seating.seat(
      structuredClone(makeGuestOrder(GUEST, { descriptor: uffd.fd, regions }, imageOrder(guestBytes))),
    );
    const hash = sha256(staging.bytes.subarray(0, REPLAY_BYTES));
    const feeder = new Feeder({ words, port: port2, guestBytes, bellFd: ringer, hash });
    const until = now() + DEADLINE_MS;
    const seat = server.seatOf(GUEST);
    if (seat === undefined) return;
    act({ server, seat, feeder, address, guestBytes, isLate: () => now() > until });
  } finally {
    server.close();
    port2.close();
    close(local, ringer);
    uffd.close();
    munmap(local, address, guestBytes);
  }
}

/** The working set, and faults at what is not in it. */
function replay({ server, seat, feeder, address, guestBytes, isLate }: Stage): void {
  server.serve(() => feeder.hasReplayed || isLate());
  for (let fault = 0; fault < FAULTS; fault++) {
    // Not all of them in one unit, and none in a run.
    const unit = (fault * 37) % (guestBytes / UNIT_BYTES);
    seat.loops[0]?.resolver.resolve(address + unit * UNIT_BYTES, 0);
    server.serve(() => feeder.hasFetched || isLate());
  }
}

/** A part of it, in order. */
function fill({ server, seat, feeder, address, isLate }: Stage): void {
  seat.beginBulk(FILL, FILL_BYTES_MAX, { start: address, until: address + FILLED_BYTES });
  server.noticeWork(seat);
  server.serve(() => (feeder.hasFetched && !seat.hasBulk) || isLate());
}

interface FeederOptions {
  readonly words: Int32Array;
  readonly port: MessagePort;
  readonly guestBytes: number;
  readonly bellFd: number;
  readonly hash: Uint8Array;
}

/** Says what the thread that fetches would say: the next piece when one has been installed, and that a unit has come. */
class Feeder {
  readonly #words: Int32Array;
  readonly #port: MessagePort;
  readonly #pages: Uint32Array;
  readonly #bellFd: number;
  /** Of what lies in the slot. */
  readonly #hash: Uint8Array;
  #pieces = 0;
  #freed = 0;
  #hasTold = false;

  constructor({ words, port, guestBytes, bellFd, hash }: FeederOptions) {
    this.#bellFd = bellFd;
    this.#pages = new Random(1).sample(PIECES * PIECE_PAGES, guestBytes / PAGE_SIZE);
    // Each piece has a page that is there by then.
    for (let at = PIECE_PAGES; at < this.#pages.length; at += PIECE_PAGES) this.#pages[at] = this.#pages[0]!;
    this.#words = words;
    this.#port = port;
    this.#hash = hash;
  }

  /** Whether nothing is asked for any more; what has been is told of. */
  get hasFetched(): boolean {
    // So that nobody waits for what is asked for next.
    local.call("write", this.#bellFd, local.scratch.address, 1);
    let count = 0;
    for (let request = this.#hear(); request !== undefined; request = this.#hear()) {
      if (request.kind !== "fetch") continue;
      this.#tell({ kind: "end", ticket: request.ticket, count: request.count, result: "bytes" });
      count++;
    }
    return count === 0;
  }

  /** Whether all has been installed; to be asked again and again. */
  get hasReplayed(): boolean {
    for (let request = this.#hear(); request !== undefined; request = this.#hear()) {
      if (request.kind === "free") this.#freed++;
    }
    if (this.#freed < this.#pieces) return false;
    if (this.#pieces === PIECES) {
      if (!this.#hasTold) this.#tell({ kind: "replayed", workingSet: NAME });
      else return true;
      this.#hasTold = true;
      return false;
    }
    const first = this.#pieces++ * PIECE_PAGES;
    const runs = Uint32Array.from({ length: 2 * PIECE_PAGES }, (_, at) =>
      at & 1 ? 1 : this.#pages[first + (at >> 1)]!,
    );
    const isProven = this.#pieces % PROVEN_EVERY > 0;
    const unproven = isProven ? undefined : { sha256: this.#hash, byteLength: REPLAY_BYTES, what: NAME };
    this.#tell({ kind: "piece", slot: 0, runs, unproven });
    return false;
  }

  #hear(): WireRequest | undefined {
    return receiveMessageOnPort(this.#port)?.message as WireRequest | undefined;
  }

  #tell(news: WireNews): void {
    this.#port.postMessage(news);
    Atomics.add(this.#words, WIRE.DONE, 1);
  }
}

function openedSource(byteLength: number, staging: number): OpenedSource {
  return {
    name: NAME,
    byteLength,
    unitBytes: UNIT_BYTES,
    identity: undefined,
    content: undefined,
    slots: SLOTS,
    fetchesMax: FETCHES_MAX,
    runMax: RUN_MAX,
    tid: threadId(local),
    staging,
    replayStaging: staging,
    keptSlots: 0,
    stagingBytes: SLOTS * UNIT_BYTES,
    paneStaging: 0,
    panes: makePaneWords(),
    ahead: makeAheadWords(1),
    holes: new Uint32Array(new SharedArrayBuffer(wordsFor(byteLength / UNIT_BYTES) * 4)),
    workingSets: [NAME],
    replaying: NAME,
  };
}

function imageOrder(byteLength: number): SourceOrder {
  return {
    source: SOURCE,
    byteLength,
    unitBytes: UNIT_BYTES,
    deadlineMs: DEADLINE_MS,
    expires: false,
    kills: false,
    replay: NAME,
    isReplaying: true,
  };
}
