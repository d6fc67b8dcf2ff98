// Pages that come one after the other go from the socket straight to where they are waited for, and the heads of their
// records beside them, to be looked at afterwards. A guess that was wrong costs a copy: the bytes are put together in
// the order in which they came, and read as ever.
//
//   socket   rest of a record │ head │ page n │ head │ page n + 1 │ …
//                 ▼              ▼      ▼        ▼      ▼
//               `rest`        `heads`  room   `heads`  room          of chunks that somebody waits for (ram-spool.ts)

import { addressOfBuffer, mapMemory, type ReadPlaces } from "../../linux/index.ts";
import type { Landing } from "./incoming-stream.ts";
import { isPageHead, PAGE_HEAD_BYTES, PAGE_RECORD_BYTES } from "./ram-reader.ts";
import type { RamSpool } from "./ram-spool.ts";
import { PAGE_BYTES } from "./stream-format.ts";
import type { StreamReader } from "./stream-reader.ts";

/** Pages in order from which on more of them are expected, as many as have come at most. */
const RUN_MIN = 16;
/** LIMIT: pages of one read, more than a socket holds by default. Each has two places, of which a read may have 1024. */
const PAGES_MAX = 64;
/** Where the heads lie. */
const HEADS = PAGE_RECORD_BYTES;

export class PageLanding implements Landing {
  readonly #reader: StreamReader;
  readonly #read: () => void;
  readonly #spool: () => RamSpool | undefined;
  /** The rest of a record that had begun to come, and the heads of the others. */
  readonly #memory = mapMemory(HEADS + PAGES_MAX * PAGE_HEAD_BYTES);
  readonly #addresses = new WeakMap<SharedArrayBuffer, number>();
  readonly #joined = new Uint8Array(PAGES_MAX * PAGE_RECORD_BYTES);
  /** What was offered. */
  #rest = 0;
  #block = 0;
  #page = 0;
  #rooms: Uint8Array[] = [];
  /** Pages that have landed, and all bytes that came by this way. */
  pages = 0;
  byteLength = 0;

  /** `read`: reads all events that the reader has. */
  constructor(reader: StreamReader, read: () => void, spool: () => RamSpool | undefined) {
    this.#reader = reader;
    this.#read = read;
    this.#spool = spool;
  }

  offer(places: ReadPlaces): boolean {
    const { expected } = this.#reader;
    if (expected === undefined || expected.run < RUN_MIN) return false;
    const { block, page, run, missing } = expected;
    const rooms = this.#roomsFor(block, page, Math.min(run, PAGES_MAX));
    if (rooms.length === 0) return false;
    this.#rest = missing;
    this.#block = block;
    this.#page = page;
    this.#rooms = rooms;
    if (missing > 0) places.add(this.#memory.address, missing);
    let head = this.#memory.address + HEADS;
    for (const room of rooms) {
      const from = this.#addressOf(room);
      for (let at = 0; at < room.byteLength; at += PAGE_BYTES, head += PAGE_HEAD_BYTES) {
        places.add(head, PAGE_HEAD_BYTES);
        places.add(from + at, PAGE_BYTES);
      }
    }
    return true;
  }

  landed(byteLength: number): void {
    this.byteLength += byteLength;
    const rest = Math.min(byteLength, this.#rest);
    if (rest > 0) {
      this.#reader.push(this.#memory.bytes.subarray(0, rest));
      this.#read();
    }
    const left = byteLength - rest;
    const pages = this.#isAsExpected() ? this.#countPages(left) : 0;
    if (pages > 0) {
      this.#reader.passed(pages);
      this.#spool()?.landed(this.#block, this.#page, pages);
      this.pages += pages;
    }
    if (left > pages * PAGE_RECORD_BYTES) {
      this.#reader.push(this.#join(pages, left));
      this.#read();
    }
    this.#reader.keep();
  }

  close(): void {
    this.#memory.close();
  }

  /** Only memory that is shared with threads stays where it is. */
  #roomsFor(block: number, first: number, pagesMax: number): Uint8Array[] {
    const rooms: Uint8Array[] = [];
    const until = first + pagesMax;
    for (let page = first; page < until; ) {
      const room = this.#spool()?.room(block, page, until - page);
      if (room === undefined || !(room.buffer instanceof SharedArrayBuffer)) break;
      rooms.push(room);
      page += room.byteLength / PAGE_BYTES;
    }
    return rooms;
  }

  #addressOf({ buffer, byteOffset }: Uint8Array): number {
    const shared = buffer as unknown as SharedArrayBuffer;
    let address = this.#addresses.get(shared);
    if (address === undefined) {
      address = addressOfBuffer(shared);
      this.#addresses.set(shared, address);
    }
    return address + byteOffset;
  }

  /** Whether the record that had begun was a page's as well, and has ended. */
  #isAsExpected(): boolean {
    const { expected } = this.#reader;
    return expected?.block === this.#block && expected.page === this.#page && expected.missing === 0;
  }

  /** Records that are whole and those of the pages that were expected. */
  #countPages(byteLength: number): number {
    const { view } = this.#memory;
    const whole = Math.floor(byteLength / PAGE_RECORD_BYTES);
    for (let index = 0; index < whole; index++) {
      if (!isPageHead(view, HEADS + index * PAGE_HEAD_BYTES, this.#page + index)) return index;
    }
    return whole;
  }

  /** What has come behind so many records, in one piece. */
  #join(pages: number, byteLength: number): Uint8Array {
    const joined = this.#joined;
    const end = byteLength - pages * PAGE_RECORD_BYTES;
    let record = 0;
    for (const room of this.#rooms) {
      for (let at = 0; at < room.byteLength; at += PAGE_BYTES, record++) {
        if (record < pages) continue;
        const to = (record - pages) * PAGE_RECORD_BYTES;
        if (to >= end) return joined.subarray(0, end);
        const head = HEADS + record * PAGE_HEAD_BYTES;
        joined.set(this.#memory.bytes.subarray(head, head + PAGE_HEAD_BYTES), to);
        joined.set(room.subarray(at, at + PAGE_BYTES), to + PAGE_HEAD_BYTES);
      }
    }
    return joined.subarray(0, end);
  }
}
