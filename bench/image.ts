// npm run bench -- image: building an image beside zstd and sha256sum, an increment beside the whole, and reading
// verified chunks beside the codec alone.
//
// Files lie in memory (/dev/shm) so that no disk is measured; one row says what a disk adds, with everything durable.

import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import type { Range } from "../src/base/range.ts";
import { sha256 } from "../src/image/hash.ts";
import { buildImage, type OpenedImage, openImageIn, openRawFile } from "../src/image/index.ts";
import { type Codec, codec } from "../src/source/codec.ts";
import { FolderStore } from "../src/source/index.ts";
import { hasZstd, zstdFunctions } from "../src/source/zstd-native.ts";
import { guestMemory } from "./image-content.ts";
import type { LoadMeter } from "./load.ts";
import { atLeast, atMost, type Group, measured, type Verdict } from "./report.ts";
import { alternate, type Contestant, ratioOf } from "./rounds.ts";

const MIB = 2 ** 20;
const LEVEL = 3;
const NODE_FUNCTION = "Node's zstdDecompressSync";
const HASHING = "SHA-256 of what is stored";
const DIRTY_SHARE = 0.06;
/** Dirty pages come in runs, as guests write them. */
const DIRTY_RUN = 256 * 1024;

export interface ImageBench {
  readonly rounds: number;
  readonly quick: boolean;
  readonly meter: LoadMeter;
}

export async function image({ rounds, quick, meter }: ImageBench): Promise<readonly Group[]> {
  const folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "minorfault-bench-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  try {
    const byteLength = quick ? 64 * MIB : 1024 * MIB;
    const bytes = guestMemory(byteLength, 1);
    const file = join(folder, "memory.raw");
    writeAll(file, bytes);
    // As compressible as before, and not the same.
    const changed = join(folder, "changed.raw");
    for (const { start, until } of dirtyRanges(byteLength)) bytes.subarray(start, until).reverse();
    writeAll(changed, bytes);
    const bench = new Bench(folder, { file, changed, byteLength }, rounds, meter);
    return [await bench.building(), await bench.reading()];
  } finally {
    remove();
    process.removeListener("exit", remove);
  }
}

class Bench {
  readonly #folder: string;
  readonly #files: { readonly file: string; readonly changed: string };
  readonly #byteLength: number;
  readonly #rounds: number;
  readonly #meter: LoadMeter;
  #stores = 0;

  constructor(
    folder: string,
    files: { readonly file: string; readonly changed: string; readonly byteLength: number },
    rounds: number,
    meter: LoadMeter,
  ) {
    this.#folder = folder;
    this.#files = files;
    this.#byteLength = files.byteLength;
    this.#rounds = rounds;
    this.#meter = meter;
  }

