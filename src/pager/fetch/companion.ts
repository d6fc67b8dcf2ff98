// The serving thread's end of the line to the thread that fetches, as its server sees it: something to wait for beside
// the userfaultfds, and to look after when it has woken up.

import { close, local } from "../../linux/index.ts";
import { takeDiskWait } from "../../source/disk-reads.ts";
import type { DirectUnits } from "./direct.ts";
import { Fetcher } from "./fetcher.ts";
import { type FetchOrder, WIRE } from "./order.ts";
import { PortLink } from "./port-link.ts";
import type { KeptRoom } from "./replays.ts";

/** So many microseconds of waiting for a disk are worth waking the thread that fetches; a power of two. */
const TOLD_WAIT_US = 4096;
/** LIMIT: how long a unit of the other thread is waited for: some three times what it takes to verify one. */
const AWAIT_MS = 0.15;
/** Taken out of the pipe at once. */
const BELL_BYTES = 4096;

export interface CompanionOptions {
  readonly order: FetchOrder;
  readonly now: () => number;
  readonly direct: DirectUnits | undefined;
  readonly room: KeptRoom;
  /** Whether this thread has one guest. */
  readonly isAlone: () => boolean;
}

export class Companion {
  readonly fetcher: Fetcher;
  /** Readable when something has come while we slept. */
  readonly fd: number;
  /** Of the thread that fetches. */
  readonly tid: number;
  readonly #words: Int32Array;
  readonly #link: PortLink;
  readonly #direct: DirectUnits | undefined;

  constructor({ order, now, direct, room, isAlone }: CompanionOptions) {
    this.fd = order.bellFd;
    this.tid = order.tid;
    this.#words = order.words;
    this.#link = new PortLink(order);
    this.#direct = direct;
    const ring = (): void => this.#link.ring();
    this.fetcher = new Fetcher({
      ...order,
      link: this.#link,
      now,
      direct,
      room,
      ring,
      await: awaitBriefly,
      isAlone,
    });
  }

  /** To be called before a sleep; false when there is something to collect already. */
  beginSleep(): boolean {
    this.#tellDiskWait();
    Atomics.store(this.#words, WIRE.SLEEPING, 1);
    return !this.#link.hasNews;
  }

  /** How long this thread has waited for a disk: the one that fetches decides what is to be done about it. */
  #tellDiskWait(): void {
    const waitedUs = Math.round(takeDiskWait() * 1000);
    if (waitedUs === 0) return;
    const before = Atomics.add(this.#words, WIRE.DISK_WAIT, waitedUs);
    if ((before ^ (before + waitedUs)) >= TOLD_WAIT_US) this.#link.ring();
  }

  endSleep(): void {
    Atomics.store(this.#words, WIRE.SLEEPING, 0);
  }

  /** Its descriptor was readable. */
  silence(): void {
    // It does not matter how often it rang.
    local.call("read", this.fd, local.scratch.address, BELL_BYTES);
  }

  /** Lets the thread that fetches end, and go what this one has of the source. */
  close(): void {
    this.#direct?.close();
    this.fetcher.replays.close();
    Atomics.store(this.#words, WIRE.STOP, 1);
    // It may be in its event loop, and closing a port takes one: this thread has none while it serves.
    this.#link.send({ kind: "end" });
    close(local, this.fd);
  }
}

/** A sleep would take as long, and whoever waits for the fault has this CPU otherwise. There may be work meanwhile. */
function awaitBriefly(isSo: () => boolean, meanwhile: () => boolean = () => false): void {
  const until = performance.now() + AWAIT_MS;
  let hasMore = true;
  while (!isSo() && performance.now() < until) {
    // The other thread runs, on another CPU.
    if (hasMore) hasMore = meanwhile();
  }
}
