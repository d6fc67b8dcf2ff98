// The body of a part of section "ram": records that each begin with a word of an offset in a block and of flags.
//
//   sizes   total │ name, length [, page size │, header of mapped-ram] │ …       once, in the section's beginning
//   page    offset [, name unless it is the block of the last record] │ 4096 bytes
//   zero    offset [, name …] │ 00
//   end

import type { Parsing, Scanner } from "./scanner.ts";
import type { SectionHead } from "./stream-event.ts";
import {
  BLOCKS_MAX,
  MAPPED_VERSION,
  type MappedBlock,
  PAGE_BYTES,
  RAM,
  RAM_BYTES_MAX,
  RAM_REFUSED,
  type RamBlock,
} from "./stream-format.ts";

const FLAGS = PAGE_BYTES - 1;
const SAME_PAGE = RAM.page | RAM.sameBlock;
const SAME_ZERO = RAM.zero | RAM.sameBlock;
export const PAGE_HEAD_BYTES = 8;
export const PAGE_RECORD_BYTES: number = PAGE_HEAD_BYTES + PAGE_BYTES;
const ZERO_RECORD_BYTES = 9;

/** Takes pages, most of which come one after the other, without an event for each. */
export interface PageSink {
  /** `bytes` are valid until it returns. */
  page(block: number, page: number, bytes: Uint8Array): void;
  zero(block: number, page: number): void;
}

/** What comes next, if it goes on as it did. */
export interface ExpectedPages {
  readonly block: number;
  readonly page: number;
  /** Pages that have come in order before it. */
  readonly run: number;
  /** Bytes that the record lacks which has begun to come: `page` is that of the next one. */
  readonly missing: number;
}

/** Whether a page's record begins at an offset, of the same block as the record before it. */
export function isPageHead(bytes: DataView, at: number, page: number): boolean {
  const address = page * PAGE_BYTES;
  const high = Math.floor(address / 2 ** 32);
  return bytes.getUint32(at) === high && bytes.getUint32(at + 4) === address - high * 2 ** 32 + SAME_PAGE;
}

export class RamReader {
  readonly #scanner: Scanner;
  readonly #withPayload: boolean;
  readonly #sink: PageSink | undefined;
  #blocks: readonly RamBlock[] = [];
  readonly #byName = new Map<string, number>();
  /** The block of the last record. */
  #last = -1;
  /** The page of the last record, and how many in order that was the last of; 0: it was none with content. */
  #page = -1;
  #run = 0;
  /** What is waited for. */
  #awaited: "head" | "page" | undefined;

  constructor(scanner: Scanner, withPayload: boolean, sink?: PageSink) {
    this.#scanner = scanner;
    this.#withPayload = withPayload;
    this.#sink = sink;
  }

  /** Takes a list of blocks that an earlier stream had. */
  know(blocks: readonly RamBlock[]): void {
    this.#blocks = blocks;
    for (const [index, { name }] of blocks.entries()) this.#byName.set(name, index);
  }

