// How fast the software implementation is: faults resolved in one thread, loads of resident memory beside a raw typed
// array, and the memory it takes. `node dist/bench/software.js [--json] [--quick]`; bench/main.ts calls `software`.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { MAP, PROT } from "../src/abi/memory.ts";
import { uffdio } from "../src/abi/structs.ts";
import { UFFD_API, UFFDIO, UFFDIO_REGISTER_MODE } from "../src/abi/userfaultfd.ts";
import { createSystem, PagedMemory } from "../src/uffd/software/index.ts";
import { LoadMeter } from "./load.ts";
import { atLeast, atMost, type Group, measured, printGroup } from "./report.ts";
import { alternate, type Contestant, medianOf, ratioOf } from "./rounds.ts";

const PAGE = 4096;
const MIB = 1024 * 1024;

export interface SoftwareOptions {
  readonly rounds: number;
  readonly quick?: boolean;
  readonly meter?: LoadMeter;
}

/** All groups, in order. */
export async function software(options: SoftwareOptions): Promise<Group[]> {
  const groups = [await faults(options)];
  for (const byteLength of options.quick ? [16 * MIB] : [64 * MIB, 256 * MIB]) {
    groups.push(await loads(options, byteLength));
  }
  return [...groups, residency(options)];
}

/** Pages of different bytes to install. */
function pageContents(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, page) => new Uint8Array(PAGE).fill((page % 255) + 1));
}

// ── faults ──

async function faults({ rounds, quick, meter = new LoadMeter() }: SoftwareOptions): Promise<Group> {
  const contents = pageContents(256);
  const many = quick ? 4096 : 16384;
  const few = 2048;
  const contestants = [
    libraryFaults(few, contents),
    bareCopies(few, contents),
    libraryFaults(many, contents),
    bareCopies(many, contents),
    waistFaults(few),
  ];
  const series = await alternate(contestants, rounds, meter);
  const [library] = contestants;
  return {
    title: "Software: faults resolved in one thread (warm memory)",
    columns: [
      { key: "perSecond", title: "per second", digits: 0 },
      { key: "ns", title: "ns", digits: 0 },
    ],
    ...measured(series),
    verdicts: [
      atLeast("faults resolved per second", medianOf(series, library!.name, "perSecond"), 1_500_000),
    ],
    notes: [
      "a fault: a missing page touched, its message taken, 4 KiB of real bytes installed, the access done",
      "beyond the processor's caches the copy alone takes most of the time, whoever makes it",
    ],
  };
}

function timed(count: number, body: () => void): { readonly seconds: number; readonly ns: number } {
  const begin = performance.now();
  body();
  const seconds = (performance.now() - begin) / 1000;
  return { seconds, ns: (seconds * 1e9) / count };
}

function figuresOf(count: number, seconds: number): { readonly perSecond: number; readonly ns: number } {
  return { perSecond: count / seconds, ns: (seconds * 1e9) / count };
}

/** Pages touched by one round, however few they are: they are dropped and touched again. */
const TOUCHES = 32768;

/** Through PagedMemory: load8 of each page, all of them missing. */
function libraryFaults(pages: number, contents: readonly Uint8Array[]): Contestant {
  const memory = new PagedMemory(pages * PAGE, (page) => contents[page & 255]);
  const touch = (): number => {
    let sum = 0;
    for (let page = 0; page < pages; page++) sum += memory.load8(page * PAGE + 7);
    return sum;
  };
  let expected = 0;
  for (let page = 0; page < pages; page++) expected += contents[page & 255]![7]!;
  return {
    name: `PagedMemory, ${(pages * PAGE) / MIB} MiB`,
    run: () => {
      let seconds = 0;
      for (let touched = 0; touched < TOUCHES; touched += pages) {
        memory.discard(0, memory.byteLength);
        let sum = 0;
        seconds += timed(pages, () => {
          sum = touch();
        }).seconds;
        check(sum, expected);
      }
      return figuresOf(TOUCHES, seconds);
    },
  };
}

/** What the copies alone take: the floor of every fault. */
function bareCopies(pages: number, contents: readonly Uint8Array[]): Contestant {
  const target = new Uint8Array(pages * PAGE).fill(1);
  return {
    name: `  copies alone, ${(pages * PAGE) / MIB} MiB`,
    run: () => {
      let seconds = 0;
      for (let copied = 0; copied < TOUCHES; copied += pages) {
        seconds += timed(pages, () => {
          for (let page = 0; page < pages; page++) target.set(contents[page & 255]!, page * PAGE);
        }).seconds;
      }
      return figuresOf(TOUCHES, seconds);
    },
  };
}

