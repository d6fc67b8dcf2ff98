// npm run bench -- server: the page server beside handlers in C that do what the common example handlers do, with machines
// that hand over by Firecracker's protocol: how soon the first page comes, what a restore costs, a hundred restores at once,
// and how long a guest waits when the pager is killed.

import { MADV, PAGE_SIZE } from "../src/abi/memory.ts";
import { affinity, local } from "../src/linux/index.ts";
import { startVmm, type Touched, type Vmm } from "../test/daemon/vmm.ts";
import { type CDoor, CHandlers } from "./c-handler.ts";
import type { LoadMeter } from "./load.ts";
import { atLeast, atMost, type Group, measured, type Row, type Verdict } from "./report.ts";
import { alternate, type Contestant, type Figures, median, medianOf, ratioOf } from "./rounds.ts";
import { type ImageName, ServerStage } from "./server-stage.ts";
import { warmMemory } from "./stand.ts";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** From one access of a guest in the crowd to the next. */
const STRIDE_BYTES = 4 * MIB;
/** Kills of a pager, and how long they may take: a spare takes a second of processor time to be ready. */
const KILLS = 30;
const KILLS_MS = 40_000;
const POPULATE_MS = 10_000;

export interface ServerOptions {
  readonly rounds: number;
  readonly quick: boolean;
  readonly meter: LoadMeter;
}

interface Scene {
  readonly stage: ServerStage;
  readonly meter: LoadMeter;
  readonly handlers: CHandlers | undefined;
  readonly rounds: number;
  readonly quick: boolean;
}

/** Measures the groups, or the one of that name, and hands each over as soon as it is there. */
export async function server(
  { rounds, quick, meter }: ServerOptions,
  only: string | undefined,
  add: (run: () => Promise<readonly Group[]>) => Promise<void>,
): Promise<void> {
  const byteLength = quick ? 256 * MIB : GIB;
  warmMemory((quick ? 1 : 4) * GIB);
  const compiled = CHandlers.compile(meter);
  if (typeof compiled === "string") console.log(`No rows of C: ${compiled}`);
  const handlers = typeof compiled === "string" ? undefined : compiled;
  const stage = await ServerStage.open(byteLength, byteLength / 8, meter);
  const scene = { stage, meter, handlers, quick, rounds: Math.min(rounds, 3) };
  const groups = { first: firstPages, restore: restores, many: manyAtOnce, kill: kills };
  try {
    for (const [name, measure] of Object.entries(groups)) {
      if (only === undefined || only === name) await add(async () => [await measure(scene)]);
    }
  } finally {
    await stage.close();
    await handlers?.close();
  }
}

// ── the first page ──

async function firstPages({ stage, meter, handlers, rounds, quick }: Scene): Promise<Group> {
  const count = quick ? 10 : 30;
  const contestant = (name: string, open: () => Vmm, door?: CDoor): Contestant => ({
    name,
    async run() {
      const ms: number[] = [];
      for (let turn = 0; turn < count; turn++) {
        ms.push(firstPage(stage, open()));
        await door?.left();
      }
      return { p50: median(ms), max: Math.max(...ms) };
    },
  });
  const contestants = [
    contestant("a raw file", () => stage.machine("raw")),
    contestant("an image", () => stage.machine("image")),
    contestant("an image, working set", () => stage.machine("set")),
  ];
  if (handlers !== undefined) {
    const door = await handlers.listen(stage.socketPath("c-first.sock"), stage.rawPath);
    contestants.push(contestant("C, a process a guest", () => stage.machine(door), door));
  }
  const series = await alternate(contestants, rounds, meter);
  await handlers?.stop();
  const names = ["a raw file", "an image", "an image, working set"];
  return {
    title: "From the hand-over to the first page served, ms",
    columns: [
      { key: "p50", title: "p50 ms", digits: 3 },
      { key: "max", title: "max ms", digits: 3 },
    ],
    verdicts: names.map((name) => atMost(`${name}: p50, ms`, medianOf(series, name, "p50"), 2)),
    notes: [
      `${count} machines a run; the virtual CPU stands at its first page before the message is sent`,
      "until the guest has read its page, as this process sees it",
    ],
    ...measured(series),
  };
}