  /** What may come next, while that is waited for. */
  get expected(): ExpectedPages | undefined {
    if (this.#awaited === undefined || this.#run === 0) return undefined;
    const { available } = this.#scanner.feed;
    const [block, page, run] = [this.#last, this.#page, this.#run];
    if (this.#awaited === "page") return { block, page: page + 1, run, missing: PAGE_BYTES - available };
    if (available === 0) return { block, page: page + 1, run, missing: 0 };
    return { block, page: page + 2, run, missing: PAGE_RECORD_BYTES - available };
  }

  /** Pages have come elsewhere, of those that were expected: their records are passed over. */
  passed(pages: number): void {
    this.#scanner.feed.skipped(pages * PAGE_RECORD_BYTES);
    this.#page += pages;
    this.#run += pages;
  }

  *body({ form }: SectionHead): Parsing {
    const { feed } = this.#scanner;
    for (;;) {
      if (this.#sink !== undefined) this.#pass(this.#sink);
      if (feed.available < 8) {
        this.#awaited = "head";
        yield 8;
        this.#awaited = undefined;
      }
      const { offset } = feed;
      const high = feed.u32();
      const low = feed.u32();
      const flags = low & FLAGS;
      const address = high * 2 ** 32 + (low - flags);
      switch (flags & ~RAM.sameBlock) {
        case RAM.page:
          yield* this.#content(offset, address, flags);
          break;
        case RAM.zero:
          yield* this.#zero(offset, address, flags);
          break;
        case RAM.end:
          if (address === 0 && flags === RAM.end) return;
          throw this.#refusal("the record that ends a part has an offset", offset);
        case RAM.sizes:
          if (form !== "start" || this.#blocks.length > 0 || flags !== RAM.sizes) {
            throw this.#refusal("the list of blocks comes a second time", offset);
          }
          yield* this.#sizes(offset, address);
          break;
        case RAM.multifdFlush:
          // A file with mapped-ram has its pages in their places, whichever channel wrote them.
          if (this.#blocks.some(({ mapped }) => mapped !== undefined)) break;
          throw this.#unknown(flags, offset);
        default:
          throw this.#unknown(flags, offset);
      }
    }
  }

  /** Passes on records that are whole, of the last block, and right; leaves what else comes to those who look closely. */
  #pass(sink: PageSink): void {
    const { feed } = this.#scanner;
    const block = this.#last;
    if (block === -1) return;
    const { byteLength } = this.#blocks[block]!;
    while (feed.available >= ZERO_RECORD_BYTES) {
      const low = feed.peekU32(4);
      const flags = low & FLAGS;
      const address = feed.peekU32(0) * 2 ** 32 + (low - flags);
      if (address + PAGE_BYTES > byteLength) return;
      if (flags === SAME_PAGE && feed.available >= PAGE_RECORD_BYTES) {
        feed.drop(PAGE_HEAD_BYTES);
        this.#came(address / PAGE_BYTES);
        sink.page(block, address / PAGE_BYTES, feed.take(PAGE_BYTES));
      } else if (flags === SAME_ZERO && feed.peekU8(8) === 0) {
        feed.drop(ZERO_RECORD_BYTES);
        this.#run = 0;
        sink.zero(block, address / PAGE_BYTES);
      } else return;
    }
  }

  #came(page: number): void {
    this.#run = page === this.#page + 1 && this.#run > 0 ? this.#run + 1 : 1;
    this.#page = page;
  }

  *#content(offset: number, address: number, flags: number): Parsing {
    const { feed } = this.#scanner;
    const block = (flags & RAM.sameBlock) === 0 ? yield* this.#block(offset) : this.#lastBlock(offset);
    const page = this.#pageOf(block, address, offset);
    const at = feed.offset;
    if (this.#withPayload) {
      this.#came(page);
      if (feed.available < PAGE_BYTES) {
        this.#awaited = "page";
        yield PAGE_BYTES;
        this.#awaited = undefined;
      }
      yield { kind: "page", offset, block, page, at, bytes: feed.take(PAGE_BYTES) };
    } else {
      yield* this.#scanner.skipTo(at + PAGE_BYTES);
      yield { kind: "page", offset, block, page, at, bytes: undefined };
    }
  }

  *#zero(offset: number, address: number, flags: number): Parsing {
    const { feed } = this.#scanner;
    const block = (flags & RAM.sameBlock) === 0 ? yield* this.#block(offset) : this.#lastBlock(offset);
    const page = this.#pageOf(block, address, offset);
    if (feed.available < 1) yield 1;
    const fill = feed.u8();
    this.#run = 0;
    if (fill !== 0) throw this.#refusal(`a page is filled with the byte ${fill}, not with zeros`, offset);
    yield { kind: "zero", offset, block, page };
  }

  *#block(offset: number): Parsing<number> {
    const name = yield* this.#scanner.name();
    const block = this.#byName.get(name);
    if (block === undefined) {
      throw this.#refusal(
        `a page belongs to ${JSON.stringify(name)}, which the list of blocks does not have`,
        offset,
      );
    }
    this.#last = block;
    this.#run = 0;
    return block;
  }

  #lastBlock(offset: number): number {
    if (this.#last !== -1) return this.#last;
    throw this.#refusal("the first page of all names no block", offset);
  }

  #pageOf(block: number, address: number, offset: number): number {
    const { name, byteLength } = this.#blocks[block]!;
    if (address + PAGE_BYTES <= byteLength) return address / PAGE_BYTES;
    throw this.#refusal(
      `a page at ${address} is not within the ${byteLength} bytes of block ${name}`,
      offset,
    );
  }

  *#sizes(offset: number, total: number): Parsing {
    const { feed } = this.#scanner;
    if (total > RAM_BYTES_MAX) throw this.#refusal(`RAM of ${total} bytes is more than is possible`, offset);
    const blocks: RamBlock[] = [];
    for (let left = total; left > 0; ) {
      const at = feed.offset;
      const name = yield* this.#scanner.name();
      yield* this.#scanner.need(8);
      const byteLength = feed.u64();
      if (name === "" || this.#byName.has(name) || blocks.length === BLOCKS_MAX) {
        throw this.#refusal(`the list of blocks is wrong at ${JSON.stringify(name)}`, at);
      }
      if (byteLength === 0 || byteLength > left || byteLength % PAGE_BYTES !== 0) {
        throw this.#refusal(
          `block ${name} has ${byteLength} bytes of the ${left} that are left of all RAM`,
          at,
        );
      }
      left -= byteLength;
      this.#byName.set(name, blocks.length);
      blocks.push({ name, byteLength, ...(yield* this.#more(blocks.length, byteLength, left === 0)) });
    }
    this.#blocks = blocks;
    yield { kind: "blocks", offset, blocks };
  }

  /**
   * What stands behind a block's length with some capabilities, which the stream does not name. It begins with a zero
   * byte as no name does; behind the last block it could be a record, but for the flags, which every record has.
   */
  *#more(block: number, byteLength: number, isLast: boolean): Parsing<Partial<RamBlock>> {
    const { feed } = this.#scanner;
    yield* this.#scanner.need(1);
    if (!isLast && feed.peek() !== 0) return {};
    yield* this.#scanner.need(8);
    const { offset } = feed;
    const high = feed.peekU32(0);
    const low = feed.peekU32(4);
    if (high === MAPPED_VERSION && low === 0) return { mapped: yield* this.#mapped(block, byteLength) };
    if (high === 0 && low > PAGE_BYTES && (low & (low - 1)) === 0) {
      feed.drop(8);
      if (byteLength % low === 0) return { pageSize: low };
      throw this.#refusal(`a block of ${byteLength} bytes has pages of ${low}`, offset);
    }
    if (isLast) return {};
    throw this.#refusal("something unknown stands behind a block's length", offset);
  }

  *#mapped(block: number, byteLength: number): Parsing<MappedBlock> {
    const { feed } = this.#scanner;
    yield* this.#scanner.need(28);
    const { offset } = feed;
    feed.drop(4);
    const pageSize = feed.u64();
    const bitmapOffset = feed.u64();
    const pagesOffset = feed.u64();
    if (pageSize !== PAGE_BYTES) throw this.#refusal(`mapped-ram has pages of ${pageSize} bytes`, offset);
    if (bitmapOffset === 0 && pagesOffset === 0) return { bitmapOffset, pagesOffset };
    const bitmapBytes = Math.ceil(byteLength / PAGE_BYTES / 64) * 8;
    const isRight =
      bitmapOffset >= feed.offset &&
      bitmapOffset + bitmapBytes <= pagesOffset &&
      Number.isSafeInteger(pagesOffset + byteLength);
    if (!isRight) {
      throw this.#refusal(`mapped-ram has a bitmap at ${bitmapOffset} and pages at ${pagesOffset}`, offset);
    }
    yield* this.#scanner.skipTo(bitmapOffset);
    yield* this.#scanner.need(bitmapBytes);
    yield { kind: "mapped", offset: bitmapOffset, block, bitmap: feed.take(bitmapBytes).slice() };
    yield* this.#scanner.skipTo(pagesOffset + byteLength);
    return { bitmapOffset, pagesOffset };
  }

  #unknown(flags: number, offset: number) {
    const known = RAM_REFUSED.find(({ flag }) => (flags & flag) !== 0);
    const reason =
      known === undefined
        ? `a record has the unknown flags 0x${flags.toString(16)}`
        : `a record was made with the capability ${known.capability}, which is not supported`;
    return this.#scanner.refusal("ERR_STREAM_FEATURE", reason, offset);
  }

  #refusal(reason: string, offset: number) {
    return this.#scanner.refusal("ERR_BAD_MESSAGE", reason, offset);
  }
}
