// Serves the userfaultfds of many guests in the thread that calls it: waits as its placement says, and pumps whatever
// comes.
//
//   sole guest        a blocking read of its userfaultfd, woken by the message itself, or by an interrupt
//   spin              asks without waiting as long as faults come; after an idle time it waits
//   all else          one epoll of all userfaultfds, of the bells of those who fetch, and of the guests' ends
//
// Guests take turns: each may have so many messages served, then the next one that is ready; what nobody waits for is
// done in slices in between. A server that waits uses no CPU, however many guests it has. It is told things through `shouldStop`,
// which it asks after every wait: whoever wants it to look interrupts the thread (src/linux/interrupt.ts).

import { ERRNO } from "../abi/errno.ts";
import { POLL } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import { Epoll, failure, local, setNonBlocking } from "../linux/index.ts";
import type { EndNote } from "./control.ts";
import type { FaultLoop } from "./fault-loop.ts";
import type { Companion } from "./fetch/companion.ts";
import type { Follower } from "./follower.ts";
import { noteOf } from "./notes.ts";
import type { PlacementMode } from "./options.ts";
import type { Seat } from "./seat.ts";

/** Messages between two looks at orders and at the guest's CPU: about a millisecond at full speed. */
const MESSAGES_MAX = 256;
/** The same where others may wait for their turn. */
const TURN_MESSAGES = 16;
/** What small pieces of a bulk may add up to before faults are looked for again: a tenth of a millisecond's work. */
const ROUND_BYTES = 256 * 1024;
/** How often guests are asked whether they live, of which nothing else would tell. */
const LOOK_MS = 1000;
/** How long a nested server waits at once. */
const NESTED_MS = 50;
/** How long a spinning server goes on without a fault: some ten times what a sleep and a wake cost. */
const SPIN_MS = 1;
/** LIMIT: how often others may make the reads of a userfaultfd wait. */
const INSISTED_MAX = 1000;
/** LIMIT: descriptors that one wait answers; the others have their turn after them. */
const READY_MAX = 64;

export interface ServerOptions {
  readonly mode: PlacementMode;
  readonly follower: Follower;
  readonly now: () => number;
  /** The owner is itself a worker, and may be terminated: we have to come back to JavaScript to hear of it. */
  readonly isNested: boolean;
  /** There is one guest, whose end somebody else watches. */
  readonly isSole: boolean;
}

interface Place {
  readonly loop: FaultLoop;
  readonly seat: Seat;
  isBlocking: boolean | undefined;
  /** How often its reads were made to wait by others. */
  insisted: number;
}

export class Server {
  readonly #options: ServerOptions;
  readonly #epoll = new Epoll(local);
  readonly #ready = new Int32Array(2 * READY_MAX);
  readonly #seats = new Map<number, Seat>();
  /** By descriptor. */
  readonly #places = new Map<number, Place>();
  readonly #bells = new Map<number, Companion>();
  readonly #pidfds = new Map<number, Seat>();
  /** Faults of theirs were put off. */
  readonly #restless = new Set<FaultLoop>();
  /** Their guests have ended. */
  readonly #gone = new Set<FaultLoop>();
  /** There is something to be done beside faults; whose turn it is comes first. */
  readonly #busy = new Set<Seat>();
  /** Messages served. */
  #served = 0;
  #last: Place | undefined;
  /** Whose reads wait. */
  #blocking: Place | undefined;
  #lookedMs = 0;
  #isWorking = false;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  /** Adds a guest whose loops are there. */
  add(seat: Seat): void {
    this.#seats.set(seat.guest, seat);
    if (seat.pidfd < 0) return;
    this.#pidfds.set(seat.pidfd, seat);
    this.#epoll.add(seat.pidfd);
  }

  /** Adds the memory of a guest, or of a child of it. */
  addLoop(seat: Seat, loop: FaultLoop): void {
    seat.loops.push(loop);
    const place: Place = { loop, seat, isBlocking: undefined, insisted: 0 };
    this.#places.set(loop.port.fd, place);
    this.#setBlocking(place, false);
    this.#epoll.add(loop.port.fd);
  }

  addCompanion(companion: Companion): void {
    this.#bells.set(companion.fd, companion);
    this.#epoll.add(companion.fd);
    this.#options.follower.addHelper(companion.tid);
  }