/** Milliseconds from the message to the end of an access that has been waiting all the time. */
function firstPage(stage: ServerStage, vmm: Vmm): number {
  const walking = vmm.begin({ count: 1 }, "load");
  const began = vmm.handOver();
  walking.wait();
  const ms = performance.now() - began;
  stage.end(vmm);
  return ms;
}

// ── one restore ──

async function restores(scene: Scene): Promise<Group> {
  const { stage, meter, handlers, rounds } = scene;
  const { touches } = stage;
  const [plain, page] = ["plain anonymous memory", "C, page by page"];
  const contestants: Contestant[] = [
    { name: "memory that is there already", run: () => touchPlain(stage, true) },
    { name: plain, run: () => touchPlain(stage) },
  ];
  for (const [name, image] of [
    ["a raw file", "raw"],
    ["an image", "image"],
    ["an image, working set", "set"],
    ["an image, working set not kept", "unkept"],
  ] as const) {
    contestants.push({ name, run: () => restore(stage, image) });
  }
  if (handlers !== undefined) {
    for (const [name, cpu] of [
      [page, -1],
      [`${page}, guest's CPU`, guestCpu()],
    ] as const) {
      const door = await handlers.listen(stage.socketPath(`c-${cpu}.sock`), stage.rawPath, cpu);
      contestants.push({ name, run: () => restoreByC(stage, door) });
    }
    for (const [name, cpu] of [
      ["C, the set in bulk, other CPU", otherCpu()],
      ["C, the set in bulk, guest's CPU", guestCpu()],
    ] as const) {
      const socket = stage.socketPath(`c-set-${cpu}.sock`);
      const door = await handlers.installSet(socket, stage.rawPath, cpu, stage.touchesPath);
      contestants.push({ name, run: () => restoreByC(stage, door) });
    }
  }
  const series = await alternate(contestants, rounds, meter);
  await handlers?.stop();
  const set = "an image, working set";
  const verdicts: Verdict[] = [
    atMost(`total time, ${set} : ${plain}`, ratioOf(series, "ms", set, plain), 1.2),
    atMost(`total time, a raw file : ${plain}`, ratioOf(series, "ms", "a raw file", plain), 1.2),
  ];
  if (handlers !== undefined) {
    verdicts.push(
      atLeast(`total time, ${page} : a raw file`, ratioOf(series, "ms", page, "a raw file"), 12),
      atLeast(`total time, ${page} : an image`, ratioOf(series, "ms", page, "an image"), 12),
      atLeast(`total time, ${page} : ${set}`, ratioOf(series, "ms", page, set), 12),
      atLeast(`faults, ${page} : ${set}`, ratioOf(series, "faults", page, set), 91),
    );
  }
  return {
    title: `Restore of ${stage.byteLength / MIB} MiB of which the guest touches ${(touches.length * PAGE_SIZE) / MIB} MiB`,
    columns: [
      { key: "ms", title: "total ms", digits: 0 },
      { key: "us", title: "us a page", digits: 2 },
      { key: "faults", title: "faults", digits: 0 },
      { key: "p99", title: "p99 us", digits: 1 },
    ],
    verdicts,
    notes: [
      "a virtual CPU touches runs of 256 KiB, the runs in random order; from before the message is sent",
      "afterwards each machine hashes 1 page in 16 of those: all were right",
      "a working set is read and verified when its image is opened, and kept; not kept: that is done for this guest",
      "C in bulk: the same pages out of a mapped file, verified by nobody: what is left to be reached",
    ],
    ...measured(series),
  };
}

/** The CPU that machines are pinned to, as virtual CPUs usually are. */
function guestCpu(): number {
  return affinity(local).at(-1) ?? 0;
}

function otherCpu(): number {
  return affinity(local)[0] ?? 0;
}