/** Through the waist, as a pager would: a thread's load, read(2), UFFDIO_COPY. */
function waistFaults(pages: number): Contestant {
  const process = createSystem().spawnProcess();
  const fd = process.call("userfaultfd", 0x800);
  const { view, address: scratch } = process.scratch;
  const ask = (request: number, at: number): void => check(process.ioctl(fd, request, scratch + at), 0);
  uffdio.api.write(view, 0, { api: UFFD_API, features: 0 });
  ask(UFFDIO.API, 0);
  const { PRIVATE, ANONYMOUS, NORESERVE } = MAP;
  const flags = PRIVATE | ANONYMOUS | NORESERVE;
  const start = process.call("mmap", 0, pages * PAGE, PROT.READ | PROT.WRITE, flags, -1, 0);
  const mode = UFFDIO_REGISTER_MODE.MISSING;
  uffdio.register.write(view, 0, { start, len: pages * PAGE, mode });
  ask(UFFDIO.REGISTER, 0);
  const staging = process.share(PAGE);
  staging.bytes.fill(7);
  const thread = process.spawnThread();
  return {
    name: "thread, read, ioctl",
    run: () => {
      check(process.call("madvise", start, pages * PAGE, 4), 0);
      const { seconds } = timed(pages, () => {
        for (let page = 0; page < pages; page++) {
          thread.start({ kind: "load", address: start + page * PAGE, size: 1 });
          check(process.read(fd, scratch + 64, 32), 32);
          const dst = start + page * PAGE;
          uffdio.copy.write(view, 0, { dst, src: staging.address, len: PAGE, mode: 0 });
          ask(UFFDIO.COPY, 0);
          check(thread.state, "idle");
        }
      });
      return figuresOf(pages, seconds);
    },
  };
}

// ── loads ──

async function loads(options: SoftwareOptions, byteLength: number): Promise<Group> {
  const { rounds, meter = new LoadMeter() } = options;
  const series = await alternate([rawLoads(byteLength), memoryLoads(byteLength)], rounds, meter);
  const mib = byteLength / MIB;
  return {
    title: `Software: loads of resident memory, ${mib} MiB`,
    columns: [
      { key: "inOrder", title: "in order ns", digits: 2 },
      { key: "random", title: "random ns", digits: 2 },
    ],
    ...measured(series),
    verdicts: [
      atMost(`${mib} MiB in order, load8 : Uint8Array`, ratioOf(series, "inOrder", "load8", "Uint8Array"), 2),
      atMost(
        `${mib} MiB at random, load8 : Uint8Array`,
        ratioOf(series, "random", "load8", "Uint8Array"),
        1.5,
      ),
    ],
    notes: [],
  };
}

/** Loads of one run at random. */
const RANDOM_LOADS = 4_000_000;

/** The next of a sequence of numbers that jump about. */
function next(x: number): number {
  return (Math.imul(x, 1664525) + 1013904223) | 0;
}

function rawLoads(byteLength: number): Contestant {
  const bytes = new Uint8Array(byteLength).fill(3);
  const mask = byteLength - 1;
  const inOrder = (): number => {
    let sum = 0;
    for (let offset = 0; offset < byteLength; offset++) sum += bytes[offset]!;
    return sum;
  };
  const random = (): number => {
    let sum = 0;
    for (let count = 0, x = 12345; count < RANDOM_LOADS; count++) {
      x = next(x);
      sum += bytes[(x >>> 3) & mask]!;
    }
    return sum;
  };
  return { name: "Uint8Array", run: () => timeLoads(byteLength, inOrder, random) };
}

function memoryLoads(byteLength: number): Contestant {
  const page = new Uint8Array(PAGE).fill(3);
  const memory = new PagedMemory(byteLength, () => page);
  for (let offset = 0; offset < byteLength; offset += PAGE) memory.load8(offset);
  const mask = byteLength - 1;
  const inOrder = (): number => {
    let sum = 0;
    for (let offset = 0; offset < byteLength; offset++) sum += memory.load8(offset);
    return sum;
  };
  const random = (): number => {
    let sum = 0;
    for (let count = 0, x = 12345; count < RANDOM_LOADS; count++) {
      x = next(x);
      sum += memory.load8((x >>> 3) & mask);
    }
    return sum;
  };
  return { name: "load8", run: () => timeLoads(byteLength, inOrder, random) };
}