  removeCompanion(companion: Companion): void {
    this.#bells.delete(companion.fd);
    this.#epoll.remove(companion.fd);
    this.#options.follower.removeHelper(companion.tid);
    companion.close();
  }

  get seats(): Iterable<Seat> {
    return this.#seats.values();
  }

  get isEmpty(): boolean {
    return this.#seats.size === 0;
  }

  /** Whether there is one guest, for which all is done. */
  get isAlone(): boolean {
    return this.#seats.size === 1;
  }

  seatOf(guest: number): Seat | undefined {
    return this.#seats.get(guest);
  }

  /** A fault of this loop was put off. */
  putOff(loop: FaultLoop): void {
    this.#restless.add(loop);
  }

  /** The guest of this loop has ended. */
  gone(loop: FaultLoop): void {
    this.#gone.add(loop);
  }

  /** A guest's work beside faults has begun, or was dropped. */
  noticeWork(seat: Seat): void {
    if (seat.isBusy) this.#busy.add(seat);
    else this.#busy.delete(seat);
    this.#placeForWork();
  }

  /** Serves until it should stop, or until its only guest is gone. */
  serve(shouldStop: () => boolean): void {
    const { mode, isSole } = this.#options;
    while (!shouldStop()) {
      if (this.#hasWork) {
        this.#work();
      } else {
        if (mode === "spin") this.#spin(shouldStop);
        else if (this.#waitsInRead) this.#waitInRead();
        else this.#serveReady(this.#restMs);
        this.#follow();
      }
      this.#look();
      this.#retire();
      if (isSole && this.#seats.size === 0) return;
    }
  }

  /** Serves what a guest has said by now, without waiting. */
  drain(seat: Seat, deadlineMs: number): void {
    const until = this.#options.now() + deadlineMs;
    for (const loop of [...seat.loops]) {
      const place = this.#places.get(loop.port.fd);
      if (place === undefined) continue;
      this.#setBlocking(place, false);
      while (this.#pump(place, MESSAGES_MAX) === 0 || loop.resolver.isWaiting) {
        loop.resolver.retry();
        if (this.#options.now() > until || loop.installer.isGuestGone) break;
        if (seat.hasEnded) return;
      }
    }
  }

  /** Wakes everybody who waits in a guest's memory, and gives it back. */
  remove(seat: Seat, end: EndNote): void {
    if (seat.hasEnded) return;
    this.#seats.delete(seat.guest);
    for (const loop of seat.loops) this.#forget(loop);
    this.#forgetPidfd(seat);
    this.#busy.delete(seat);
    this.#placeForWork();
    if (this.#seats.size === 0) this.#options.follower.forget();
    seat.end(end);
  }

  close(): void {
    for (const seat of [...this.#seats.values()]) this.remove(seat, { reason: "closed" });
    for (const companion of [...this.#bells.values()]) this.removeCompanion(companion);
    this.#options.follower.close();
    this.#epoll.close();
  }

  get #hasWork(): boolean {
    if (this.#busy.size > 0 || this.#restless.size > 0) return true;
    for (const companion of this.#bells.values()) if (companion.fetcher.isBusy) return true;
    return false;
  }

  /** Nothing else could happen than a message of the only userfaultfd. */
  get #waitsInRead(): boolean {
    const { isSole, isNested } = this.#options;
    return isSole && !isNested && this.#places.size === 1 && this.#bells.size === 0;
  }

  #waitInRead(): void {
    const place = this.#only;
    if (place === undefined) return;
    this.#setBlocking(place, true);
    this.#pump(place, MESSAGES_MAX);
  }

  /** Of several the first. A message may add another one: who goes through them all would come to it, too. */
  get #only(): Place | undefined {
    const [place] = this.#places.values();
    return place;
  }

  /** Serves messages; what the system has against it ends the guest, and nobody else. */
  #pump(place: Place, messagesMax: number): number {
    const { seat, loop } = place;
    const before = seat.messages;
    try {
      let result = loop.pump(messagesMax);
      if (result === -ERRNO.EOPNOTSUPP) {
        loop.port.readPlainly();
        result = loop.pump(messagesMax);
      }
      const isUsual = result === 0 || result === -ERRNO.EAGAIN || result === -ERRNO.EINTR;
      if (!isUsual) throw failure(result, "read");
      return result;
    } catch (error) {
      this.remove(seat, { reason: "failed", error: noteOf(error) });
      return -ERRNO.EAGAIN;
    } finally {
      const messages = seat.messages - before;
      if (messages > 0) {
        this.#served += messages;
        if (!seat.hasEnded) this.#last = place;
      }
    }
  }

  /** Waits at most so long until there is something to serve, and serves it. */
  #serveReady(timeoutMs: number): void {
    const count = this.#await(timeoutMs);
    const turn = this.#places.size > 1 ? TURN_MESSAGES : MESSAGES_MAX;
    for (let index = 0; index < count; index++) {
      const fd = this.#ready[2 * index]!;
      const place = this.#places.get(fd);
      if (place !== undefined) {
        if ((this.#ready[2 * index + 1]! & POLL.ERR) !== 0) this.#insist(place);
        if (!place.seat.hasEnded) this.#pump(place, turn);
      } else if (this.#bells.has(fd)) {
        this.#bells.get(fd)?.silence();
      } else {
        this.#processEnded(this.#pidfds.get(fd));
      }
    }
    for (const companion of this.#bells.values()) companion.fetcher.collect();
  }

  /** Somebody else who has the descriptor has made its reads wait: nothing can be polled so. */
  #insist(place: Place): void {
    place.isBlocking = undefined;
    this.#setBlocking(place, false);
    place.insisted++;
    if (place.insisted < INSISTED_MAX) return;
    const message = "Somebody makes the reads of this userfaultfd wait, again and again";
    this.remove(place.seat, { reason: "failed", error: noteOf(new MinorfaultError("ERR_LIMIT", message)) });
  }

  #processEnded(seat: Seat | undefined): void {
    if (seat === undefined) return;
    this.#forgetPidfd(seat);
    // Should its memory outlive it (another process shares it), it is asked now and then from here on.
    seat.loops[0]?.checkGuest();
  }

  #await(timeoutMs: number): number {
    if (this.#blocking !== undefined) this.#setBlocking(this.#blocking, false);
    if (timeoutMs === 0) return this.#epoll.await(0, this.#ready);
    let waits = true;
    let dueMs = timeoutMs;
    for (const companion of this.#bells.values()) {
      if (!companion.beginSleep()) waits = false;
      dueMs = Math.min(dueMs, companion.fetcher.dueMs);
    }
    const milliseconds = !waits ? 0 : dueMs === Number.POSITIVE_INFINITY ? -1 : Math.ceil(dueMs);
    const count = this.#epoll.await(milliseconds, this.#ready);
    for (const companion of this.#bells.values()) companion.endSleep();
    return count;
  }

  /** How long it may wait. */
  get #restMs(): number {
    if (this.#options.isNested) return NESTED_MS;
    return this.#mustLook ? LOOK_MS : Number.POSITIVE_INFINITY;
  }

  /** Alone a guest is watched by its owner, and many by their pidfds. Nobody else knows of children. */
  get #mustLook(): boolean {
    return this.#places.size > (this.#options.isSole ? 1 : this.#pidfds.size);
  }

  /** Asks now and then whether guests live. */
  #look(): void {
    if (!this.#mustLook) return;
    const now = this.#options.now();
    if (now - this.#lookedMs < LOOK_MS) return;
    this.#lookedMs = now;
    for (const { loop, seat } of this.#places.values()) {
      if (loop !== seat.loops[0] || !this.#pidfds.has(seat.pidfd)) loop.checkGuest();
    }
  }

  /** Asks again and again while messages come; waits when none has come for a while. */
  #spin(shouldStop: () => boolean): void {
    const { now } = this.#options;
    let served = this.#served;
    let idleMs = now();
    while (now() - idleMs < SPIN_MS) {
      this.#serveAll();
      if (this.#served !== served) {
        served = this.#served;
        idleMs = now();
        this.#follow();
        if (this.#hasWork || this.#gone.size > 0) return;
      }
      if (shouldStop()) return;
    }
    this.#serveReady(this.#restMs);
  }

  /** What is there now: of one guest without asking first whether it has something. */
  #serveAll(): void {
    if (this.#places.size !== 1) {
      this.#serveReady(0);
      return;
    }
    const place = this.#only!;
    this.#setBlocking(place, false);
    this.#pump(place, MESSAGES_MAX);
    for (const companion of this.#bells.values()) companion.fetcher.collect();
  }

  /** One round of what can't wait: messages first, then what was put off, then a slice of the work. */
  #work(): void {
    const served = this.#served;
    this.#serveAll();
    for (const loop of this.#restless) {
      if (loop.resolver.isWaiting) loop.resolver.retry();
      if (!loop.resolver.isWaiting) this.#restless.delete(loop);
    }
    const state = this.#workRound();
    if (state === "more" || this.#served !== served) return;
    let isPutOff = state === "put-off" || this.#restless.size > 0;
    for (const { fetcher } of this.#bells.values()) {
      if (fetcher.isPutOff) isPutOff = true;
      else if (fetcher.isBusy) return;
    }
    // The one whose event we have read has to run before the system takes fills again.
    if (isPutOff) local.call("sched_yield");
    // What has been fetched is installed when it comes: until then there is nothing to do but faults.
    else if (this.#busy.size > 0) this.#serveReady(this.#restMs);
  }

  /** As much as may come before the next look at messages, everybody in turn. */
  #workRound(): "more" | "put-off" | "away" {
    const account = { bytes: 0 };
    let isPutOff = false;
    let hasMore = false;
    let goesOn = this.#busy.size > 0;
    while (goesOn) {
      goesOn = false;
      for (const seat of [...this.#busy]) {
        const state = seat.work(account);
        this.#busy.delete(seat);
        if (seat.isBusy) this.#busy.add(seat);
        if (state === "put-off") isPutOff = true;
        if (state === "more") hasMore = goesOn = true;
        if (account.bytes >= ROUND_BYTES) {
          this.#placeForWork();
          return hasMore ? "more" : isPutOff ? "put-off" : "away";
        }
      }
    }
    this.#placeForWork();
    return hasMore ? "more" : isPutOff ? "put-off" : "away";
  }

  /** Installing everything runs beside the guest, not in its way; so does a working set that is there already. */
  #placeForWork(): void {
    const seat = this.#filled;
    const isWorking = seat !== undefined;
    const { follower, mode } = this.#options;
    if (isWorking !== this.#isWorking) follower.mode = isWorking ? "block" : mode;
    this.#isWorking = isWorking;
    if (seat !== undefined) this.#followSeat(seat);
  }

  /** Of the guests that are filled one. */
  get #filled(): Seat | undefined {
    for (const seat of this.#busy) if (seat.hasBulk) return seat;
    for (const { fetcher } of this.#bells.values()) {
      const client = fetcher.replays.repeatedTo;
      const place = client && this.#places.get(client.loop.port.fd);
      if (place !== undefined) return place.seat;
    }
    return undefined;
  }

  #follow(): void {
    const place = this.#last;
    if (place === undefined) return;
    this.#options.follower.follow(place.loop.lastThreadId || place.seat.order.tid);
  }

  /** Of a guest that may not have faulted yet, and whose messages may not name the thread that has. */
  #followSeat({ loops, order }: Seat): void {
    const { follower } = this.#options;
    const tid = loops[0]?.lastThreadId ?? 0;
    // Among the threads of this process is this one.
    if (tid !== 0 || order.guestPid === 0 || order.guestPid === process.pid)
      follower.follow(tid || order.tid);
    else follower.followProcess(order.guestPid);
  }

  /** Lets go of guests that have ended. */
  #retire(): void {
    if (this.#gone.size === 0) return;
    for (const loop of [...this.#gone]) {
      const seat = this.#places.get(loop.port.fd)?.seat;
      this.#gone.delete(loop);
      if (seat === undefined) continue;
      this.#forget(loop);
      seat.release(loop);
      if (seat.loops.length === 0) this.remove(seat, { reason: "guest-gone" });
    }
  }

  #forget(loop: FaultLoop): void {
    const { fd } = loop.port;
    if (this.#last?.loop === loop) this.#last = undefined;
    if (this.#blocking?.loop === loop) this.#blocking = undefined;
    this.#restless.delete(loop);
    this.#gone.delete(loop);
    this.#places.delete(fd);
    // Others may have duplicates: closing ours would not end it.
    this.#epoll.remove(fd);
  }

  #forgetPidfd({ pidfd }: Seat): void {
    if (this.#pidfds.delete(pidfd)) this.#epoll.remove(pidfd);
  }

  #setBlocking(place: Place, on: boolean): void {
    if (place.isBlocking === on) return;
    setNonBlocking(local, place.loop.port.fd, !on);
    place.isBlocking = on;
    if (on) this.#blocking = place;
    else if (this.#blocking === place) this.#blocking = undefined;
  }
}
