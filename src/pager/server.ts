// Serves userfaultfds in the thread that calls it: waits as its placement says, and pumps whatever comes.
//
//   same-cpu, block   one userfaultfd: a blocking read, woken by the message itself, or by an interrupt
//   spin              asks without waiting as long as faults come; after an idle time it parks in poll
//   children, work    several userfaultfds are polled; while something is put off or in bulk, nothing waits
//
// A parked server uses no CPU. It is told things through `shouldStop`, which it asks after every wait: whoever wants
// it to look interrupts the thread (src/linux/interrupt.ts).

import { ERRNO } from "../abi/errno.ts";
import { POLL } from "../abi/memory.ts";
import { close, failure, local, setNonBlocking, writeTimespec } from "../linux/index.ts";
import type { Bulk, BulkState } from "./bulk.ts";
import { COUNTER, type Counters } from "./counters.ts";
import type { FaultLoop } from "./fault-loop.ts";
import type { Companion } from "./fetch/companion.ts";
import type { Follower } from "./follower.ts";
import type { PlacementMode } from "./options.ts";
import type { Repair } from "./repair.ts";

/** Messages between two looks at commands and at the guest's CPU: about a millisecond at full speed. */
const MESSAGES_MAX = 256;
/** What small pieces of a bulk may add up to before faults are looked for again: a tenth of a millisecond's work. */
const ROUND_BYTES = 256 * 1024;
/** How often children that are quiet are asked whether they live. */
const CHILDREN_MS = 1000;
/** How long a nested server waits at once. */
const NESTED_MS = 50;
/** How long a spinning server goes on without a fault: some ten times what a sleep and a wake cost. */
const SPIN_MS = 1;

export interface ServerOptions {
  readonly mode: PlacementMode;
  readonly counters: Counters;
  readonly follower: Follower;
  /** The guest's thread to follow while messages do not name one; 0: none. */
  readonly tid: number;
  readonly now: () => number;
  /** Where the bytes have to be fetched. */
  readonly companion?: Companion | undefined;
  /** The owner is itself a worker, and may be terminated: we have to come back to JavaScript to hear of it. */
  readonly isNested?: boolean;
}

export class Server {
  readonly #options: ServerOptions;
  /** The guest's own first, then its children's. */
  readonly #loops: FaultLoop[] = [];
  readonly #blocking = new Map<FaultLoop, boolean>();
  #bulk: Bulk | undefined;
  /** What is being repaired. */
  repair: Repair | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  add(loop: FaultLoop): void {
    this.#loops.push(loop);
    this.#options.companion?.add(loop);
  }

  get loops(): readonly FaultLoop[] {
    return this.#loops;
  }

  get companion(): Companion | undefined {
    return this.#options.companion;
  }

  get bulk(): Bulk | undefined {
    return this.#bulk;
  }

  /** Takes up, or drops, the work of installing everything. It runs beside the guest, not in its way. */
  set bulk(bulk: Bulk | undefined) {
    this.#bulk = bulk;
    this.#options.follower.mode = bulk === undefined ? this.#options.mode : "block";
  }

