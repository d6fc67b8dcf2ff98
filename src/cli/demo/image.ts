// The image: what a memory of this machine could hold. Files that are in memory right now (the running Node and its
// shared libraries), pages of zeros, and pages that occur more than once, as in every real memory.
//
//   ┌────────┬──────┬────┬──────────┬────────┬──────┬───────┬ ─ ─
//   │  files │ zero │ re-│  files   │  zero  │ re-  │ files │      runs of random length, drawn by the seed
//   └────────┴──────┴peat┴──────────┴────────┴peat──┴───────┴ ─ ─
//
// It is written page by page to wherever the caller keeps it; what stays here is the SHA-256 of every page, which
// every restored memory is held to.

import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { assert } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";

export const HASH_BYTES = 32;
/** Pages that are read, written and hashed in one piece. */
export const CHUNK_PAGES = 256;
/** LIMIT: the part of an image that is filled from files, so that zero and repeated pages always occur. */
const FILES_SHARE = 0.6;
const ZERO_SHARE_OF_REST = 2 / 3;
/** Runs have 1 to so many pages. */
const RUN_PAGES_MAX = 512;
/** Pages of files that later runs may repeat. */
const MEMORABLE_MAX = 64;
const ZERO_PAGE = Buffer.alloc(PAGE_SIZE);

export interface Image {
  readonly byteLength: number;
  readonly pageCount: number;
  /** The files whose bytes are in it. */
  readonly files: readonly string[];
  /** Pages that come from files, are zero by design, and repeat an earlier page. */
  readonly composition: { readonly files: number; readonly zero: number; readonly repeated: number };
  /** Pages with different content. */
  readonly distinctPages: number;
  /** SHA-256 of page n at n * 32. */
  readonly hashes: Buffer;
  /** One bit a page, lowest bit first: set where all its bytes are zero. */
  readonly zeroPages: Uint32Array;
  /** The first 32-bit word of each page: what a guest that touches it reads. */
  readonly firstWords: Uint32Array;
}

export interface BuildOptions {
  readonly byteLength: number;
  readonly seed: number;
  /** Takes the bytes from `offset` on; called in order. The array is used again afterwards. */
  readonly write: (offset: number, bytes: Uint8Array) => void;
  readonly onProgress?: (pagesDone: number, pageCount: number) => void;
  readonly signal?: AbortSignal;
}

export async function buildImage(options: BuildOptions): Promise<Image> {
  const { byteLength, write, onProgress, signal } = options;
  const pageCount = byteLength / PAGE_SIZE;
  const filler = new Filler(pageCount, new Random(options.seed));
  const hashes = Buffer.alloc(pageCount * HASH_BYTES);
  const zeroPages = new Uint32Array(Math.ceil(pageCount / 32));
  const firstWords = new Uint32Array(pageCount);
  const seen = new Set<string>();
  const zeroHash = hashPage(ZERO_PAGE);
  const chunk = Buffer.alloc(CHUNK_PAGES * PAGE_SIZE);
  try {
    for (let first = 0; first < pageCount; first += CHUNK_PAGES) {
      signal?.throwIfAborted();
      const count = Math.min(CHUNK_PAGES, pageCount - first);
      for (let index = 0; index < count; index++) {
        const page = first + index;
        const bytes = chunk.subarray(index * PAGE_SIZE, (index + 1) * PAGE_SIZE);
        filler.fill(bytes);
        const hash = hashPage(bytes);
        hash.copy(hashes, page * HASH_BYTES);
        seen.add(hash.toString("latin1"));
        if (hash.equals(zeroHash)) zeroPages[page >> 5]! |= 1 << (page & 31);
        firstWords[page] = bytes.readUInt32LE(0);
      }
      write(first * PAGE_SIZE, chunk.subarray(0, count * PAGE_SIZE));
      onProgress?.(first + count, pageCount);
      await nextTurn();
    }
  } finally {
    filler.close();
  }
  return {
    byteLength,
    pageCount,
    files: filler.files,
    composition: filler.composition,
    distinctPages: seen.size,
    hashes,
    zeroPages,
    firstWords,
  };
}

