// Blocks of remote content on disk, within a byte limit, shared by any number of processes without a lock.
//
//   folder/layout.json          how many sets, decided by who came first
//   folder/3f/<sha256 of key>   one block: header with lengths and hash, then its bytes
//
// The hash of a block's key picks its set, and each set keeps to its share of the limit by itself: before a block is
// added, the least recently used ones of that set are removed. So there is no index that could be wrong after a
// crash, and no total that processes would have to agree on; two that add to one set at the same moment exceed its
// share by one block until the next is added. Blocks appear by rename; a torn one (power cut) fails its hash and is
// removed. "Used" is the time of modification, renewed at most once a minute.
//
// Losing a block costs a request, so nothing here is synced, and failures to write are swallowed (and counted).

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { MinorfaultError } from "../base/errors.ts";
import { decodeBlock, encodeBlock } from "./cache-block.ts";
import { type CacheCounters, countCache } from "./cache-totals.ts";
import { removeUnfinished, UnfinishedFile } from "./durable-file.ts";
import { makeFolder } from "./folders.ts";

export interface DiskCacheOptions {
  /** LIMIT: bytes on disk, headers included. */
  readonly bytesMax: number;
}

/** LIMIT: the smallest cache: below, a set would hold less than a few blocks. */
export const CACHE_BYTES_MIN: number = 2 ** 20;
/** What one set should hold about: small enough to be listed for each block that is added. */
const SET_BYTES = 8 * 2 ** 20;
const SETS_MAX = 4096;
const RENEW_MS = 60_000;
/** What writers that died have left is removed after an hour. */
const UNFINISHED_MS = 3_600_000;

interface Entry {
  readonly path: string;
  readonly byteLength: number;
  readonly usedMs: number;
}

export class DiskCache {
  readonly counters: CacheCounters = { hits: 0, misses: 0, evictions: 0, damaged: 0, unwritten: 0 };
  readonly #folder: string;
  readonly #sets: number;
  readonly #setBytesMax: number;

  private constructor(folder: string, sets: number, bytesMax: number) {
    this.#folder = folder;
    this.#sets = sets;
    this.#setBytesMax = Math.floor(bytesMax / sets);
  }

  /** Opens or makes a cache. Processes that share a folder should give the same limit. */
  static open(folder: string, options: DiskCacheOptions): DiskCache {
    const { bytesMax } = options;
    if (!Number.isSafeInteger(bytesMax) || bytesMax < CACHE_BYTES_MIN) {
      throw new MinorfaultError(
        "ERR_BAD_ARGUMENT",
        `A cache holds at least ${CACHE_BYTES_MIN} bytes, not ${bytesMax}`,
      );
    }
    makeFolder(folder, 0o700);
    return new DiskCache(folder, agreeOnSets(folder, bytesMax), bytesMax);
  }

  /** A block by its key, or undefined. `byteLength` is what it must have. */
  get(key: string, byteLength: number): Uint8Array | undefined {
    const path = this.#place(hashOf(key)).path;
    let stored: Uint8Array;
    try {
      stored = readFileSync(path);
    } catch {
      this.#count("misses");
      return undefined;
    }
    const bytes = decodeBlock(stored, key, byteLength);
    if (bytes === undefined) {
      this.#count("damaged");
      this.#count("misses");
      rmSync(path, { force: true });
      return undefined;
    }
    this.#count("hits");
    renew(path);
    return bytes;
  }

  #count(what: keyof CacheCounters): void {
    this.counters[what]++;
    countCache(what);
  }

  put(key: string, bytes: Uint8Array): void {
    const { folder, path } = this.#place(hashOf(key));
    const block = encodeBlock(key, bytes);
    if (block.byteLength > this.#setBytesMax) return;
    try {
      mkdirSync(folder, { recursive: true });
      this.#makeRoom(folder, block.byteLength);
      const file = new UnfinishedFile(path);
      try {
        file.write(block);
        file.finish({ volatile: true });
      } finally {
        file.discard();
      }
    } catch {
      // A full or read-only disk makes the cache useless, not the source.
      this.#count("unwritten");
    }
  }

  #makeRoom(folder: string, byteLength: number): void {
    const entries = entriesOf(folder);
    let total = entries.reduce((sum, entry) => sum + entry.byteLength, byteLength);
    if (total <= this.#setBytesMax) return;
    removeUnfinished(folder, UNFINISHED_MS, Date.now());
    entries.sort((a, b) => a.usedMs - b.usedMs);
    for (const entry of entries) {
      if (total <= this.#setBytesMax) break;
      // Somebody else may have removed it: then it is gone as well.
      rmSync(entry.path, { force: true });
      total -= entry.byteLength;
      this.#count("evictions");
    }
  }

  #place(hash: string): { readonly folder: string; readonly path: string } {
    const set = Number.parseInt(hash.slice(0, 8), 16) % this.#sets;
    const folder = join(this.#folder, set.toString(16).padStart(3, "0"));
    return { folder, path: join(folder, hash) };
  }
}

/** The number of sets: what `layout.json` says, or what this limit wants, if nobody was here before. */
function agreeOnSets(folder: string, bytesMax: number): number {
  const path = join(folder, "layout.json");
  const wanted = Math.max(1, Math.min(SETS_MAX, Math.floor(bytesMax / SET_BYTES)));
  const file = new UnfinishedFile(path);
  try {
    file.write(Buffer.from(`${JSON.stringify({ version: 1, sets: wanted })}\n`));
    file.finish({ ifAbsent: true });
  } catch (error) {
    if (!(error instanceof MinorfaultError) || error.code !== "ERR_STORE_EXISTS") throw error;
  } finally {
    file.discard();
  }
  return parseLayout(readFileSync(path, "utf8"), path);
}

function parseLayout(text: string, path: string): number {
  const match = /^\{"version":1,"sets":(\d{1,4})\}\n$/.exec(text);
  const sets = Number(match?.[1]);
  if (!(sets >= 1 && sets <= SETS_MAX)) {
    throw new MinorfaultError("ERR_SOURCE_CORRUPT", `${path} is not the layout of a cache`, {
      hint: "Remove the cache's folder: everything in it can be fetched again",
    });
  }
  return sets;
}

function entriesOf(folder: string): Entry[] {
  const entries: Entry[] = [];
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined || name.startsWith(".")) continue;
    entries.push({ path, byteLength: stats.size, usedMs: stats.mtimeMs });
  }
  return entries;
}

function renew(path: string): void {
  const now = Date.now();
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined || now - stats.mtimeMs < RENEW_MS) return;
  try {
    utimesSync(path, now / 1000, now / 1000);
  } catch {
    // Evicted in between, or not ours to touch.
  }
}

function hashOf(key: string): string {
  return createHash("sha256").update(key).digest("hex");
}
