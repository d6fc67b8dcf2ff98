// The stage for restores: images in a folder, a raw file with the same bytes, and ways to get them into a guest that are to
// be compared. Cold means that the page cache has none of the files; only their own pages are dropped, nobody else's.

import { randomFillSync } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MAP, PAGE_SIZE, PROT } from "../src/abi/memory.ts";
import type { Scratch } from "../src/abi/system.ts";
import { sha256 } from "../src/image/hash.ts";
import { addWorkingSet, buildImage, openImage } from "../src/image/index.ts";
import { check, close, local, mmap, munmap, open } from "../src/linux/index.ts";
import { type Pager, type PagerSource, prepareThreads, startPager } from "../src/pager/index.ts";
import { FileSource, MemorySource, openStore, type PageSource } from "../src/source/index.ts";
import { Ioctls } from "../src/uffd/ioctls.ts";
import type { LoadMeter } from "./load.ts";
import type { Figures } from "./rounds.ts";
import { type Range, Stand } from "./stand.ts";

const MIB = 1024 * 1024;
const CHUNK = 64 * 1024;
/** What an eager restore from far away reads at once: more gains nothing. */
const FAR_CHUNK = MIB;
const FADV_DONTNEED = 4;
/** Chunks that an eager restore reads at once. */
const EAGER_READS = 16;

export type ImageName = "zstd" | "plain";

/** What another stage needs to be of the same files, and to touch the same pages. */
export interface StagePlan {
  readonly byteLength: number;
  readonly folder: string;
  readonly few: Uint32Array | number;
  readonly set: Uint32Array | number;
}

export class RestoreStage {
  readonly byteLength: number;
  readonly stand: Stand;
  /** 2 % of the pages, at random; and a working set. */
  readonly few: Touches;
  readonly set: Touches;
  readonly #folder: string;
  /** Whether the files are somebody else's. */
  readonly #isGuest: boolean;

  private constructor({ byteLength, folder, few, set }: StagePlan, meter: LoadMeter, isGuest: boolean) {
    this.byteLength = byteLength;
    this.stand = new Stand(MIB, meter);
    const pages = byteLength / PAGE_SIZE;
    this.few = touches(this.stand, pages, few);
    this.set = touches(this.stand, pages, set);
    this.#folder = folder;
    this.#isGuest = isGuest;
  }

  static async build(byteLength: number, setBytes: number, meter: LoadMeter): Promise<RestoreStage> {
    const folder = mkdtempSync(join(tmpdir(), "minorfault-restore-"));
    const few = Math.floor(byteLength / PAGE_SIZE / 50);
    const stage = new RestoreStage({ byteLength, folder, few, set: setBytes / PAGE_SIZE }, meter, false);
    await stage.#write();
    await prepareThreads(1);
    return stage;
  }

  /** One over the files of another one. */
  static async over(plan: StagePlan, meter: LoadMeter): Promise<RestoreStage> {
    const stage = new RestoreStage(plan, meter, true);
    await prepareThreads(1);
    return stage;
  }

