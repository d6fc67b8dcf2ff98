// Reads of files that the system makes in threads of its own (io_uring), while the caller does something else.
//
//   begin ──▶ submissions ──▶ a thread of the kernel: read ──▶ completions ──▶ finish
//
// What the page cache has is read by whoever asks for it, unless he says otherwise (IOSQE_ASYNC): here he does, and
// several reads go on at once, on as many CPUs as there are.

import { MAP } from "../abi/memory.ts";
import { writeWord } from "../abi/structs.ts";
import { local } from "./local.ts";
import { mmap, munmap } from "./mappings.ts";
import { viewMemory } from "./view.ts";

/** struct io_uring_params: how many entries the queues have got, and where their fields are. */
const PARAMS = {
  SIZE: 120,
  SUBMISSIONS_MAX: 0,
  COMPLETIONS_MAX: 4,
  SUBMISSIONS: 40,
  COMPLETIONS: 80,
} as const;
/** struct io_sqring_offsets and io_cqring_offsets. */
const OFFSETS = { HEAD: 0, TAIL: 4, MASK: 8, COMPLETIONS: 20, INDEXES: 24 } as const;
/** What is mapped at these offsets of the ring's descriptor. */
const AREA = { SUBMISSIONS: 0, COMPLETIONS: 0x8000000, ENTRIES: 0x10000000 } as const;
/** struct io_uring_sqe. */
const ENTRY = {
  SIZE: 64,
  OPERATION: 0,
  FLAGS: 1,
  FD: 4,
  OFFSET: 8,
  ADDRESS: 16,
  LENGTH: 24,
  USER: 32,
} as const;
/** struct io_uring_cqe. */
const COMPLETION = { SIZE: 16, USER: 0, RESULT: 8 } as const;
const IORING_OP_READ = 22;
const IOSQE_ASYNC = 16;
const IORING_ENTER_GETEVENTS = 1;

/** A slot with nothing to finish; one whose read goes on. Results are bytes, or negative errnos. */
const FREE = Number.NaN;
const PENDING = Number.POSITIVE_INFINITY;

/** Reads so many things at a time as it has slots. */
export class ReadRing {
  readonly #fd: number;
  readonly #submissions: Queue;
  readonly #completions: Queue;
  readonly #entries: Area;
  readonly #results: number[];

  private constructor(fd: number, params: DataView, slots: number) {
    this.#fd = fd;
    this.#results = new Array<number>(slots).fill(FREE);
    const submissionsMax = params.getUint32(PARAMS.SUBMISSIONS_MAX, true);
    const completionsMax = params.getUint32(PARAMS.COMPLETIONS_MAX, true);
    const indexes = params.getUint32(PARAMS.SUBMISSIONS + OFFSETS.INDEXES, true);
    const completions = params.getUint32(PARAMS.COMPLETIONS + OFFSETS.COMPLETIONS, true);
    const areas = {
      submissions: new Area(fd, AREA.SUBMISSIONS, indexes + 4 * submissionsMax),
      completions: new Area(fd, AREA.COMPLETIONS, completions + COMPLETION.SIZE * completionsMax),
    };
    this.#submissions = new Queue(areas.submissions, params, PARAMS.SUBMISSIONS, indexes);
    this.#completions = new Queue(areas.completions, params, PARAMS.COMPLETIONS, completions);
    this.#entries = new Area(fd, AREA.ENTRIES, ENTRY.SIZE * submissionsMax);
  }

  /** Undefined where there is no io_uring for us: too old a system, or one that forbids it, as containers often do. */
  static open(slots: number): ReadRing | undefined {
    const { address, bytes } = local.scratch;
    bytes.fill(0, 0, PARAMS.SIZE);
    const fd = local.call("io_uring_setup", slots, address);
    if (fd < 0) return undefined;
    try {
      return new ReadRing(fd, new DataView(bytes.slice(0, PARAMS.SIZE).buffer), slots);
    } catch {
      local.call("close", fd);
      return undefined;
    }
  }