async function restore(stage: ServerStage, image: ImageName): Promise<Figures> {
  const vmm = stage.machine(image, { pin: guestCpu() });
  return timed(stage, vmm, () => stage.faultsOf(vmm));
}

async function restoreByC(stage: ServerStage, door: CDoor): Promise<Figures> {
  const vmm = stage.machine(door, { pin: guestCpu() });
  const figures = await timed(stage, vmm, async () => 0);
  // The pages that are hashed have been touched before: that brings no fault.
  return { ...figures, faults: await door.left() };
}

async function timed(stage: ServerStage, vmm: Vmm, faults: () => Promise<number>): Promise<Figures> {
  const began = vmm.handOver();
  const touched = vmm.begin(stage.touches, "load").wait();
  const ms = performance.now() - began;
  const figures = { ms, ...perPage(touched), faults: await faults() };
  const wrong = await vmm.verify(stage.touches.filter((_, index) => index % 16 === 0));
  stage.end(vmm);
  if (wrong.length > 0) throw new Error(`The machine has wrong pages: ${wrong.join("; ")}`);
  return figures;
}

function touchPlain(stage: ServerStage, isThere = false): Figures {
  const vmm = startVmm({
    socket: "",
    regions: stage.byteLength,
    handOver: false,
    watched: false,
    system: stage.system,
    pin: guestCpu(),
  });
  if (isThere) populate(vmm);
  const began = performance.now();
  const touched = vmm.begin(stage.touches, "load").wait();
  const ms = performance.now() - began;
  stage.end(vmm);
  return { ms, ...perPage(touched), faults: 0 };
}

/** Gets all of a machine's memory into its process; its virtual CPU has seen nothing of it yet. */
function populate(vmm: Vmm): void {
  const thread = vmm.process.spawnThread();
  for (const { address, byteLength } of vmm.regions) {
    thread.start({ kind: "call", name: "madvise", args: [address, byteLength, MADV.POPULATE_WRITE] });
    if (!thread.wait(POPULATE_MS)) throw new Error("Memory was not populated in time");
  }
}

function perPage({ latenciesUs }: Touched): { us: number; p99: number } {
  return { us: sum(latenciesUs) / latenciesUs.length, p99: quantile(latenciesUs, 0.99) };
}

// ── many at once ──

async function manyAtOnce(scene: Scene): Promise<Group> {
  const { stage, meter, handlers, quick } = scene;
  const rounds = Math.min(scene.rounds, 2);
  const guests = quick ? 20 : 100;
  // One page of each 4 MiB, in a random order of its own: each is a fault, also where neighbours come with it.
  const accesses = stage.byteLength / STRIDE_BYTES;
  const contestants: Contestant[] = [{ name: "ours, an image", run: () => crowd(stage, guests, accesses) }];
  if (handlers !== undefined) {
    const door = await handlers.listen(stage.socketPath("c-many.sock"), stage.rawPath);
    contestants.push({ name: "C, a process a guest", run: () => crowd(stage, guests, accesses, door) });
  }
  const series = await alternate(contestants, rounds, meter);
  await handlers?.stop();
  const ours = "ours, an image";
  const limit = 1 + (64 / 1024) * (stage.byteLength / GIB);
  return {
    title: `${guests} guests of ${stage.byteLength / MIB} MiB restore from one image at once`,
    columns: [
      { key: "ms", title: "all done ms", digits: 0 },
      { key: "medianP99", title: "median p99 us", digits: 0 },
      { key: "worstP99", title: "worst p99 us", digits: 0 },
      { key: "spread", title: "worst:median", digits: 2 },
      { key: "mib", title: "MiB a guest", digits: 2 },
    ],
    verdicts: [
      atMost("p99 of a fault, the worst guest's : the median guest's", medianOf(series, ours, "spread"), 4),
      atMost("memory of the server a guest, MiB", medianOf(series, ours, "mib"), limit),
    ],
    notes: [
      `${accesses} accesses a guest, each of them a fault`,
      "memory: what all processes of the server have for themselves, shared parts once, page cache aside",
    ],
    ...measured(series),
  };
}