  get plan(): StagePlan {
    const { byteLength, few, set } = this;
    return { byteLength, folder: this.#folder, few: few.pages, set: set.pages };
  }

  get rawPath(): string {
    return join(this.#folder, "raw");
  }

  urlOf(name: ImageName): string {
    return join(this.#folder, name);
  }

  /** Drops the page cache's copy of all files of the stage. */
  makeCold(): void {
    for (const path of this.#files()) dropFile(path);
  }

  #files(): string[] {
    const entries = readdirSync(this.#folder, { withFileTypes: true, recursive: true });
    return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  }

  /** Reads all of the files once. */
  makeWarm(): void {
    for (const path of this.#files()) readFileSync(path);
  }

  /** Whole content first, then the touches. */
  async eager(openReader: () => Promise<UnitSource>): Promise<Figures> {
    const range = this.stand.map(this.byteLength);
    const staging = local.share(EAGER_READS * FAR_CHUNK);
    const ioctls = new Ioctls(local, this.stand.process.descriptor(range.uffd.fd));
    try {
      const begin = performance.now();
      const source = await openReader();
      const next = { unit: 0 };
      const lanes = Array.from({ length: source.isLocal ? 1 : EAGER_READS }, (_, lane) =>
        this.#eagerLane(source, next, staging, lane, ioctls, range),
      );
      await Promise.all(lanes);
      const first = this.stand.walk(range.base, 1);
      const firstMs = performance.now() - begin;
      this.#touchAll(range, first.seconds);
      const totalMs = performance.now() - begin;
      await source.close();
      return { firstMs, totalMs };
    } finally {
      close(local, ioctls.fd);
      staging.close();
      this.stand.unmap(range);
    }
  }

  /** A pager, and the touches as it serves them; with `fills` it installs everything behind them. */
  async lazy(source: PagerSource, fills = false): Promise<Figures> {
    await prepareThreads(1);
    const range = this.stand.map(this.byteLength);
    const begin = performance.now();
    const pager = await this.#pager(range, { ...source, replay: false });
    try {
      const startMs = performance.now() - begin;
      const first = this.stand.walk(range.base + this.few.first * PAGE_SIZE, 1);
      const firstMs = performance.now() - begin;
      const filling = fills ? pager.installAll() : Promise.resolve();
      const fewMs = this.stand.walk(range.base, this.few.count, { list: this.few.list }).seconds * 1000;
      this.#touchAll(range, first.seconds);
      const totalMs = performance.now() - begin;
      await filling;
      return { startMs, firstMs, fewMs, totalMs, faults: pager.statistics().faults };
    } finally {
      await pager.close();
      this.stand.unmap(range);
    }
  }

  /** The pages of the working set, touched in its order; with the replay or page by page as they fault. */
  async workingSet(name: ImageName, replay: boolean): Promise<Figures> {
    await prepareThreads(1);
    const range = this.stand.map(this.byteLength);
    const begin = performance.now();
    const pager = await this.#pager(range, { url: this.urlOf(name), replay }, replay ? 16 : 1);
    try {
      const startMs = performance.now() - begin;
      this.stand.walk(range.base, this.set.count, { list: this.set.list });
      const ms = performance.now() - begin;
      return { startMs, ms, touchMs: ms - startMs, faults: pager.statistics().faults };
    } finally {
      await pager.close();
      this.stand.unmap(range);
    }
  }

  /** The working set's bytes as they are stored, read from the disk one after the other, and nothing else. */
  async disk(name: ImageName): Promise<Figures> {
    const image = await openImage(this.urlOf(name));
    const pack = image.manifest.workingSets[0]!.pack;
    await image.close();
    const file = FileSource.open(this.#files().find((path) => path.includes(pack))!);
    const room = new Uint8Array(MIB / 4);
    this.makeCold();
    const begin = performance.now();
    for (let at = 0; at < file.byteLength; at += room.byteLength)
      file.readSync(at, room.subarray(0, file.byteLength - at));
    const ms = performance.now() - begin;
    await file.close();
    return { ms };
  }

  /** The hashes of every second chunk that is not zeros: what each of two threads has to make of all of them, and nothing else. */
  async halfOfHashes(): Promise<Figures> {
    const file = FileSource.open(this.rawPath);
    const chunk = new Uint8Array(CHUNK);
    let ms = 0;
    for (let at = 0; at < file.byteLength; at += 2 * CHUNK) {
      file.readSync(at, chunk);
      if (chunk.every((byte) => byte === 0)) continue;
      const begin = performance.now();
      sha256(chunk);
      ms += performance.now() - begin;
    }
    await file.close();
    return { ms };
  }

  /** The same pages of the raw file, mapped by the kernel. */
  mmap(): Figures {
    const { process } = this.stand;
    const begin = performance.now();
    const fd = open(process, this.rawPath);
    const base = mmap(process, this.byteLength, { flags: MAP.PRIVATE, protection: PROT.READ, fd });
    this.stand.walk(base, this.set.count, { list: this.set.list });
    const ms = performance.now() - begin;
    munmap(process, base, this.byteLength);
    close(process, fd);
    return { ms, touchMs: ms };
  }

  close(): void {
    this.stand.close();
    if (!this.#isGuest) rmSync(this.#folder, { recursive: true });
  }

  #touchAll(range: Range, _firstSeconds: number): void {
    this.stand.walk(range.base, this.few.count, { list: this.few.list });
    this.stand.walk(range.base, range.byteLength / PAGE_SIZE);
  }

  async #eagerLane(
    source: UnitSource,
    next: { unit: number },
    staging: Scratch,
    lane: number,
    ioctls: Ioctls,
    range: Range,
  ): Promise<void> {
    const { unitBytes } = source;
    const target = staging.bytes.subarray(lane * unitBytes, (lane + 1) * unitBytes);
    for (let unit = next.unit++; unit * unitBytes < range.byteLength; unit = next.unit++) {
      const waits = source.read(unit, target);
      if (waits !== undefined) await waits;
      const from = staging.address + lane * unitBytes;
      const { errno } = ioctls.copy(range.base + unit * unitBytes, from, unitBytes, 0);
      if (errno !== 0) throw new Error(`COPY answered ${errno}`);
    }
  }

  async #pager(range: Range, source: PagerSource, faultAroundPages = 16): Promise<Pager> {
    const { process, thread } = this.stand;
    const descriptor = process.descriptor(range.uffd.fd);
    try {
      return await startPager({
        descriptor,
        regions: [{ start: range.base, byteLength: range.byteLength, imageOffset: 0 }],
        source,
        plan: { faultAroundPages },
        guest: { pid: process.pid, tid: thread.tid },
        onError: (error) => console.error("pager:", error.message, error.cause ?? ""),
      });
    } finally {
      close(local, descriptor);
    }
  }

  async #write(): Promise<void> {
    const bytes = contentOf(this.byteLength);
    const fd = openSync(this.rawPath, "w");
    for (let at = 0; at < bytes.byteLength; at += 64 * MIB)
      writeSync(fd, bytes, at, Math.min(64 * MIB, bytes.byteLength - at));
    closeSync(fd);
    const store = await openStore(this.#folder);
    const offsets = Array.from(this.set.pages, (page) => page * PAGE_SIZE);
    for (const name of ["zstd", "plain"] as const) {
      const regions = [{ name: "ram", source: new MemorySource(bytes) }];
      await buildImage(store, name, { regions, codec: name === "zstd" ? "zstd" : "none", dedup: "image" });
      await addWorkingSet(store, name, "recorded", offsets);
    }
    await store.close();
  }
}

/** A list of pages, here and where the guest can read it. */
interface Touches {
  readonly pages: Uint32Array;
  readonly list: Scratch & { close(): void };
  readonly count: number;
  readonly first: number;
}

/** These pages, or so many at random. */
function touches(stand: Stand, pages: number, which: Uint32Array | number): Touches {
  const list = stand.shuffled(pages);
  stand.walkOver(list);
  const count = typeof which === "number" ? which : which.length;
  const chosen = new Uint32Array(list.bytes.buffer, list.bytes.byteOffset, count);
  if (typeof which !== "number") chosen.set(which);
  return { list, count, pages: chosen, first: chosen[0] ?? 0 };
}

/** What is read at once; undefined: it was done at once. */
export interface UnitSource {
  readonly isLocal: boolean;
  readonly unitBytes: number;
  read(unit: number, target: Uint8Array): Promise<void> | undefined;
  close(): Promise<void>;
}

export async function imageUnits(url: string): Promise<UnitSource> {
  const image = await openImage(url);
  return {
    isLocal: true,
    unitBytes: CHUNK,
    read: (unit, target) => (image.readChunkSync(unit, target) ? undefined : image.readChunk(unit, target)),
    close: () => image.close(),
  };
}

export function sourceUnits(source: PageSource): UnitSource {
  return {
    isLocal: false,
    unitBytes: FAR_CHUNK,
    read: (unit, target) => source.read(unit * FAR_CHUNK, target),
    close: () => source.close(),
  };
}

/** Half of it random, half of it text that repeats: about what a guest's memory is to zstd. No two chunks are equal. */
function contentOf(byteLength: number): Uint8Array {
  const pool = randomFillSync(new Uint8Array(8 * MIB));
  const bytes = new Uint8Array(byteLength);
  const text = new TextEncoder().encode(
    "a page of a guest's memory, of which much looks like what came before it; ",
  );
  for (let at = 0; at < byteLength; at += 4096) {
    const page = at / 4096;
    const from = (page * 2654435761) % (pool.byteLength - 2048);
    bytes.set(pool.subarray(from, from + 2048), at);
    for (let fill = 2048; fill < 4096; fill += text.byteLength) {
      bytes.set(text.subarray(0, Math.min(text.byteLength, 4096 - fill)), at + fill);
    }
    bytes[at + 2048] = page;
    bytes[at + 2049] = page >> 8;
    bytes[at + 2050] = page >> 16;
  }
  return bytes;
}

function dropFile(path: string): void {
  const fd = openSync(path, "r");
  try {
    // Pages that are not on the disk yet can't be dropped.
    fsyncSync(fd);
    check(local.call("fadvise64", fd, 0, 0, FADV_DONTNEED), "fadvise64");
  } finally {
    closeSync(fd);
  }
}