function timeLoads(
  byteLength: number,
  inOrder: () => number,
  random: () => number,
): { readonly inOrder: number; readonly random: number } {
  let sums = [0, 0];
  const walk = timed(byteLength, () => {
    sums = [inOrder(), 0];
  });
  const jumps = timed(RANDOM_LOADS, () => {
    sums[1] = random();
  });
  check(sums[0], 3 * byteLength);
  check(sums[1], 3 * RANDOM_LOADS);
  return { inOrder: walk.ns, random: jumps.ns };
}

// ── memory ──

interface Usage {
  readonly rss: number;
  readonly arrayBuffers: number;
  readonly heap: number;
}

/** Runs in a child process: what a memory of which a part is resident takes, in bytes. */
function measureUsage(mappedBytes: number, residentBytes: number): Usage {
  const page = new Uint8Array(PAGE).fill(1);
  const look = (): Usage => {
    global.gc?.();
    const { rss, arrayBuffers, heapUsed } = process.memoryUsage();
    return { rss, arrayBuffers, heap: heapUsed };
  };
  const before = look();
  const memory = new PagedMemory(mappedBytes, () => page);
  // The resident pages lie in eight places.
  const part = residentBytes / 8;
  for (let place = 0; place < 8; place++) {
    const start = Math.floor((place * mappedBytes) / 8 / PAGE) * PAGE;
    for (let offset = start; offset < start + part; offset += PAGE) memory.load8(offset);
  }
  const after = look();
  check(memory.residentBytes, residentBytes);
  return {
    rss: after.rss - before.rss,
    arrayBuffers: after.arrayBuffers - before.arrayBuffers,
    heap: after.heap - before.heap,
  };
}

function residency({ rounds, quick, meter = new LoadMeter() }: SoftwareOptions): Group {
  const sizes = quick
    ? [[64 * MIB, 64 * MIB] as const]
    : [[256 * MIB, 256 * MIB] as const, [16384 * MIB, 256 * MIB] as const];
  meter.begin();
  const rows = sizes.map(([mapped, resident]) => {
    const script = fileURLToPath(import.meta.url);
    const args = ["--expose-gc", script, "--usage", String(mapped), String(resident)];
    const usage = JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" })) as Usage;
    const allowed = resident * 1.1 + (65536 * mapped) / 2 ** 30;
    const figures = { ...usage, allowed };
    const inMib = Object.entries(figures).map(([name, bytes]) => [name, bytes / MIB]);
    return {
      name: `${resident / MIB} of ${mapped / MIB} MiB resident`,
      figures: Object.fromEntries(inMib) as Record<string, number>,
    };
  });
  const worst = Math.max(...rows.map(({ figures }) => figures.rss! / figures.allowed!));
  const worstBuffers = Math.max(...rows.map(({ figures }) => figures.arrayBuffers! / figures.allowed!));
  return {
    title: "Software: memory taken, in a process of its own",
    columns: [
      { key: "rss", title: "RSS MiB", digits: 1 },
      { key: "arrayBuffers", title: "buffers MiB", digits: 1 },
      { key: "heap", title: "heap MiB", digits: 1 },
      { key: "allowed", title: "allowed MiB", digits: 1 },
    ],
    rows,
    verdicts: [
      atMost("RSS : (1.1 x resident + 64 KiB per mapped GiB)", worst, 1),
      atMost("array buffers : the same", worstBuffers, 1),
    ],
    notes: ["frames are WebAssembly memory: in RSS as far as they were touched, not among the array buffers"],
    rounds: Math.min(rounds, 1),
    repeated: 0,
    load: [meter.end()],
  };
}

function check(got: unknown, expected: unknown): void {
  if (got !== expected) throw new Error(`The benchmark computed ${String(got)}, not ${String(expected)}`);
}

async function main(): Promise<void> {
  const [, , first, mapped, resident] = process.argv;
  if (first === "--usage") {
    console.log(JSON.stringify(measureUsage(Number(mapped), Number(resident))));
    return;
  }
  const quick = process.argv.includes("--quick");
  const groups = await software({ rounds: quick ? 3 : 5, quick });
  if (process.argv.includes("--json")) {
    console.log(JSON.stringify(groups, null, 2));
    return;
  }
  for (const group of groups) printGroup(group);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