async function crowd(stage: ServerStage, guests: number, accesses: number, door?: CDoor): Promise<Figures> {
  const before = await stage.memory();
  const machines = Array.from({ length: guests }, () => stage.machine(door ?? "image"));
  const began = performance.now();
  const walks = machines.map((vmm, index) => {
    const order = { count: accesses, stride: STRIDE_BYTES / PAGE_SIZE, shuffle: index };
    vmm.handOver();
    return vmm.begin(order, "load").ended();
  });
  const touched = await Promise.all(walks);
  const ms = performance.now() - began;
  const mib = door === undefined ? ((await stage.memory()) - before) / guests / MIB : Number.NaN;
  for (const vmm of machines) stage.end(vmm);
  if (door !== undefined) for (const _ of machines) await door.left();
  const p99s = touched.map(({ latenciesUs }) => quantile(latenciesUs, 0.99));
  const [medianP99, worstP99] = [median(p99s), Math.max(...p99s)];
  return { ms, medianP99, worstP99, spread: worstP99 / medianP99, mib };
}

// ── a pager that is killed ──

async function kills({ stage, meter, handlers, quick }: Scene): Promise<Group> {
  const [count, guests] = [quick ? 5 : KILLS, 4];
  meter.begin();
  const machines = Array.from({ length: guests }, () => stage.machine("image"));
  for (const vmm of machines) await handOverTo(vmm);
  const ours = await killed(count, machines, () => stage.killPager());
  await stage.count();
  for (const vmm of machines) {
    const wrong = await vmm.verify({ stride: 64 });
    if (wrong.length > 0) throw new Error(`A machine has wrong pages: ${wrong.join("; ")}`);
    stage.end(vmm);
  }
  const rows: Row[] = [{ name: "ours, a warm spare", figures: ours }];
  if (handlers !== undefined) {
    const socket = stage.socketPath("c-keep.sock");
    const nextWorker = await handlers.keep(socket, stage.rawPath);
    const vmm = stage.machine({ socket });
    await handOverTo(vmm);
    const kill = async () => void process.kill(await nextWorker(), "SIGKILL");
    rows.push({ name: "C, a forked spare", figures: await killed(count, [vmm], kill) });
    stage.end(vmm);
    await handlers.stop();
  }
  return {
    title: "From SIGKILL of the pager to the next served fault, ms",
    columns: [
      { key: "p50", title: "p50 ms", digits: 2 },
      { key: "p99", title: "p99 ms", digits: 2 },
      { key: "count", title: "kills", digits: 0 },
    ],
    rows,
    verdicts: [atMost("p50, ms", ours.p50, 10), atMost("p99, ms", ours.p99, 50)],
    notes: [
      `${guests} guests; a kill as soon as a spare is ready; p99 of so few is the worst of them`,
      "each machine then hashed 1 page in 64 of its memory: all were right",
    ],
    rounds: 1,
    repeated: 0,
    load: [meter.end()],
  };
}

async function handOverTo(vmm: Vmm): Promise<void> {
  vmm.handOver();
  await vmm.touch({ count: 1 });
}

let nextPage = 1;

async function killed(
  count: number,
  machines: readonly Vmm[],
  kill: () => Promise<void>,
): Promise<{ readonly p50: number; readonly p99: number; readonly count: number }> {
  const ms: number[] = [];
  const until = performance.now() + KILLS_MS;
  while (ms.length < count && performance.now() < until) {
    const vmm = machines[ms.length % machines.length]!;
    await kill();
    const began = performance.now();
    // A page of which nobody has been near.
    vmm.begin({ from: (nextPage++ * 512) % vmm.pageCount, count: 1 }, "load").wait();
    ms.push(performance.now() - began);
  }
  const times = Float64Array.from(ms);
  return { p50: quantile(times, 0.5), p99: quantile(times, 0.99), count: ms.length };
}

// ──

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}

function quantile(values: Float64Array, share: number): number {
  return values.slice().sort()[Math.max(0, Math.ceil(share * values.length) - 1)] ?? Number.NaN;
}
