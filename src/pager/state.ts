// What has to outlive a pager so that another one can take its guest over: one file in memory, of which whoever may
// start a successor keeps a descriptor.
//
//   0        the port: read(2) of the userfaultfd puts its message here
//   4096     header: magic, active table, then the regions that this is the state of
//   tables   two lists of parts: where in the guest's memory which pages are
//   bits     of every page, whether it is zeros whatever the image says: the guest has discarded it
//
// A pager can be killed at any instruction. The kernel copies a message whole before a kill acts, so what was read
// and not acted upon stands in the port:
//
//   MESSAGE  0                nothing is open
//            a fault          whoever waits is woken, and faults again
//            an event         not booked, or only half: booking it (again) changes nothing more
//            SWITCH + slot    the new list of parts is complete in that table: it has to be made the active one
//
// So bits come first and the word that acknowledges comes last. Whoever has to be woken for an event is woken
// before it is acknowledged.

import { PAGE_SIZE } from "../abi/memory.ts";
import { decodeMessage } from "../abi/message.ts";
import type { Scratch } from "../abi/system.ts";
import { wordsFor } from "../base/bitmap.ts";
import { MinorfaultError } from "../base/errors.ts";
import { type Range, roundUp } from "../base/range.ts";
import { PORT_BYTES, WORD, wordsOf } from "./port.ts";
import { emptyPart, type Part, type Region, RegionMap, wholePart } from "./regions.ts";

/** LIMIT: parts that memory may be in: a guest that unmaps and moves more than this can't be taken over. */
export const STATE_PARTS_MAX = 511;

const MAGIC = 0x6d66_7031;
const HEADER_AT = PORT_BYTES;
/** Index of each 32-bit word of the header. */
const HEADER = { MAGIC: 0, ACTIVE: 1 } as const;
const REGIONS_AT = 64;
/** Numbers of 64 bits of a region in the header, and of a part in a table; a table begins with their count. */
const REGION_NUMBERS = 4;
const PART_NUMBERS = 4;
const TABLE_BYTES = 4 * PAGE_SIZE;
/** What ACTIVE says besides the number of the active table, from 1 on. */
const ACTIVE = { NONE: 0, LOST: 3 } as const;
/** In the place of a message's event. */
const SWITCH = 0x100;
interface Shape {
  readonly start: number;
  readonly byteLength: number;
  readonly imageOffset: number;
  readonly pageSize?: number;
}

/** Bytes of the file for `PagerOptions.stateDescriptor`. It takes memory only where there is something to note. */
export function pagerStateBytes(regions: readonly Pick<Shape, "byteLength" | "pageSize">[]): number {
  return bitsAt(regions, regions.length);
}

export class PagerState {
  /** The port's page. */
  readonly port: Scratch;
  readonly #memory: Scratch;
  readonly #shapes: readonly Shape[];
  readonly #header: Int32Array;
  readonly #portWords: Int32Array;

  /** Over the file's memory. Throws ERR_BAD_ARGUMENT when it holds something else than what is expected. */
  constructor(memory: Scratch, shapes: readonly Shape[], adopt: boolean) {
    this.#memory = memory;
    this.#shapes = shapes;
    const { buffer, byteOffset } = memory.bytes;
    this.#header = new Int32Array(buffer, byteOffset + HEADER_AT, 2);
    this.port = {
      address: memory.address,
      bytes: memory.bytes.subarray(0, PORT_BYTES),
      view: new DataView(buffer, byteOffset, PORT_BYTES),
    };
    this.#portWords = wordsOf(this.port);
    const isUsed = this.#header[HEADER.MAGIC] === MAGIC;
    if (isUsed && !adopt) {
      throw bad("The state is that of an earlier pager: adopt its guest, or begin with an empty file");
    }
    if (isUsed) this.#check();
    else this.#begin();
  }

