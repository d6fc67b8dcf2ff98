// Lazy memories of Node beside what the kernel offers for the same: writing to a cached file's pages, a WebAssembly memory
// touched in order, and finding and storing what was written. `npm run bench -- memory`.

import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MAP, PROT } from "../src/abi/memory.ts";
import { buildImage, openRawFile } from "../src/image/index.ts";
import { type AttachMemoryOptions, attachMemory, type LazyMemory, open } from "../src/index.ts";
import { close, local, mmap, munmap, open as openFile, viewMemory } from "../src/linux/index.ts";
import { openStore } from "../src/source/index.ts";
import { openUserfaultfd, scanWritten } from "../src/uffd/index.ts";
import { guestMemory } from "./image-content.ts";
import { LoadMeter } from "./load.ts";
import { atLeast, atMost, type Group, measured } from "./report.ts";
import { alternate, type Contestant, type Figures, median, ratioOf } from "./rounds.ts";
import { warmHugePages } from "./stand.ts";

const PAGE = 4096;
const MIB = 2 ** 20;
/** Pages brought with a missing one where a walk is expected. */
const WINDOW = 512;

export interface GuestsOptions {
  readonly rounds: number;
  readonly quick?: boolean;
  readonly meter?: LoadMeter;
}

/** All groups, in order. */
export async function guests(options: GuestsOptions): Promise<Group[]> {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-bench-"));
  try {
    const path = join(folder, "file");
    const byteLength = (options.quick ? 32 : 256) * MIB;
    writePages(path, byteLength);
    warmHugePages(2 * byteLength);
    return [await writing(options, path), await webAssembly(options, path), await dirty(options, folder)];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A file whose pages differ, in the page cache. */
function writePages(path: string, byteLength: number): void {
  const fd = openSync(path, "w");
  const piece = Buffer.alloc(MIB);
  for (let at = 0; at < byteLength; at += MIB) {
    for (let page = 0; page < MIB; page += PAGE) piece.fill(((at + page) / PAGE) % 251, page, page + PAGE);
    writeSync(fd, piece);
  }
  closeSync(fd);
}

/** What is stored of it is about what is stored of a guest: see bench/image-content.ts. */
function writeGuestMemory(path: string, byteLength: number): void {
  const fd = openSync(path, "w");
  for (let at = 0; at < byteLength; at += 64 * MIB)
    writeSync(fd, guestMemory(Math.min(64 * MIB, byteLength - at), at));
  closeSync(fd);
}

/** Microseconds a page of touching every page in order. */
function walk(buffer: ArrayBufferLike, touch: (bytes: Uint8Array, at: number) => void): Figures {
  const bytes = new Uint8Array(buffer);
  const begin = performance.now();
  for (let at = 0; at < bytes.length; at += PAGE) touch(bytes, at);
  return { us: ((performance.now() - begin) * 1000) / (bytes.length / PAGE) };
}

const write = (bytes: Uint8Array, at: number): void => {
  bytes[at] = 1;
};
/** Where what was read goes, so that it is read. */
const sink = new Uint32Array(1);
const read = (bytes: Uint8Array, at: number): void => {
  sink[0]! += bytes[at]!;
};

async function using(memory: LazyMemory, use: (memory: LazyMemory) => Figures): Promise<Figures> {
  try {
    return use(memory);
  } finally {
    await memory.close({ flush: false });
  }
}

// ── writing to a cached file ──

async function writing({ rounds, meter = new LoadMeter() }: GuestsOptions, path: string): Promise<Group> {
  const { size } = statSync(path);
  readFileSync(path);
  const mapPrivate: Contestant = {
    name: "MAP_PRIVATE",
    run() {
      const fd = openFile(local, path);
      const address = mmap(local, size, { protection: PROT.READ | PROT.WRITE, flags: MAP.PRIVATE, fd });
      close(local, fd);
      try {
        return walk(viewMemory(address, size), write);
      } finally {
        munmap(local, address, size);
      }
    },
  };
  const lazy = (name: string, mode: "private" | "write-back", pages?: number): Contestant => ({
    name,
    run: async () => {
      const plan = pages === undefined ? {} : { plan: { faultAroundPages: pages } };
      return using(await open(path, { mode, ...plan }), ({ buffer }) => walk(buffer, write));
    },
  });
  const series = await alternate(
    [
      mapPrivate,
      lazy("private", "private"),
      lazy("private, 16 pages", "private", 16),
      lazy(`write-back, ${WINDOW} pages`, "write-back", WINDOW),
    ],
    rounds,
    meter,
  );
  return {
    title: `Writing one byte to each page of a cached file (${size / MIB} MiB), microseconds a page`,
    columns: [{ key: "us", title: "us", digits: 2 }],
    ...measured(series),
    verdicts: [atLeast("MAP_PRIVATE : private", ratioOf(series, "us", "MAP_PRIVATE", "private"), 1.5)],
    notes: ["the pager copies each page once; MAP_PRIVATE faults once a page and copies then"],
  };
}

// ── WebAssembly ──

async function webAssembly({ rounds, meter = new LoadMeter() }: GuestsOptions, path: string): Promise<Group> {
  const { size } = statSync(path);
  const { WebAssembly: api } = globalThis as unknown as {
    WebAssembly: {
      Memory: new (options: {
        initial: number;
        maximum: number;
      }) => { readonly buffer: ArrayBuffer; grow(pages: number): number };
    };
  };
  const make = () => new api.Memory({ initial: size / 65536, maximum: size / 65536 });
  const zeros: Contestant = { name: "the kernel's zero pages", run: () => walk(make().buffer, read) };
  const written: Contestant = { name: "the same, written to", run: () => walk(make().buffer, write) };
  const attached = (name: string, options: AttachMemoryOptions): Contestant => ({
    name,
    async run() {
      const memory = make();
      const lazy = await attachMemory(memory, path, options);
      try {
        return walk(memory.buffer, read);
      } finally {
        await lazy.close();
      }
    },
  });
  const paged = attached("pager", { implementation: "kernel" });
  const narrow = attached("pager, 16 pages", { implementation: "kernel", plan: { faultAroundPages: 16 } });
  const contestants = [zeros, written, attached("attached", {}), paged, narrow];
  const series = await alternate(contestants, rounds, meter);
  return {
    title: `A WebAssembly memory of ${size / MIB} MiB touched in order, microseconds a page`,
    columns: [{ key: "us", title: "us", digits: 2 }],
    ...measured(series),
    verdicts: [
      atMost(
        "attached : the kernel's zero pages",
        ratioOf(series, "us", "attached", "the kernel's zero pages"),
        2,
      ),
      atMost(
        "through the pager : the kernel's zero pages",
        ratioOf(series, "us", "pager", "the kernel's zero pages"),
        2,
      ),
    ],
    notes: [
      "a plain local file is mapped by the kernel; what a pager brings is copied, and has pages of its own",
      "a zero page that is only read is one page for all",
    ],
  };
}

// ── what was written ──

async function dirty(
  { rounds, quick, meter = new LoadMeter() }: GuestsOptions,
  folder: string,
): Promise<Group> {
  const byteLength = (quick ? 64 : 1024) * MIB;
  const scan: Contestant = { name: "scan, 6 % written", run: () => ({ ms: scanMs(byteLength) }) };
  const path = join(folder, "large");
  writeGuestMemory(path, byteLength);
  const store = await openStore(join(folder, "store"));
  const full = async (name: string): Promise<number> => {
    const { source } = openRawFile(path);
    const began = performance.now();
    await buildImage(store, name, { regions: [{ name: "memory", source }], dedup: "image" });
    const ms = performance.now() - began;
    await source.close();
    return ms;
  };
  await full("base");
  const builds: Contestant = { name: "full image", run: async () => ({ ms: await full("full") }) };
  const incremental: Contestant = {
    name: "incremental image",
    async run(round) {
      const memory = await open(join(folder, "store", "base"), { mode: "write-back" });
      const bytes = new Uint8Array(memory.buffer);
      // 6 % of the chunks, in runs: an image is stored by chunks.
      // As compressible as before, and in no round what it was in another.
      for (let at = 0; at < byteLength; at += 16 * 65536) {
        bytes.subarray(at, at + 65536).reverse();
        bytes.fill(round + 7, at, at + 8);
      }
      const began = performance.now();
      await memory.flush();
      const ms = performance.now() - began;
      await memory.close();
      return { ms };
    },
  };
  const series = await alternate([scan, builds, incremental], Math.min(rounds, 3), meter);
  await store.close();
  const scanned = median((series.figures.get(scan.name) ?? []).map((figures) => figures.ms ?? Number.NaN));
  return {
    title: `Finding and storing what was written in ${byteLength / MIB} MiB`,
    columns: [{ key: "ms", title: "ms", digits: 2 }],
    ...measured(series),
    verdicts: [
      atMost("scanning a GiB with 6 % written, ms", (scanned * 1024 * MIB) / byteLength, 5),
      atLeast("full : incremental", ratioOf(series, "ms", "full image", "incremental image"), 10),
    ],
    notes: ["a scan finds the written pages and protects them again in the same step"],
  };
}

/** PAGEMAP_SCAN over present memory of which every 16th page was written, in the best of five. */
function scanMs(byteLength: number): number {
  const uffd = openUserfaultfd("kernel", local, { features: ["WP_ASYNC"] });
  const address = mmap(local, byteLength);
  const pagemap = openFile(local, "/proc/self/pagemap");
  try {
    const bytes = new Uint8Array(viewMemory(address, byteLength));
    for (let at = 0; at < byteLength; at += PAGE) bytes[at] = 1;
    uffd.register(address, byteLength, { writeProtect: true });
    uffd.writeProtect(address, byteLength, true);
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 5; round++) {
      for (let at = 0; at < byteLength; at += 16 * PAGE) bytes[at] = round;
      const began = performance.now();
      const found = scanWritten(local, pagemap, address, byteLength, { protect: true, populatedOnly: true });
      best = Math.min(best, performance.now() - began);
      if (typeof found === "number" || found.length !== byteLength / PAGE / 16) {
        throw new Error("The scan has not found what was written");
      }
    }
    return best;
  } finally {
    close(local, pagemap);
    uffd.close();
    munmap(local, address, byteLength);
  }
}