export function hashPage(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

type Content = "files" | "zero" | "repeated";

/** Pages of one kind that follow each other. */
interface Run {
  readonly content: Content;
  pages: number;
  /** What all of them hold; undefined: the next pages of the files. */
  readonly repeats: Buffer | undefined;
}

/** Gives the image's pages one after the other. */
class Filler {
  readonly files: readonly string[];
  readonly composition: Readonly<Record<Content, number>>;
  readonly #random: Random;
  readonly #left: Record<Content, number>;
  readonly #reader: FilesReader;
  /** Pages that came from files before: one of them is what a run of repeated pages repeats. */
  readonly #memorable: Buffer[] = [];
  #run: Run | undefined;

  constructor(pageCount: number, random: Random) {
    this.#random = random;
    this.#reader = new FilesReader(mappedFiles());
    const files = Math.min(this.#reader.pageCount, Math.floor(pageCount * FILES_SHARE));
    const zero = Math.floor((pageCount - files) * ZERO_SHARE_OF_REST);
    this.composition = { files, zero, repeated: pageCount - files - zero };
    this.#left = { ...this.composition };
    this.files = this.#reader.filesFor(files);
  }

  fill(target: Buffer): void {
    if (this.#run === undefined || this.#run.pages === 0) this.#run = this.#nextRun();
    const run = this.#run;
    run.pages--;
    this.#left[run.content]--;
    if (run.repeats !== undefined) {
      run.repeats.copy(target);
      return;
    }
    this.#reader.read(target);
    if (this.#memorable.length < MEMORABLE_MAX && this.#random.below(16) === 0) {
      this.#memorable.push(Buffer.from(target));
    }
  }

  close(): void {
    this.#reader.close();
  }

  #nextRun(): Run {
    const content = this.#nextContent();
    const pages = Math.min(this.#left[content], 1 + this.#random.below(RUN_PAGES_MAX));
    if (content === "files") return { content, pages, repeats: undefined };
    const source =
      content === "zero" ? undefined : this.#memorable[this.#random.below(this.#memorable.length)];
    return { content, pages, repeats: source ?? ZERO_PAGE };
  }

  /** Each content has the chance that its share of what is left gives it; the first run comes from files. */
  #nextContent(): Content {
    const { files, zero, repeated } = this.#left;
    if (this.#memorable.length === 0 && files > 0) return "files";
    const ticket = this.#random.below(files + zero + repeated);
    if (ticket < files) return "files";
    return ticket < files + zero ? "zero" : "repeated";
  }
}

/** Reads files one after the other in whole pages; the last page of each is filled up with zeros. */
class FilesReader {
  readonly #files: readonly { readonly path: string; readonly pages: number }[];
  #index = 0;
  #page = 0;
  #fd = -1;

  constructor(paths: readonly string[]) {
    this.#files = paths.map((path) => ({ path, pages: Math.ceil(statSync(path).size / PAGE_SIZE) }));
  }

  get pageCount(): number {
    return this.#files.reduce((sum, { pages }) => sum + pages, 0);
  }

  /** The files that the first so many pages come from. */
  filesFor(pageCount: number): string[] {
    let before = 0;
    return this.#files
      .filter(({ pages }) => {
        const isUsed = before < pageCount;
        before += pages;
        return isUsed;
      })
      .map(({ path }) => path);
  }

  read(target: Buffer): void {
    const file = this.#files[this.#index];
    assert(file !== undefined, "The files have no more pages");
    if (this.#fd < 0) this.#fd = openSync(file.path, "r");
    const count = readSync(this.#fd, target, 0, PAGE_SIZE, this.#page * PAGE_SIZE);
    target.fill(0, count);
    if (++this.#page < file.pages) return;
    this.close();
    this.#index++;
    this.#page = 0;
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** The running executable and the shared libraries that it has mapped; where that can't be told, the executable. */
function mappedFiles(): string[] {
  let maps = "";
  try {
    maps = readFileSync("/proc/self/maps", "utf8");
  } catch {
    // Not Linux.
  }
  // The path is the sixth field of a line, and everything to its end.
  const paths = maps.split("\n").map((line) => line.split(/\s+/).slice(5).join(" "));
  const libraries = paths.filter((path) => path.startsWith("/") && /\.(so|node)[.\d]*$/.test(path));
  return [...new Set([process.execPath, ...libraries])].filter(isReadable);
}

function isReadable(path: string): boolean {
  try {
    closeSync(openSync(path, "r"));
    return true;
  } catch {
    return false;
  }
}
