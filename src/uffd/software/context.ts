// A userfaultfd context: who waits in a fault, who waits for an event to be read, and who waits for messages.
//
//   fault ──▶ pending ──read──▶ reading ──fill, WAKE, close──▶ the thread runs again
//                └────────────fill, WAKE, close────────────────▲
//   event ──▶ events ──read──▶ its originator runs again
//
// Messages are chosen faults first, then events, each in order of arrival. A context belongs for ever to the
// address space that made it, and lives as long as one descriptor refers to it.

import { UFFD_FEATURE } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import { WaitQueue } from "./wait-queue.ts";

/** The features that change behaviour, as numbers: they are asked at every fault. */
export const FEATURE = {
  EVENT_FORK: Number(UFFD_FEATURE.EVENT_FORK),
  EVENT_REMAP: Number(UFFD_FEATURE.EVENT_REMAP),
  EVENT_REMOVE: Number(UFFD_FEATURE.EVENT_REMOVE),
  EVENT_UNMAP: Number(UFFD_FEATURE.EVENT_UNMAP),
  SIGBUS: Number(UFFD_FEATURE.SIGBUS),
  THREAD_ID: Number(UFFD_FEATURE.THREAD_ID),
  EXACT_ADDRESS: Number(UFFD_FEATURE.EXACT_ADDRESS),
  WP_UNPOPULATED: Number(UFFD_FEATURE.WP_UNPOPULATED),
  WP_ASYNC: Number(UFFD_FEATURE.WP_ASYNC),
} as const;

/** What a context needs of a thread. */
export interface Sleeper {
  readonly tid: number;
  /** Lets it go on; it looks again at what it waited for. */
  wake(): void;
  /** Somebody has read its fault's message. */
  messageRead(): void;
}

/** A thread's place in the lists of a context. Each thread has one, since it stands in one fault at most. */
export class FaultWaiter {
  readonly sleeper: Sleeper;
  list: WaiterList | undefined = undefined;
  previous: FaultWaiter | undefined = undefined;
  next: FaultWaiter | undefined = undefined;
  /** As in the message. */
  address = 0;
  flags = 0;
  ptid = 0;

  constructor(sleeper: Sleeper) {
    this.sleeper = sleeper;
  }
}

/** Waiters in order of arrival, linked through themselves: a fault allocates nothing. */
export class WaiterList {
  first: FaultWaiter | undefined = undefined;
  #last: FaultWaiter | undefined = undefined;
  size = 0;

  add(waiter: FaultWaiter): void {
    waiter.list = this;
    waiter.next = undefined;
    waiter.previous = this.#last;
    if (this.#last === undefined) this.first = waiter;
    else this.#last.next = waiter;
    this.#last = waiter;
    this.size++;
  }

  remove(waiter: FaultWaiter): void {
    if (waiter.previous === undefined) this.first = waiter.next;
    else waiter.previous.next = waiter.next;
    if (waiter.next === undefined) this.#last = waiter.previous;
    else waiter.next.previous = waiter.previous;
    waiter.list = undefined;
    waiter.previous = undefined;
    waiter.next = undefined;
    this.size--;
  }
}

/** An event whose originator waits until it is read. */
export class EventWaiter {
  readonly event: number;
  readonly sleeper: Sleeper;
  /** The three words of the message. For FORK, `child` instead. */
  readonly words: readonly [number, number, number];
  readonly child: Context | undefined;
  /** Read, or given up by the context's end: the originator may go on. */
  done = false;

  constructor(event: number, sleeper: Sleeper, words: readonly [number, number, number], child?: Context) {
    this.event = event;
    this.sleeper = sleeper;
    this.words = words;
    this.child = child;
  }
}

export class Context {
  readonly space: AddressSpace;
  readonly userModeOnly: boolean;
  /** O_NONBLOCK and O_CLOEXEC as it was opened: a child's context is opened alike. */
  openFlags = 0;
  features = 0;
  enabled = false;
  /** The last descriptor is gone. */
  released = false;
  /** Events under way: from before the layout changes until the originator runs again. */
  changing = 0;
  readonly pending = new WaiterList();
  readonly reading = new WaiterList();
  readonly events: EventWaiter[] = [];
  /** Readers and pollers. */
  readonly readers = new WaitQueue();

  constructor(space: AddressSpace, userModeOnly: boolean) {
    this.space = space;
    this.userModeOnly = userModeOnly;
  }

  has(feature: number): boolean {
    return (this.features & feature) !== 0;
  }

  /** Queues a thread's fault as unread. */
  enqueue(waiter: FaultWaiter, address: number, flags: number): void {
    waiter.address = address;
    waiter.flags = flags;
    waiter.ptid = this.has(FEATURE.THREAD_ID) ? waiter.sleeper.tid : 0;
    this.pending.add(waiter);
    this.readers.wakeAll();
  }

  /** Takes the oldest unread fault for a reader: its thread goes on sleeping. */
  takeFault(): FaultWaiter | undefined {
    const waiter = this.pending.first;
    if (waiter === undefined) return undefined;
    this.pending.remove(waiter);
    this.reading.add(waiter);
    waiter.sleeper.messageRead();
    return waiter;
  }

  addEvent(event: EventWaiter): void {
    this.events.push(event);
    this.readers.wakeAll();
  }

  /** Takes an event out of the queue and lets its originator go on. */
  completeEvent(event: EventWaiter): void {
    const index = this.events.indexOf(event);
    if (index >= 0) this.events.splice(index, 1);
    event.done = true;
    event.sleeper.wake();
  }

  /** Wakes the threads whose message address lies in [start, end). */
  wake(start: number, end: number): void {
    if (this.pending.first !== undefined) wakeIn(this.pending, start, end);
    if (this.reading.first !== undefined) wakeIn(this.reading, start, end);
  }

  get readable(): boolean {
    return this.pending.first !== undefined || this.events.length > 0;
  }
}

function wakeIn(list: WaiterList, start: number, end: number): void {
  let waiter = list.first;
  while (waiter !== undefined) {
    const next: FaultWaiter | undefined = waiter.next;
    if (waiter.address >= start && waiter.address < end) {
      list.remove(waiter);
      waiter.sleeper.wake();
    }
    waiter = next;
  }
}
