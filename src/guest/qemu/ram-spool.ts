// RAM on its way from a running machine into an image: pages come in whatever order and again, chunks are asked for in
// the order of memory. A page that is waited for goes straight where it is wanted; others lie in a file until they are. What
// comes for a chunk after that was given is noted, so that it is put together once more at the end, from the image and the file.
//
//   stream ──▶ chunks that are waited for
//      └─────▶ unit of 1 MiB, in memory ──▶ temporary file, unlinked, as large as RAM and as sparse
//
// bits a page:   seen: has come at least once    filled: the file, or who waits, has content for it (else zeros)
//                taken: has been given           revised: has come after that

import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { clearBits, hasBit, nextClear, nextSet, setBits, wordsFor } from "../../base/bitmap.ts";
import { assert, MinorfaultError } from "../../base/errors.ts";
import { type Range, roundUp } from "../../base/range.ts";
import { fileCall } from "../../source/file-failure.ts";
import { checkRead, type PageSource } from "../../source/page-source.ts";
import { HUGE_PAGE_BYTES, PAGE_BYTES, type RamBlock } from "./stream-format.ts";

const UNIT_PAGES = 256;
const UNIT_BYTES = UNIT_PAGES * PAGE_BYTES;

/** Chunks that somebody waits for; what has come of them lies in the target already. */
interface Wanted {
  readonly first: number;
  readonly until: number;
  readonly target: Uint8Array;
  /** A byte for each `unitPages` of the target: where it is nothing but zeros that is said, and nothing written. */
  readonly zeros: Uint8Array;
  readonly unitPages: number;
  /** Pages that have not come yet. */
  missing: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface SpoolOptions {
  /** Where the temporary file lies; default the system's folder for such. It may grow as large as RAM. */
  readonly folder?: string | undefined;
}

/** Reads what was given of a block before, from wherever it has gone. */
export type ReadGiven = (block: number, offset: number, target: Uint8Array) => Promise<void>;

export class RamSpool {
  /** One for each block. */
  readonly sources: readonly PageSource[];
  readonly #bases: readonly number[];
  readonly #pages: number;
  readonly #fd: number;
  readonly #seen: Uint32Array;
  readonly #filled: Uint32Array;
  readonly #taken: Uint32Array;
  readonly #revised: Uint32Array;
  readonly #unit = new Uint8Array(UNIT_BYTES);
  /** Pages of the unit that are not in the file yet. */
  readonly #unitFresh = new Uint32Array(wordsFor(UNIT_PAGES));
  #unitFirst = 0;
  readonly #wanted = new Set<Wanted>();
  /** The one that a page was last for. */
  #recent: Wanted | undefined;
  /** Pages that have been asked for, of those that there are. */
  #askedPages = 0;
  readonly #askablePages: number;
  #onAsked: (() => void) | undefined;
  #readGiven: ReadGiven | undefined;
  #isWhole = false;
  #failure: { readonly error: unknown } | undefined;
  #isClosed = false;