  /** Serves until it should stop, or until no guest is left (false). */
  serve(shouldStop: () => boolean, onDone: (work: Bulk | Repair) => void): boolean {
    while (!shouldStop()) {
      if (this.#bulk !== undefined || this.repair !== undefined || this.#hasPutOff) {
        this.#work(onDone);
      } else {
        if (this.#options.mode === "spin") this.#spin(shouldStop);
        else this.#wait();
        this.#follow();
      }
      this.#retire();
      if (this.#loops.length === 0) return false;
    }
    return true;
  }

  /** Serves what has arrived by now, without waiting. */
  drain(deadlineMs: number): void {
    const until = this.#options.now() + deadlineMs;
    for (const loop of this.#loops) {
      this.#setBlocking(loop, false);
      while (this.#pump(loop) === 0 || loop.resolver.isWaiting) {
        loop.resolver.retry();
        if (this.#options.now() > until || loop.installer.isGuestGone) break;
      }
    }
  }

  #pump(loop: FaultLoop): number {
    const result = loop.pump(MESSAGES_MAX);
    if (result < 0 && result !== -ERRNO.EAGAIN && result !== -ERRNO.EINTR) throw failure(result, "read");
    return result;
  }

  /** Waits for messages, and serves them. */
  #wait(): void {
    const [first, ...others] = this.#loops;
    const { companion, isNested = false } = this.#options;
    if (first !== undefined && others.length === 0 && companion === undefined && !isNested) {
      this.#setBlocking(first, true);
      this.#pump(first);
      return;
    }
    this.#poll();
    for (const loop of this.#loops) this.#pump(loop);
    companion?.fetcher.collect();
  }

  get #hasPutOff(): boolean {
    return this.#options.companion?.fetcher.isPutOff || this.#loops.some((loop) => loop.resolver.isWaiting);
  }

  /** Asks again and again while messages come; parks when none has come for a while. */
  #spin(shouldStop: () => boolean): void {
    const { counters, now } = this.#options;
    for (const loop of this.#loops) this.#setBlocking(loop, false);
    let served = messages(counters);
    let idleMs = now();
    while (now() - idleMs < SPIN_MS) {
      for (const loop of this.#loops) this.#pump(loop);
      this.#options.companion?.fetcher.collect();
      if (messages(counters) !== served) {
        served = messages(counters);
        idleMs = now();
        this.#follow();
        if (this.#hasPutOff || this.#loops.some((loop) => loop.installer.isGuestGone)) return;
      }
      if (shouldStop()) return;
    }
    this.#poll();
  }

  /** One round of what can't wait: messages first, then what was put off, then a piece of the bulk. */
  #work(onDone: (work: Bulk | Repair) => void): void {
    const { counters } = this.#options;
    const served = messages(counters);
    for (const loop of this.#loops) {
      this.#setBlocking(loop, false);
      this.#pump(loop);
      if (loop.resolver.isWaiting) loop.resolver.retry();
    }
    this.#options.companion?.fetcher.collect();
    const state = this.#bulkRound();
    if (state === "done" && this.#bulk !== undefined) {
      const bulk = this.#bulk;
      this.bulk = undefined;
      onDone(bulk);
    }
    const repairing = this.#repairRound(onDone);
    // The one whose event we have read has to run before the system takes fills again.
    if (state === "put-off" && messages(counters) === served) local.call("sched_yield");
    // What has been fetched is installed when it comes: until then there is nothing to do but faults.
    const isIdle = messages(counters) === served && !this.#hasPutOff;
    const bulk = this.#bulk === undefined ? "away" : state;
    if (isIdle && bulk === "away" && repairing === "away") this.#poll();
  }

  #repairRound(onDone: (work: Bulk | Repair) => void): BulkState {
    const { repair } = this;
    if (repair === undefined) return "away";
    const state = repair.step();
    if (state !== "done") return state;
    this.repair = undefined;
    onDone(repair);
    return state;
  }

  /** As many pieces as may come before the next look at messages. */
  #bulkRound(): BulkState {
    const bulk = this.#bulk;
    if (bulk === undefined) return "put-off";
    let state = bulk.step();
    for (let bytes = bulk.pieceBytes; state === "more" && bytes < ROUND_BYTES; bytes += bulk.pieceBytes) {
      state = bulk.step();
    }
    return state;
  }

  #poll(): void {
    const { address, view } = local.scratch;
    for (const [index, loop] of this.#loops.entries()) {
      this.#setBlocking(loop, false);
      view.setInt32(index * 8, loop.port.fd, true);
      view.setUint32(index * 8 + 4, POLL.IN, true);
    }
    const { companion, isNested } = this.#options;
    let count = this.#loops.length;
    // Alone it waits for ever: its owner looks whether the guest lives. Nobody else knows of its children.
    let timeoutMs = isNested ? NESTED_MS : count > 1 ? CHILDREN_MS : Number.POSITIVE_INFINITY;
    if (companion !== undefined) {
      if (!companion.beginSleep()) {
        companion.endSleep();
        return;
      }
      view.setInt32(count * 8, companion.fd, true);
      view.setUint32(count * 8 + 4, POLL.IN, true);
      count++;
      timeoutMs = Math.min(timeoutMs, companion.fetcher.dueMs);
    }
    const timeoutAt = count * 8;
    const isBounded = timeoutMs < Number.POSITIVE_INFINITY;
    if (isBounded) writeTimespec(view, timeoutAt, timeoutMs);
    const ready = local.call("ppoll", address, count, isBounded ? address + timeoutAt : 0, 0, 8);
    companion?.endSleep();
    if (ready === 0) for (const loop of this.#loops) loop.checkGuest();
  }

  #follow(): void {
    const { follower, tid } = this.#options;
    follower.follow(this.#loops[0]?.lastThreadId || tid);
  }

  /** Lets go of guests that have ended. */
  #retire(): void {
    for (const loop of this.#loops.filter(({ installer }) => installer.isGuestGone)) {
      this.#loops.splice(this.#loops.indexOf(loop), 1);
      this.#blocking.delete(loop);
      this.#options.companion?.remove(loop);
      release(loop);
    }
  }

  /** Wakes everybody who waits, and gives all descriptors back. */
  close(): void {
    for (const loop of this.#loops) {
      loop.wakeAll();
      release(loop);
    }
    this.#loops.length = 0;
    this.#options.companion?.close();
    this.#options.follower.close();
  }

  #setBlocking(loop: FaultLoop, on: boolean): void {
    if (this.#blocking.get(loop) === on) return;
    setNonBlocking(local, loop.port.fd, !on);
    this.#blocking.set(loop, on);
  }
}

function messages(counters: Counters): number {
  return counters[COUNTER.FAULTS]! + counters[COUNTER.EVENTS]!;
}

function release(loop: FaultLoop): void {
  close(local, loop.port.fd);
  loop.port.close();
}
