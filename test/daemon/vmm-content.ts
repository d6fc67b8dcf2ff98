// What the pages of a guest may hold, at any moment: what the image says, what the guest has written since, or zeros once
// it has given a page away. While pages are given away as they are touched, several things are right; afterwards one is.
//
//   image ──store──▶ image, written         each page: the set of what it may hold now
//     │                  │                  each look: the set of what its pages may have held since it began
//     └───discard──▶ zero ──store──▶ zero, written

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { hashWords } from "./vmm-hasher.ts";

/** LIMIT: wrong pages that are told one by one. */
const TOLD_MAX = 5;

/** A raw file with the bytes that memory should hold; read page by page, what was read is remembered as a hash. */
export class ImageContent {
  readonly byteLength: number;
  readonly #fd: number;
  readonly #page = new Uint32Array(PAGE_SIZE / 4);
  readonly #firstWords = new Map<number, number>();
  readonly #hashes = new Map<number, number>();
  #at = -1;

  constructor(path: string) {
    this.#fd = openSync(path, "r");
    this.byteLength = fstatSync(this.#fd).size;
  }

  firstWord(offset: number): number {
    const known = this.#firstWords.get(offset);
    if (known !== undefined) return known;
    const word = this.#load(offset)[0]!;
    this.#firstWords.set(offset, word);
    return word;
  }

  hash(offset: number): number {
    const known = this.#hashes.get(offset);
    if (known !== undefined) return known;
    const hash = hashWords(this.#load(offset));
    this.#hashes.set(offset, hash);
    return hash;
  }

  /** Of the page, had it another first word. */
  hashWith(offset: number, firstWord: number): number {
    const page = this.#load(offset).slice();
    page[0] = firstWord;
    return hashWords(page);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #load(offset: number): Uint32Array {
    if (this.#at === offset) return this.#page;
    this.#page.fill(0);
    const bytes = new Uint8Array(this.#page.buffer);
    for (let done = 0; done < bytes.byteLength; ) {
      const count = readSync(this.#fd, bytes, done, bytes.byteLength - done, offset + done);
      if (count === 0) break;
      done += count;
    }
    this.#at = offset;
    return this.#page;
  }
}

const MAY = { IMAGE: 1, ZERO: 2, IMAGE_WRITTEN: 4, ZERO_WRITTEN: 8 } as const;
const UNWRITTEN = MAY.IMAGE | MAY.ZERO;
const WRITTEN = MAY.IMAGE_WRITTEN | MAY.ZERO_WRITTEN;
/** What pages may hold after a store, by what they might before. */
const afterStore = (may: number): number => ((may & UNWRITTEN) << 2) | (may & WRITTEN);

/** For a store or a discard that is under way: whether it met the other one. */
const UNDER_WAY = 1;
const MET = 2;

export interface PageBookOptions {
  readonly pageCount: number;
  readonly content: ImageContent;
  /** Where a page's content is in the image. */
  offsetOf(page: number): number;
  /** The first word of a page after a store, by what it was before. */
  stored(page: number, word: number): number;
}

/** Pages that somebody looks at, and what each may have held since the look began. */
export interface Look {
  readonly pages: Uint32Array;
  readonly may: Uint8Array;
}

const ZEROS = new Uint32Array(PAGE_SIZE / 4);

export class PageBook {
  readonly #options: PageBookOptions;
  readonly #may: Uint8Array;
  readonly #storing: Uint8Array;
  readonly #discarding: Uint8Array;
  readonly #looks = new Set<Look>();

  constructor(options: PageBookOptions) {
    this.#options = options;
    this.#may = new Uint8Array(options.pageCount).fill(MAY.IMAGE);
    this.#storing = new Uint8Array(options.pageCount);
    this.#discarding = new Uint8Array(options.pageCount);
  }

  beginLook(pages: Uint32Array): Look {
    const look = { pages, may: this.#may.slice() };
    this.#looks.add(look);
    return look;
  }

  /** What was wrong with the first words that were read, in words; empty when nothing was. */
  endLookAtWords(look: Look, words: Uint32Array): string[] {
    return this.#endLook(look, words, (page, may) => this.#wordOf(page, may));
  }

  /** The same with hashes of whole pages. */
  endLookAtHashes(look: Look, hashes: Uint32Array): string[] {
    return this.#endLook(look, hashes, (page, may) => this.#hashOf(page, may));
  }

  beginStore(pages: Uint32Array): void {
    for (const page of pages) {
      this.#storing[page] = this.#discarding[page] === 0 ? UNDER_WAY : MET;
      if (this.#discarding[page] !== 0) this.#discarding[page] = MET;
      this.#mayAlso(page, afterStore(this.#may[page]!));
    }
  }

  endStore(pages: Uint32Array): void {
    for (const page of pages) {
      if (this.#storing[page] === UNDER_WAY) this.#may[page]! &= WRITTEN;
      this.#storing[page] = 0;
    }
  }

  beginDiscard(from: number, until: number): void {
    for (let page = from; page < until; page++) {
      const isStored = this.#storing[page] !== 0;
      this.#discarding[page] = isStored ? MET : UNDER_WAY;
      if (isStored) this.#storing[page] = MET;
      this.#mayAlso(page, isStored ? MAY.ZERO | MAY.ZERO_WRITTEN : MAY.ZERO);
    }
  }

  endDiscard(from: number, until: number): void {
    for (let page = from; page < until; page++) {
      this.#may[page] = this.#discarding[page] === MET ? MAY.ZERO | MAY.ZERO_WRITTEN : MAY.ZERO;
      this.#discarding[page] = 0;
      this.#mayAlso(page, 0);
    }
  }

  #mayAlso(page: number, also: number): void {
    this.#may[page]! |= also;
    for (const look of this.#looks) look.may[page]! |= this.#may[page]!;
  }

  #endLook(
    look: Look,
    seen: Uint32Array,
    expected: (page: number, may: number) => number | undefined,
  ): string[] {
    this.#looks.delete(look);
    const wrong: string[] = [];
    let count = 0;
    for (const [index, page] of look.pages.entries()) {
      const may = look.may[page]!;
      const right = Object.values(MAY).filter((one) => (may & one) !== 0);
      if (right.some((one) => expected(page, one) === seen[index])) continue;
      if (++count <= TOLD_MAX) wrong.push(this.#told(page, seen[index]!, right, expected));
    }
    if (count > TOLD_MAX) wrong.push(`... ${count} of ${look.pages.length} pages are wrong`);
    return wrong;
  }

  #told(
    page: number,
    seen: number,
    right: readonly number[],
    expected: (page: number, may: number) => number | undefined,
  ): string {
    const names = Object.entries(MAY).filter(([, one]) => right.includes(one));
    const list = names.map(([name, one]) => `${expected(page, one)?.toString(16)} (${name.toLowerCase()})`);
    return `page ${page} has ${seen.toString(16)}, not ${list.join(" or ")}`;
  }

  #wordOf(page: number, may: number): number {
    const { content, offsetOf, stored } = this.#options;
    const base = (may & (MAY.IMAGE | MAY.IMAGE_WRITTEN)) === 0 ? 0 : content.firstWord(offsetOf(page));
    return (may & WRITTEN) === 0 ? base : stored(page, base);
  }

  #hashOf(page: number, may: number): number {
    const { content, offsetOf } = this.#options;
    if (may === MAY.IMAGE) return content.hash(offsetOf(page));
    if (may === MAY.IMAGE_WRITTEN) return content.hashWith(offsetOf(page), this.#wordOf(page, may));
    const zeros = ZEROS.slice();
    zeros[0] = this.#wordOf(page, may);
    return hashWords(zeros);
  }
}