  /** The bits of a region's pages that are zeros. */
  zeroBits(index: number): Uint32Array {
    const { buffer, byteOffset } = this.#memory.bytes;
    const { byteLength, pageSize = PAGE_SIZE } = this.#shapes[index]!;
    return new Uint32Array(buffer, byteOffset + bitsAt(this.#shapes, index), wordsFor(byteLength / pageSize));
  }

  /**
   * Where everything is now: as a predecessor has left it, and what it has read and not booked on top. `regions` are those of
   * the shapes, in their order; `wake` wakes whoever waits at some addresses.
   */
  adopt(regions: readonly Region[], wake: (range: Range) => void): RegionMap {
    const map = new RegionMap(this.#parts(regions));
    this.#settle(map, regions, wake);
    return map;
  }

  #parts(regions: readonly Region[]): readonly Part[] {
    const active = this.#header[HEADER.ACTIVE]!;
    if (active === ACTIVE.NONE)
      return this.#shapes.map(({ start }, index) => wholePart(start, regions[index]!));
    const table = this.#table(active);
    return Array.from({ length: table[0]! }, (_, index) => {
      const at = 1 + index * PART_NUMBERS;
      const [start, until, firstPage, whose] = [table[at]!, table[at + 1]!, table[at + 2]!, table[at + 3]!];
      if (whose >= 0) return { start, until, firstPage, region: regions[whose]! };
      return emptyPart(start, until, -whose);
    });
  }

  #settle(map: RegionMap, regions: readonly Region[], wake: (range: Range) => void): void {
    const message = decodeMessage(this.port.view, WORD.MESSAGE * 4);
    if (message?.event === "remove") {
      map.remove(message.start, message.end);
    } else if (message?.event === "unmap") {
      map.unmap(message.start, message.end);
      wake({ start: message.start, until: message.end });
      this.commit(map.parts, regions);
    } else if (message?.event === "remap") {
      const { from, to, len } = message;
      map.remap(from, to, len);
      wake({ start: from, until: from + len });
      wake({ start: to, until: to + len });
      this.commit(map.parts, regions);
    }
    this.acknowledge();
  }

  /** What the message in the port says has been booked. */
  acknowledge(): void {
    // Atomic, so that no compiler moves it before what was booked.
    Atomics.store(this.#portWords, WORD.MESSAGE, 0);
  }

  /** Notes where everything is now, and that the message in the port is booked. False: there are too many parts. */
  commit(parts: readonly Part[], regions: readonly Region[]): boolean {
    const isKept = parts.length <= STATE_PARTS_MAX && this.#header[HEADER.ACTIVE] !== ACTIVE.LOST;
    if (isKept) {
      const slot = this.#header[HEADER.ACTIVE] === 1 ? 2 : 1;
      this.#write(this.#table(slot), parts, regions);
      Atomics.store(this.#portWords, WORD.MESSAGE, SWITCH + slot);
      Atomics.store(this.#header, HEADER.ACTIVE, slot);
    } else {
      Atomics.store(this.#header, HEADER.ACTIVE, ACTIVE.LOST);
    }
    this.acknowledge();
    return isKept;
  }

  #write(table: Float64Array, parts: readonly Part[], regions: readonly Region[]): void {
    table[0] = parts.length;
    for (const [index, { start, until, firstPage, region }] of parts.entries()) {
      const known = regions.indexOf(region);
      const whose = known < 0 ? -region.pageSize : known;
      table.set([start, until, firstPage, whose], 1 + index * PART_NUMBERS);
    }
  }

  #begin(): void {
    const numbers = this.#regionNumbers();
    for (const [index, shape] of this.#shapes.entries())
      numbers.set(shapeNumbers(shape), index * REGION_NUMBERS);
    Atomics.store(this.#header, HEADER.MAGIC, MAGIC);
  }

  /** That it is the state of these regions, and whole. */
  #check(): void {
    const numbers = this.#regionNumbers();
    const expected = this.#shapes.flatMap(shapeNumbers);
    if (!expected.every((number, index) => numbers[index] === number)) {
      throw bad("The state is that of other regions");
    }
    // The predecessor was about to make a table the active one.
    const word = this.#portWords[WORD.MESSAGE]!;
    if (word >= SWITCH) {
      Atomics.store(this.#header, HEADER.ACTIVE, word - SWITCH);
      this.acknowledge();
    }
    if (this.#header[HEADER.ACTIVE] === ACTIVE.LOST) {
      throw new MinorfaultError(
        "ERR_LIMIT",
        `The guest's memory was in more than ${STATE_PARTS_MAX} parts: its pager's state does not hold them`,
      );
    }
  }

  #regionNumbers(): Float64Array {
    const { buffer, byteOffset } = this.#memory.bytes;
    const count = this.#shapes.length * REGION_NUMBERS;
    return new Float64Array(buffer, byteOffset + HEADER_AT + REGIONS_AT, count);
  }

  #table(slot: number): Float64Array {
    const { buffer, byteOffset } = this.#memory.bytes;
    const at = tablesAt(this.#shapes.length) + (slot - 1) * TABLE_BYTES;
    return new Float64Array(buffer, byteOffset + at, TABLE_BYTES / 8);
  }
}

function shapeNumbers({ start, byteLength, imageOffset, pageSize = PAGE_SIZE }: Shape): number[] {
  return [start, byteLength, imageOffset, pageSize];
}

function tablesAt(regionCount: number): number {
  return HEADER_AT + roundUp(REGIONS_AT + regionCount * REGION_NUMBERS * 8, PAGE_SIZE);
}

/** Where the bits of a region begin, or end those of the last one. */
function bitsAt(shapes: readonly Pick<Shape, "byteLength" | "pageSize">[], index: number): number {
  let at = tablesAt(shapes.length) + 2 * TABLE_BYTES;
  for (const { byteLength, pageSize = PAGE_SIZE } of shapes.slice(0, index)) {
    at += roundUp(wordsFor(byteLength / pageSize) * 4, 64);
  }
  return at;
}

function bad(message: string): MinorfaultError {
  return new MinorfaultError("ERR_BAD_ARGUMENT", message);
}