  constructor(blocks: readonly RamBlock[], { folder = tmpdir() }: SpoolOptions = {}) {
    const bases: number[] = [];
    let end = 0;
    for (const { byteLength } of blocks) {
      bases.push(end / PAGE_BYTES);
      end = roundUp(end + byteLength, HUGE_PAGE_BYTES);
    }
    this.#bases = bases;
    this.#pages = end / PAGE_BYTES;
    const words = wordsFor(this.#pages);
    this.#seen = new Uint32Array(words);
    this.#filled = new Uint32Array(words);
    this.#taken = new Uint32Array(words);
    this.#revised = new Uint32Array(words);
    this.#askablePages = blocks.reduce((sum, { byteLength }) => sum + byteLength / PAGE_BYTES, 0);
    this.#fd = openTemporary(folder);
    this.sources = blocks.map((block, index) => this.#source(block, index));
  }

  /** Content of a page, which is copied. */
  page(block: number, page: number, bytes: Uint8Array): void {
    const index = this.#bases[block]! + page;
    const wanted = this.#wantedFor(index);
    if (wanted !== undefined) wanted.target.set(bytes, (index - wanted.first) * PAGE_BYTES);
    else {
      const place = this.#turnTo(index);
      this.#unit.set(bytes, place * PAGE_BYTES);
      setBits(this.#unitFresh, place, place + 1);
    }
    setBits(this.#filled, index, index + 1);
    this.#came(index, wanted);
  }

  zero(block: number, page: number): void {
    const index = this.#bases[block]! + page;
    const wanted = this.#wantedFor(index);
    if (hasBit(this.#filled, index)) {
      clearBits(this.#filled, index, index + 1);
      if (wanted === undefined) {
        const place = this.#turnTo(index);
        clearBits(this.#unitFresh, place, place + 1);
      }
    }
    this.#came(index, wanted);
  }

  /**
   * Where up to so many pages from one on are waited for, none of which has come: they may be put there, and are of no
   * account until that is told (`landed`).
   */
  room(block: number, page: number, pagesMax: number): Uint8Array | undefined {
    const index = this.#bases[block]! + page;
    const wanted = this.#wantedFor(index);
    if (wanted === undefined) return undefined;
    const until = nextSet(this.#seen, index, Math.min(wanted.until, index + pagesMax));
    if (until === index) return undefined;
    return wanted.target.subarray((index - wanted.first) * PAGE_BYTES, (until - wanted.first) * PAGE_BYTES);
  }

  /** The content of pages lies in the room that was given for them. */
  landed(block: number, page: number, pages: number): void {
    const end = this.#bases[block]! + page + pages;
    for (let index = end - pages; index < end; ) {
      const wanted = this.#wantedFor(index);
      assert(wanted !== undefined, "Pages have come where nobody waits for them");
      const until = Math.min(end, wanted.until);
      setBits(this.#filled, index, until);
      setBits(this.#seen, index, until);
      wanted.missing -= until - index;
      if (wanted.missing === 0) this.#give(wanted);
      index = until;
    }
  }

  /** Resolves when somebody waits for pages, or has been promised all of them: until then they would go through the file. */
  async asked(): Promise<void> {
    while (this.#wanted.size === 0 && this.#askedPages < this.#askablePages && this.#failure === undefined) {
      await new Promise<void>((resolve) => {
        this.#onAsked = resolve;
      });
    }
  }

  /** All RAM has come: pages that have not are zeros. */
  finish(): void {
    this.#isWhole = true;
    for (const wanted of [...this.#wanted]) this.#give(wanted);
  }

  /** Everything has been given once: what is asked for now is put together from that and what came later. */
  giveAgain(readGiven: ReadGiven): void {
    this.#readGiven = readGiven;
  }

  /** Nothing more will come. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    for (const wanted of this.#wanted) wanted.reject(error);
    this.#wanted.clear();
    this.#recent = undefined;
    this.#onAsked?.();
  }

  /** Ranges of a block that came again after they had been given. */
  revised(block: number): Range[] {
    const base = this.#bases[block]!;
    const until = base + this.sources[block]!.byteLength / PAGE_BYTES;
    const ranges: Range[] = [];
    for (let page = nextSet(this.#revised, base, until); page < until; ) {
      const end = nextClear(this.#revised, page, until);
      ranges.push({ start: (page - base) * PAGE_BYTES, until: (end - base) * PAGE_BYTES });
      page = nextSet(this.#revised, end, until);
    }
    return ranges;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.fail(new MinorfaultError("ERR_CLOSED", "The spool of RAM has been closed"));
    closeSync(this.#fd);
  }

  #source({ name, byteLength }: RamBlock, block: number): PageSource {
    const source: PageSource = {
      name: `block ${name}`,
      byteLength,
      // Whoever aborts says so with `fail`: one signal for all that is waited for.
      read: async (offset, target, signal) => {
        const zeros = new Uint8Array(1);
        await source.readSparse!(offset, target, target.byteLength, zeros, signal);
        if (zeros[0] === 1) target.fill(0);
      },
      readSparse: async (offset, target, unitBytes, zeros, signal) => {
        checkRead(source, offset, target.byteLength);
        signal?.throwIfAborted();
        const first = this.#bases[block]! + offset / PAGE_BYTES;
        if (this.#readGiven === undefined) await this.#read(first, target, zeros, unitBytes / PAGE_BYTES);
        else await this.#readAgain(first, target, () => this.#readGiven!(block, offset, target));
      },
      close: async () => {},
    };
    return source;
  }

  #read(first: number, target: Uint8Array, zeros: Uint8Array, unitPages: number): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      if (this.#failure !== undefined) throw this.#failure.error;
      const until = first + target.byteLength / PAGE_BYTES;
      const missing = this.#countUnseen(first, until);
      if (missing < until - first) this.#copyFilled(first, until, target);
      const wanted: Wanted = { first, until, target, zeros, unitPages, missing, resolve, reject };
      this.#askedPages += until - first;
      if (this.#isWhole || missing === 0) this.#give(wanted);
      else this.#wanted.add(wanted);
      this.#onAsked?.();
    });
  }

  async #readAgain(first: number, target: Uint8Array, readGiven: () => Promise<void>): Promise<void> {
    const until = first + target.byteLength / PAGE_BYTES;
    await readGiven();
    if (this.#failure !== undefined) throw this.#failure.error;
    for (let page = nextSet(this.#revised, first, until); page < until; ) {
      const end = nextClear(this.#revised, page, until);
      const part = target.subarray((page - first) * PAGE_BYTES, (end - first) * PAGE_BYTES);
      this.#copyFilled(page, end, part);
      this.#clearOthers(page, end, part);
      page = nextSet(this.#revised, end, until);
    }
  }

  #countUnseen(first: number, until: number): number {
    let count = 0;
    for (
      let page = nextClear(this.#seen, first, until);
      page < until;
      page = nextClear(this.#seen, page, until)
    ) {
      const end = nextSet(this.#seen, page, until);
      count += end - page;
      page = end;
    }
    return count;
  }

  #wantedFor(page: number): Wanted | undefined {
    const recent = this.#recent;
    if (recent !== undefined && page >= recent.first && page < recent.until) return recent;
    for (const wanted of this.#wanted) {
      if (page < wanted.first || page >= wanted.until) continue;
      this.#recent = wanted;
      return wanted;
    }
    return undefined;
  }

  /** Books that a page has come, and gives those their chunks who waited for nothing else. */
  #came(page: number, wanted: Wanted | undefined): void {
    if (hasBit(this.#seen, page)) {
      if (hasBit(this.#taken, page)) setBits(this.#revised, page, page + 1);
      return;
    }
    setBits(this.#seen, page, page + 1);
    if (wanted !== undefined && --wanted.missing === 0) this.#give(wanted);
  }

  #give(wanted: Wanted): void {
    const { first, until, target, zeros, unitPages } = wanted;
    this.#wanted.delete(wanted);
    if (this.#recent === wanted) this.#recent = undefined;
    for (let page = first, unit = 0; page < until; page += unitPages, unit++) {
      const end = Math.min(until, page + unitPages);
      if (nextSet(this.#filled, page, end) === end) zeros[unit] = 1;
      else this.#clearOthers(page, end, target.subarray((page - first) * PAGE_BYTES));
    }
    setBits(this.#taken, first, until);
    clearBits(this.#filled, first, until);
    this.#forgetUnit(first, until);
    wanted.resolve();
  }

  /** Copies pages that the file or the unit has. */
  #copyFilled(first: number, until: number, target: Uint8Array): void {
    for (let page = nextSet(this.#filled, first, until); page < until; ) {
      const end = nextClear(this.#filled, page, until);
      const part = target.subarray((page - first) * PAGE_BYTES, (end - first) * PAGE_BYTES);
      if (this.#isInUnit(page, end)) part.set(this.#unitBytes(page, end));
      else {
        this.#flush();
        readFully(this.#fd, part, page * PAGE_BYTES);
      }
      page = nextSet(this.#filled, end, until);
    }
  }

  /** All other pages are zeros. */
  #clearOthers(first: number, until: number, target: Uint8Array): void {
    for (let page = nextClear(this.#filled, first, until); page < until; ) {
      const end = nextSet(this.#filled, page, until);
      target.fill(0, (page - first) * PAGE_BYTES, (end - first) * PAGE_BYTES);
      page = nextClear(this.#filled, end, until);
    }
  }

  /** Whether pages are in memory, as they are when they have come in order. */
  #isInUnit(first: number, until: number): boolean {
    const start = first - this.#unitFirst;
    const end = until - this.#unitFirst;
    return start >= 0 && end <= UNIT_PAGES && nextClear(this.#unitFresh, start, end) === end;
  }

  #unitBytes(first: number, until: number): Uint8Array {
    const from = this.#unitFirst;
    return this.#unit.subarray((first - from) * PAGE_BYTES, (until - from) * PAGE_BYTES);
  }

  /** Makes the unit that holds a page the one in memory; answers the page's place in it. */
  #turnTo(page: number): number {
    const first = page - (page % UNIT_PAGES);
    if (first !== this.#unitFirst) {
      this.#flush();
      this.#unitFirst = first;
    }
    return page - first;
  }

  /** Pages that have been given need not go into the file. */
  #forgetUnit(first: number, until: number): void {
    const start = Math.max(0, first - this.#unitFirst);
    const end = Math.min(UNIT_PAGES, until - this.#unitFirst);
    if (start < end) clearBits(this.#unitFresh, start, end);
  }

  #flush(): void {
    for (let page = nextSet(this.#unitFresh, 0, UNIT_PAGES); page < UNIT_PAGES; ) {
      const end = nextClear(this.#unitFresh, page, UNIT_PAGES);
      const first = this.#unitFirst + page;
      writeFully(this.#fd, this.#unitBytes(first, this.#unitFirst + end), first * PAGE_BYTES);
      page = nextSet(this.#unitFresh, end, UNIT_PAGES);
    }
    this.#unitFresh.fill(0);
  }
}

const SPOOL = "the temporary file for RAM";

function writeFully(fd: number, bytes: Uint8Array, offset: number): void {
  for (let written = 0; written < bytes.byteLength; ) {
    const left = bytes.byteLength - written;
    written += fileCall("write", SPOOL, () => writeSync(fd, bytes, written, left, offset + written));
  }
}

function readFully(fd: number, target: Uint8Array, offset: number): void {
  for (let filled = 0; filled < target.byteLength; ) {
    const left = target.byteLength - filled;
    const count = fileCall("read", SPOOL, () => readSync(fd, target, filled, left, offset + filled));
    if (count === 0) throw new MinorfaultError("ERR_SOURCE_SHORT", `${SPOOL} ends before what was written`);
    filled += count;
  }
}

/** A file that only this descriptor reaches: a guest's memory is nobody else's business. */
function openTemporary(folder: string): number {
  const own = fileCall("create", SPOOL, () => mkdtempSync(join(folder, "minorfault-capture-")));
  try {
    return fileCall("create", SPOOL, () => openSync(join(own, "ram"), "wx+", 0o600));
  } finally {
    rmSync(own, { recursive: true });
  }
}
