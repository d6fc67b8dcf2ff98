// A restore as the serving thread will see it, before there is one: it seats a guest, which is memory of its own, and
// replays a working set into it that nobody has read.
//
// Compiled code holds for the objects that it was compiled for. So everything here is made where it is made for a real
// guest; what was compiled for a stage of other objects would be thrown away, and compiled again, while the guest waits.

import { MessageChannel, type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { MAP, PAGE_SIZE } from "../abi/memory.ts";
import { wordsFor } from "../base/bitmap.ts";
import { Random } from "../base/random.ts";
import { close, local, mmap, munmap, pipe, threadId } from "../linux/index.ts";
import { openUserfaultfd } from "../uffd/open.ts";
import type { SourceOrder } from "./control.ts";
import { Companion } from "./fetch/companion.ts";
import { REPLAY_BYTES } from "./fetch/link.ts";
import { type FetchOrder, WIRE, WIRE_WORDS, type WireNews, type WireRequest } from "./fetch/order.ts";
import { makePaneWords } from "./fetch/panes.ts";
import { Follower } from "./follower.ts";
import { makeGuestOrder } from "./guest-order.ts";
import { Seating } from "./seating.ts";
import { Server } from "./server.ts";

/** What holds for one guest need not for the next: one of them is so large that offsets in it are no small integers. */
const GUESTS_BYTES = [4 * 2 ** 30, 64 * 2 ** 20];
/** So often until what installs a replay has been compiled for the last time, which takes half of a replay's time. */
const ROUNDS = 3;
const PIECE_PAGES = REPLAY_BYTES / PAGE_SIZE;
const PIECES = 64;
const UNIT_BYTES = 64 * 1024;
const SOURCE = 1;
const GUEST = 1;
const FAULTS = 128;
const NAME = "rehearsal";
/** LIMIT: whatever may go wrong, a thread is ready after that. */
const DEADLINE_MS = 500;

/** Throws what opening a userfaultfd throws where this process may not have one. */
export function rehearseReplays(now: () => number): void {
  for (let round = 0; round < ROUNDS; round++) {
    for (const guestBytes of GUESTS_BYTES) rehearseReplay(guestBytes, now);
  }
}

function rehearseReplay(guestBytes: number, now: () => number): void {
  const uffd = openUserfaultfd("kernel", local);
  const address = mmap(local, guestBytes, { flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE });
  const staging = local.share(REPLAY_BYTES);
  const { port1, port2 } = new MessageChannel();
  // Nobody rings.
  const [bell, ringer] = pipe();
  const order = fetchOrder(guestBytes, staging.address, bell);
  const companion = new Companion({
    order: { ...structuredClone(order), port: port1 },
    now,
    direct: undefined,
    room: { slots: 0 },
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
    const feeder = new Feeder(order.words, port2, guestBytes);
    const until = now() + DEADLINE_MS;
    server.serve(() => feeder.hasReplayed || now() > until);
    const loop = server.seatOf(GUEST)?.loops[0];
    for (let fault = 0; loop !== undefined && fault < FAULTS; fault++) {
      // Not all of them in one unit, and none in a run.
      loop.resolver.resolve(address + ((fault * 37) % (guestBytes / UNIT_BYTES)) * UNIT_BYTES, 0);
      server.serve(() => feeder.hasFetched || now() > until);
    }
  } finally {
    server.close();
    port2.close();
    close(local, ringer);
    uffd.close();
    munmap(local, address, guestBytes);
    staging.close();
  }
}

/** Says what the thread that fetches would say: the next piece when one has been installed, and that a unit has come. */
class Feeder {
  readonly #words: Int32Array;
  readonly #port: MessagePort;
  readonly #pages: Uint32Array;
  #pieces = 0;
  #freed = 0;
  #hasTold = false;

  constructor(words: Int32Array, port: MessagePort, guestBytes: number) {
    this.#pages = new Random(1).sample(PIECES * PIECE_PAGES, guestBytes / PAGE_SIZE);
    // Each piece has a page that is there by then.
    for (let at = PIECE_PAGES; at < this.#pages.length; at += PIECE_PAGES) this.#pages[at] = this.#pages[0]!;
    this.#words = words;
    this.#port = port;
  }

  /** Whether a unit has been asked for, and been told of. */
  get hasFetched(): boolean {
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
    this.#tell({ kind: "piece", slot: 0, runs });
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

function fetchOrder(byteLength: number, staging: number, bellFd: number): Omit<FetchOrder, "port"> {
  return {
    source: { url: NAME },
    name: NAME,
    byteLength,
    unitBytes: UNIT_BYTES,
    identity: undefined,
    content: undefined,
    slots: 2,
    fetchesMax: 1,
    runMax: 1,
    tid: threadId(local),
    staging,
    replayStaging: staging,
    keptSlots: 0,
    stagingBytes: REPLAY_BYTES,
    paneStaging: 0,
    panes: makePaneWords(),
    holes: new Uint32Array(new SharedArrayBuffer(wordsFor(byteLength / UNIT_BYTES) * 4)),
    workingSets: [NAME],
    replaying: NAME,
    words: new Int32Array(new SharedArrayBuffer(WIRE_WORDS * 4)),
    bellFd,
    deadlineMs: DEADLINE_MS,
    expires: false,
    backgroundRate: Number.POSITIVE_INFINITY,
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