  async building(): Promise<Group> {
    const { implementation } = codec();
    const mib = this.#byteLength / MIB;
    const full = `image, ${implementation} level ${LEVEL}`;
    const increment = `image, ${DIRTY_SHARE * 100} % dirty`;
    const again = "image, again (all known)";
    const zstd = `zstd -T2 -${LEVEL}, sha256sum`;
    const base = new FolderStore(join(this.#folder, "base"));
    await this.#build(base, "base");
    const contestants: Contestant[] = [
      { name: full, run: () => this.#inNewStore((store) => this.#build(store, "it")) },
      { name: zstd, run: () => this.#zstd() },
      {
        name: increment,
        run: () => this.#build(base, "child", { parent: "base", changed: dirtyRanges(this.#byteLength) }),
      },
      { name: again, run: () => this.#build(base, "again") },
      {
        name: "image, none",
        run: () => this.#inNewStore((store) => this.#build(store, "it", { codec: "none" })),
      },
      { name: "image, on disk", run: () => this.#inNewStore((store) => this.#build(store, "it"), tmpdir()) },
    ].filter(({ name }) => name !== zstd || hasCommand("zstd"));
    const series = await alternate(contestants, this.#rounds, this.#meter);
    const slower = ratioOf(series, "ms", full, zstd);
    const faster = ratioOf(series, "ms", full, increment);
    const isBuiltIn = implementation === "node:zlib";
    return {
      title: `Building an image of ${mib} MiB, ${availableParallelism()} processors, Node ${process.version}`,
      columns: [
        { key: "ms", title: "ms", digits: 0 },
        { key: "rate", title: "MiB/s", digits: 0 },
        { key: "storedMib", title: "stored MiB", digits: 1 },
      ],
      ...measured(series),
      verdicts: [
        ...(isBuiltIn && hasCommand("zstd") ? [atMost("build : zstd -T2 + sha256sum", slower, 1.5)] : []),
        atLeast("increment faster than the whole", faster, 10),
      ],
      notes: [
        ...(isBuiltIn
          ? []
          : [
              `build : zstd -T2 + sha256sum is ${slower.toFixed(2)} with ${implementation}; ` +
                "the target is for the codec that Node has from 22.15 on",
            ]),
        `stored again: nothing but index and manifest; zeros and equal chunks once`,
      ],
    };
  }

  async reading(): Promise<Group> {
    const base = new FolderStore(join(this.#folder, "base"));
    const opened = await openImageIn(base, "base");
    try {
      const stored = await compressedChunks(opened);
      const target = new Uint8Array(opened.chunkBytes);
      const { chunkBytes } = opened;
      const decode = (one: Pick<Codec, "decompressInto">) => () =>
        timed(stored, chunkBytes, ({ bytes }) => one.decompressInto(bytes, target));
      const { implementation } = codec();
      const kept = implementation === "node:zlib" ? "Node's zstd, its context kept" : implementation;
      const sync = "chunks, verified";
      const contestants: Contestant[] = [
        { name: kept, run: decode(codec()) },
        ...(hasZstd()
          ? [
              {
                name: NODE_FUNCTION,
                run: () =>
                  timed(stored, chunkBytes, ({ bytes }) => zstdFunctions.decompress(bytes, chunkBytes)),
              },
              { name: "zstd-wasm", run: decode(codec("zstd-wasm")) },
            ]
          : []),
        {
          name: HASHING,
          run: () => timed(stored, chunkBytes, ({ bytes }) => sha256(bytes)),
        },
        {
          name: sync,
          run: () => timed(stored, chunkBytes, ({ chunk }) => opened.readChunkSync(chunk, target)),
        },
        {
          name: "chunks, verified, with await",
          run: async () => {
            const began = performance.now();
            for (const { chunk } of stored) await opened.readChunk(chunk, target);
            return figures(began, stored.length, chunkBytes);
          },
        },
      ];
      const series = await alternate(contestants, this.#rounds, this.#meter);
      const floor = 1 / (1 + ratioOf(series, "ms", HASHING, kept));
      const share = (alone: string): Verdict =>
        atLeast(`verified reading : ${alone} alone`, ratioOf(series, "ms", alone, sync), 0.8);
      return {
        title: `Reading compressed chunks of ${opened.chunkBytes / 1024} KiB, one processor, ${codec().implementation}`,
        columns: [
          { key: "us", title: "µs a chunk", digits: 1 },
          { key: "rate", title: "MiB/s", digits: 0 },
        ],
        ...measured(series),
        verdicts: [share(hasZstd() ? NODE_FUNCTION : kept)],
        notes: [
          ...(hasZstd()
            ? [
                `${kept}, as we use it: verified reading is ${ratioOf(series, "ms", kept, sync).toFixed(2)} of it; ` +
                  `it and SHA-256, one after the other and nothing else, would be ${floor.toFixed(2)}`,
              ]
            : []),
          `${stored.length} chunks, which the codec makes ${ratioText(stored, opened.chunkBytes)} times smaller`,
        ],
      };
    } finally {
      await opened.close();
    }
  }

  async #inNewStore(
    work: (store: FolderStore) => Promise<Record<string, number>>,
    parent: string = this.#folder,
  ): Promise<Record<string, number>> {
    const path = mkdtempSync(join(parent, `minorfault-bench-store-${this.#stores++}-`));
    try {
      return await work(new FolderStore(path));
    } finally {
      rmSync(path, { recursive: true, force: true });
    }
  }

  async #build(
    store: FolderStore,
    name: string,
    options: { parent?: string; changed?: readonly Range[]; codec?: "none" } = {},
  ): Promise<Record<string, number>> {
    const began = performance.now();
    const { source, extents } = openRawFile(
      options.changed === undefined ? this.#files.file : this.#files.changed,
    );
    const { parent, changed, codec: none } = options;
    const region = { name: "ram", source, ...(extents && { extents }), ...(changed && { changed }) };
    const report = await buildImage(store, name, {
      regions: [region],
      level: LEVEL,
      ...(parent && { parent }),
      ...(none && { codec: none }),
      // What the round before has stored of the same increment is not to be found.
      ...(parent && { dedup: "parent" as const }),
    });
    await source.close();
    const ms = performance.now() - began;
    return { ms, rate: this.#byteLength / MIB / (ms / 1000), storedMib: report.writtenBytes / MIB };
  }

  #zstd(): Record<string, number> {
    const out = join(this.#folder, "memory.zst");
    const began = performance.now();
    run("zstd", ["-T2", `-${LEVEL}`, "-q", "-f", "-o", out, this.#files.file], this.#meter);
    run("sha256sum", [this.#files.file], this.#meter);
    const ms = performance.now() - began;
    const storedMib = statSync(out).size / MIB;
    rmSync(out);
    return { ms, rate: this.#byteLength / MIB / (ms / 1000), storedMib };
  }
}

function writeAll(path: string, bytes: Uint8Array): void {
  const fd = openSync(path, "w");
  for (let at = 0; at < bytes.byteLength; at += 64 * MIB) {
    writeSync(fd, bytes, at, Math.min(64 * MIB, bytes.byteLength - at), at);
  }
  closeSync(fd);
}

/** Runs of pages, 6 % of all, evenly over the memory. */
function dirtyRanges(byteLength: number): Range[] {
  const step = Math.round(DIRTY_RUN / DIRTY_SHARE / 65536) * 65536;
  return Array.from({ length: Math.floor(byteLength / step) }, (_, index) => ({
    start: index * step,
    until: index * step + DIRTY_RUN,
  }));
}

interface StoredBytes {
  readonly chunk: number;
  readonly bytes: Uint8Array;
}

async function compressedChunks(opened: OpenedImage): Promise<StoredBytes[]> {
  const stored: StoredBytes[] = [];
  for (let chunk = 0; chunk < opened.byteLength / opened.chunkBytes; chunk++) {
    const place = await opened.locate(chunk);
    if (place?.encoding !== "zstd") continue;
    const bytes = new Uint8Array(place.storedBytes);
    await opened.packs.read(place.pack, place.offset, bytes);
    stored.push({ chunk, bytes });
  }
  return stored;
}

function timed(
  stored: readonly StoredBytes[],
  chunkBytes: number,
  work: (each: StoredBytes) => unknown,
): Record<string, number> {
  const began = performance.now();
  for (const each of stored) work(each);
  return figures(began, stored.length, chunkBytes);
}

function figures(began: number, chunks: number, chunkBytes: number): Record<string, number> {
  const ms = performance.now() - began;
  return { ms, us: (ms * 1000) / chunks, rate: (chunks * chunkBytes) / MIB / (ms / 1000) };
}

function ratioText(stored: readonly StoredBytes[], chunkBytes: number): string {
  const bytes = stored.reduce((sum, each) => sum + each.bytes.byteLength, 0);
  return ((stored.length * chunkBytes) / bytes).toFixed(1);
}

function hasCommand(name: string): boolean {
  return spawnSync(name, ["--version"], { stdio: "ignore" }).error === undefined;
}

/** Runs a command; its processor time is the benchmark's own, not somebody else's. */
function run(command: string, args: readonly string[], meter: LoadMeter): void {
  const program = `"$0" "$@" >/dev/null || exit 1; times`;
  const { stdout, status } = spawnSync("bash", ["-c", program, command, ...args], { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ended with ${status}`);
  const spent = [...stdout.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => 60 * Number(minutes) + Number(seconds),
  );
  meter.credit(spent.reduce((sum, seconds) => sum + seconds, 0));
}