  /**
   * Begins to read bytes of a file into memory. What the slot has read before must be finished.
   *
   * SAFETY: the memory must stay mapped until this slot's `finish`, or `close`, has returned.
   */
  begin(slot: number, fd: number, address: number, byteLength: number, offset: number): void {
    const queue = this.#submissions;
    const { tail } = queue;
    const index = tail & queue.mask;
    const { view } = this.#entries;
    const at = index * ENTRY.SIZE;
    for (let word = 0; word < ENTRY.SIZE; word += 4) view.setUint32(at + word, 0);
    view.setUint8(at + ENTRY.OPERATION, IORING_OP_READ);
    view.setUint8(at + ENTRY.FLAGS, IOSQE_ASYNC);
    view.setInt32(at + ENTRY.FD, fd, true);
    writeWord(view, at + ENTRY.OFFSET, offset);
    writeWord(view, at + ENTRY.ADDRESS, address);
    view.setUint32(at + ENTRY.LENGTH, byteLength, true);
    writeWord(view, at + ENTRY.USER, slot);
    queue.area.view.setUint32(queue.first + 4 * index, index, true);
    queue.tail = tail + 1;
    this.#results[slot] = PENDING;
    const taken = local.call("io_uring_enter", this.#fd, 1, 0, 0, 0, 0);
    if (taken === 1) return;
    queue.tail = tail;
    this.#results[slot] = taken;
  }

  /** Whether a slot has a read to finish. */
  isBegun(slot: number): boolean {
    return !Number.isNaN(this.#results[slot]);
  }

  /** Waits until a slot has read: how many bytes, or a negative errno. */
  finish(slot: number): number {
    this.#collect();
    while (this.#results[slot] === PENDING) {
      // Nothing but a signal can be against this: the read has been taken.
      local.call("io_uring_enter", this.#fd, 0, 1, IORING_ENTER_GETEVENTS, 0, 0);
      this.#collect();
    }
    const result = this.#results[slot]!;
    this.#results[slot] = FREE;
    return result;
  }

  close(): void {
    for (let slot = 0; slot < this.#results.length; slot++) if (this.isBegun(slot)) this.finish(slot);
    for (const area of [this.#submissions.area, this.#completions.area, this.#entries]) area.close();
    local.call("close", this.#fd);
  }

  #collect(): void {
    const queue = this.#completions;
    const { tail, area } = queue;
    let { head } = queue;
    for (; head !== tail; head = (head + 1) | 0) {
      const at = queue.first + (head & queue.mask) * COMPLETION.SIZE;
      const slot = area.view.getUint32(at + COMPLETION.USER, true);
      this.#results[slot] = area.view.getInt32(at + COMPLETION.RESULT, true);
    }
    queue.head = head;
  }
}

/** Memory that a ring shares with the system. */
class Area {
  readonly view: DataView;
  readonly words: Int32Array;
  readonly #address: number;
  readonly #byteLength: number;

  constructor(fd: number, offset: number, byteLength: number) {
    this.#address = mmap(local, byteLength, { flags: MAP.SHARED | MAP.POPULATE, fd, offset });
    this.#byteLength = byteLength;
    const buffer = viewMemory(this.#address, byteLength);
    this.view = new DataView(buffer);
    this.words = new Int32Array(buffer, 0, byteLength >>> 2);
  }

  close(): void {
    munmap(local, this.#address, this.#byteLength);
  }
}

/** One of the two queues: what is between head and tail waits. They count on and on, modulo 2^32. */
class Queue {
  readonly area: Area;
  readonly mask: number;
  /** Where what is queued begins. */
  readonly first: number;
  readonly #headAt: number;
  readonly #tailAt: number;

  constructor(area: Area, params: DataView, offsets: number, first: number) {
    const field = (which: number): number => params.getUint32(offsets + which, true);
    this.area = area;
    this.first = first;
    this.mask = area.view.getUint32(field(OFFSETS.MASK), true);
    this.#headAt = field(OFFSETS.HEAD) >>> 2;
    this.#tailAt = field(OFFSETS.TAIL) >>> 2;
  }

  get head(): number {
    return Atomics.load(this.area.words, this.#headAt);
  }

  set head(value: number) {
    Atomics.store(this.area.words, this.#headAt, value);
  }

  get tail(): number {
    return Atomics.load(this.area.words, this.#tailAt);
  }

  set tail(value: number) {
    Atomics.store(this.area.words, this.#tailAt, value);
  }
}
