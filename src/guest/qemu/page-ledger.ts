// Which pages of a machine the destination has been sent, which are on their way here, and which nobody asked for yet.
//
//   pages   │ pc.ram ……………… │    │ pc.bios │   numbered through, in pages of 4096; blocks do not overlap, gaps are none's
//   sent      1 1 0 1 1 0 0 …
//   asked     0 0 1 0 0 0 0 …       wanted from whoever reads the image, and not here yet
//
// A host page (2 MiB in a block of huge pages) is sent wholly or not at all, so asking is done in host pages.

import { clearBits, hasBit, nextClear, nextSet, setBits, wordsFor } from "../../base/bitmap.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundDown, roundUp } from "../../base/range.ts";
import { type DiscardRange, PAGE_BYTES } from "./stream-format.ts";

/** LIMIT: pages that cannot be had, 64 MiB. */
const WITHHELD_PAGES_MAX = 16_384;

/** A block of the destination. */
export interface SourceBlock {
  readonly name: string;
  readonly byteLength: number;
  /** Of the destination's host: 4096, or that of the huge pages behind the block. */
  readonly pageSize: number;
  /** The number of its first page: in the flat space of an image, its region's offset / 4096. */
  readonly firstPage: number;
}

/** Pages that follow one another. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
}

export class PageLedger {
  readonly blocks: readonly SourceBlock[];
  /** Pages of all blocks. */
  readonly total: number;
  readonly #byName: ReadonlyMap<string, SourceBlock>;
  /** By first page, for the search. */
  readonly #ordered: readonly SourceBlock[];
  readonly #sent: Uint32Array;
  readonly #asked: Uint32Array;
  /** Those of the asked pages that nobody waits for. */
  readonly #pushed: Uint32Array;
  /** Those of the asked pages that a guest waits for. */
  readonly #waited: Uint32Array;
  /** Those of the asked pages that cannot be had for now. */
  readonly #withheld: Uint32Array;
  #sentCount = 0;
  #pushedCount = 0;
  #waitedCount = 0;
  #withheldCount = 0;
  /** No page before it needs to be pushed. */
  #cursor = 0;

  constructor(blocks: readonly SourceBlock[]) {
    this.blocks = blocks;
    this.#byName = new Map(blocks.map((block) => [block.name, block]));
    this.#ordered = [...blocks].sort((a, b) => a.firstPage - b.firstPage);
    this.total = blocks.reduce((sum, { byteLength }) => sum + byteLength / PAGE_BYTES, 0);
    this.#check();
    const last = this.#ordered.at(-1);
    const words = wordsFor(last === undefined ? 0 : last.firstPage + last.byteLength / PAGE_BYTES);
    this.#sent = new Uint32Array(words);
    this.#asked = new Uint32Array(words);
    this.#pushed = new Uint32Array(words);
    this.#waited = new Uint32Array(words);
    this.#withheld = new Uint32Array(words);
  }

  get sentCount(): number {
    return this.#sentCount;
  }

  get isAllSent(): boolean {
    return this.#sentCount === this.total;
  }

  /** Pages that were asked for to be pushed, and have not come. */
  get pushedCount(): number {
    return this.#pushedCount;
  }

  /** Pages that a guest waits for, and that have not come. */
  get waitedCount(): number {
    return this.#waitedCount;
  }

  /** Pages that cannot be had for now. */
  get withheldCount(): number {
    return this.#withheldCount;
  }

  /** So many that it is not some pages that cannot be had: no others need be tried. */
  get withholdsMost(): boolean {
    return this.#withheldCount >= WITHHELD_PAGES_MAX;
  }

  /** Nothing is left to be sent but what cannot be had. */
  get isAllElseSent(): boolean {
    return this.withholdsMost || this.#sentCount + this.#withheldCount === this.total;
  }

  named(name: string): SourceBlock | undefined {
    return this.#byName.get(name);
  }

  /** The block that holds a page. */
  blockOf(page: number): SourceBlock | undefined {
    let low = 0;
    let high = this.#ordered.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { firstPage, byteLength } = this.#ordered[middle]!;
      if (page < firstPage) high = middle;
      else if (page >= firstPage + byteLength / PAGE_BYTES) low = middle + 1;
      else return this.#ordered[middle];
    }
    return undefined;
  }

  isSent(page: number): boolean {
    return hasBit(this.#sent, page);
  }

  /** The first page from `page` on that has not been sent, or `until`. */
  nextUnsent(page: number, until: number): number {
    return nextClear(this.#sent, page, until);
  }

  nextSent(page: number, until: number): number {
    return nextSet(this.#sent, page, until);
  }

  /** Books pages as sent, none of which was. */
  send(first: number, until: number): void {
    setBits(this.#sent, first, until);
    this.#sentCount += until - first;
    this.arrived(first, until);
  }

  /** Books pages as no longer on their way, whatever has become of them. */
  arrived(first: number, until: number): void {
    clearBits(this.#asked, first, until);
    this.#pushedCount -= takeBits(this.#pushed, first, until);
    this.#waitedCount -= takeBits(this.#waited, first, until);
    this.#withheldCount -= takeBits(this.#withheld, first, until);
  }

  /** Books the host pages of these pages as such that cannot be had for now: nobody counts on them, or asks for them again. */
  withhold(first: number, until: number): void {
    const { firstPage, pageSize } = this.blockOf(first)!;
    const hostPages = pageSize / PAGE_BYTES;
    const end = firstPage + roundUp(until - firstPage, hostPages);
    let page = this.nextUnsent(firstPage + roundDown(first - firstPage, hostPages), end);
    while (page < end) {
      const next = this.nextSent(page, end);
      this.arrived(page, next);
      setBits(this.#asked, page, next);
      setBits(this.#withheld, page, next);
      this.#withheldCount += next - page;
      page = this.nextUnsent(next, end);
    }
  }

  /** Books a host page that a guest waits for. False: it has been sent, or somebody waits for it already. */
  await(first: number, until: number): boolean {
    const missing = this.nextUnsent(first, until);
    if (missing === until || hasBit(this.#waited, missing)) return false;
    this.arrived(first, until);
    setBits(this.#asked, first, until);
    setBits(this.#waited, first, until);
    this.#waitedCount += until - first;
    return true;
  }

  /** Takes the next pages that are to be pushed: at most `pagesMax`, whole host pages, within one `unit`. */
  push(pagesMax: number, unit: number): PageRun | undefined {
    for (const { firstPage, byteLength, pageSize } of this.#ordered) {
      const until = firstPage + byteLength / PAGE_BYTES;
      if (until <= this.#cursor) continue;
      const hostPages = pageSize / PAGE_BYTES;
      const first = this.#nextFree(Math.max(this.#cursor, firstPage), until);
      this.#cursor = first;
      if (first === until) continue;
      const from = firstPage + roundDown(first - firstPage, hostPages);
      const room = Math.max(hostPages, roundDown(pagesMax, hostPages));
      const edge = Math.min(until, from + room, roundUp(from + 1, Math.max(unit, hostPages)));
      const end = firstPage + roundUp(this.#freeUntil(first, edge) - firstPage, hostPages);
      setBits(this.#asked, from, end);
      setBits(this.#pushed, from, end);
      this.#pushedCount += end - from;
      this.#cursor = end;
      return { first: from, count: end - from };
    }
    return undefined;
  }

  /** Forgets what has been sent of a block, and takes over what the destination says that it has. */
  recover(block: SourceBlock, bitmap: Uint8Array): void {
    const { firstPage, byteLength, pageSize } = block;
    const pages = byteLength / PAGE_BYTES;
    const hostPages = pageSize / PAGE_BYTES;
    this.#sentCount -= takeBits(this.#sent, firstPage, firstPage + pages);
    for (let page = 0; page < pages; page += hostPages) {
      if (!isWhole(bitmap, page, page + hostPages)) continue;
      setBits(this.#sent, firstPage + page, firstPage + page + hostPages);
      this.#sentCount += hostPages;
    }
    this.#cursor = 0;
  }

  /** Whatever was on its way does not come any more. */
  forgetAsked(): void {
    this.#asked.fill(0);
    this.#pushed.fill(0);
    this.#waited.fill(0);
    this.#withheld.fill(0);
    this.#pushedCount = 0;
    this.#waitedCount = 0;
    this.#withheldCount = 0;
    this.#cursor = 0;
  }

  /** Ranges of a block that have not been sent: whole host pages, in its bytes. */
  unsent({ firstPage, byteLength }: SourceBlock): DiscardRange[] {
    const until = firstPage + byteLength / PAGE_BYTES;
    const ranges: DiscardRange[] = [];
    for (let page = this.nextUnsent(firstPage, until); page < until; ) {
      const end = this.nextSent(page, until);
      ranges.push({ start: (page - firstPage) * PAGE_BYTES, byteLength: (end - page) * PAGE_BYTES });
      page = this.nextUnsent(end, until);
    }
    return ranges;
  }

  /** The first page that is neither sent nor asked for. */
  #nextFree(first: number, until: number): number {
    let page = first;
    while (page < until) {
      const unsent = nextClear(this.#sent, page, until);
      page = nextClear(this.#asked, unsent, until);
      if (page === unsent) return page;
    }
    return until;
  }

  #freeUntil(first: number, until: number): number {
    return Math.min(nextSet(this.#sent, first, until), nextSet(this.#asked, first, until));
  }

  #check(): void {
    let end = 0;
    for (const { name, firstPage, byteLength, pageSize } of this.#ordered) {
      const isRight =
        Number.isSafeInteger(firstPage) &&
        firstPage >= end &&
        pageSize >= PAGE_BYTES &&
        Number.isInteger(Math.log2(pageSize)) &&
        byteLength > 0 &&
        byteLength % pageSize === 0;
      end = firstPage + byteLength / PAGE_BYTES;
      if (isRight) continue;
      throw new MinorfaultError(
        "ERR_BAD_ARGUMENT",
        `Block ${name} has ${byteLength} bytes in pages of ${pageSize} from page ${firstPage} on, which cannot be`,
      );
    }
    if (this.total > 0 && this.#byName.size === this.blocks.length) return;
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "A machine has blocks of RAM, each with a name of its own");
  }
}

/** Clears bits; answers how many were set. */
function takeBits(words: Uint32Array, first: number, until: number): number {
  let count = 0;
  for (let page = nextSet(words, first, until); page < until; ) {
    const end = nextClear(words, page, until);
    count += end - page;
    clearBits(words, page, end);
    page = nextSet(words, end, until);
  }
  return count;
}

function isWhole(bitmap: Uint8Array, first: number, until: number): boolean {
  for (let page = first; page < until; page++) {
    if (((bitmap[page >>> 3]! >>> (page & 7)) & 1) === 0) return false;
  }
  return true;
}

/** Bytes of the bitmap that the return path sends for a block. */
export function bitmapBytesOf(byteLength: number): number {
  return Math.ceil(byteLength / PAGE_BYTES / 64) * 8;
}
