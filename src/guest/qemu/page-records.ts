// Pages as records of RAM, ready to be sent: many in one buffer, each page after its own word.
//
//   word │ name │ 4096 bytes │ word │ 4096 bytes │ word │ 0 │ …
//          only where the block is another one than that of the record before

import type { SourceBlock } from "./page-ledger.ts";
import { PAGE_BYTES, RAM } from "./stream-format.ts";

/** Of a page that lies in the same block as the one before: its word and its bytes. */
export const RECORD_BYTES: number = 8 + PAGE_BYTES;

/** Gives a buffer of at least so many bytes; whoever sends it may take it back afterwards. */
export type Allocate = (byteLength: number) => Uint8Array;

export class PageRecords {
  readonly #allocate: Allocate;
  readonly #names = new Map<SourceBlock, Uint8Array>();
  #last: SourceBlock | undefined;

  constructor(allocate: Allocate) {
    this.#allocate = allocate;
  }

  /** The next record names its block: a new part begins. */
  restart(): void {
    this.#last = undefined;
  }

  /** Records of pages that follow one another, from page `first` on. */
  pages(block: SourceBlock, first: number, bytes: Uint8Array): Uint8Array {
    const name = this.#nameOf(block);
    const count = bytes.byteLength / PAGE_BYTES;
    const named = this.#last === block ? 0 : name.byteLength;
    const buffer = this.#allocate(named + count * RECORD_BYTES);
    let at = 0;
    for (let index = 0; index < count; index++) {
      at = this.#head(buffer, at, block, first + index, RAM.page, name);
      buffer.set(bytes.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES), at);
      at += PAGE_BYTES;
    }
    return buffer.subarray(0, at);
  }

  /** Records of pages that follow one another, which were made beforehand: see `writeRecord`. */
  ready(block: SourceBlock, first: number, records: Uint8Array): Uint8Array[] {
    if (this.#last === block) return [records];
    const name = this.#nameOf(block);
    const head = new Uint8Array(8 + name.byteLength);
    this.#head(head, 0, block, first, RAM.page, name);
    return [head, records.subarray(8)];
  }

  /** Records that say that pages are zeros. */
  zeros(block: SourceBlock, first: number, until: number): Uint8Array {
    const name = this.#nameOf(block);
    const named = this.#last === block ? 0 : name.byteLength;
    const buffer = this.#allocate(named + (until - first) * 9);
    let at = 0;
    for (let page = first; page < until; page++) {
      at = this.#head(buffer, at, block, page, RAM.zero, name);
      buffer[at++] = 0;
    }
    return buffer.subarray(0, at);
  }

  #head(
    buffer: Uint8Array,
    at: number,
    block: SourceBlock,
    page: number,
    flag: number,
    name: Uint8Array,
  ): number {
    const isSame = this.#last === block;
    writeHead(buffer, at, page - block.firstPage, flag + (isSame ? RAM.sameBlock : 0));
    if (isSame) return at + 8;
    this.#last = block;
    buffer.set(name, at + 8);
    return at + 8 + name.byteLength;
  }

  #nameOf(block: SourceBlock): Uint8Array {
    let name = this.#names.get(block);
    if (name === undefined) {
      const text = new TextEncoder().encode(block.name);
      name = new Uint8Array(1 + text.byteLength);
      name[0] = text.byteLength;
      name.set(text, 1);
      this.#names.set(block, name);
    }
    return name;
  }
}

/** Writes the record of a page, by its number in its block; the one before it is of the same block. */
export function writeRecord(buffer: Uint8Array, at: number, page: number, bytes: Uint8Array): void {
  writeHead(buffer, at, page, RAM.page + RAM.sameBlock);
  buffer.set(bytes, at + 8);
}

function writeHead(buffer: Uint8Array, at: number, page: number, flags: number): void {
  const address = page * PAGE_BYTES;
  writeWord(buffer, at, Math.floor(address / 2 ** 32));
  writeWord(buffer, at + 4, (address % 2 ** 32) + flags);
}

function writeWord(buffer: Uint8Array, at: number, value: number): void {
  buffer[at] = value >>> 24;
  buffer[at + 1] = value >>> 16;
  buffer[at + 2] = value >>> 8;
  buffer[at + 3] = value;
}
