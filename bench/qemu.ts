// npm run bench -- qemu: a saved machine that starts lazily, beside QEMU's own -incoming of the same state.
//
//   capture   QEMU's own saving of a machine, beside capturing it                    a machine of 1 GiB, booted once
//   restore   until it runs, its shell answers, everything is there; recovery        the same, saved
//   waits     what a page takes that is asked for, with and without the push         the same image
//   far       each read of the image 5 ms away                                       the same image
//   big       until it runs, its shell answers, everything is there                  a machine of 4 GiB
//   flat      until the shell answers with a working set, of both in turn            one of 1 and one of 4 GiB

import { execFileSync } from "node:child_process";
import type { LoadMeter } from "./load.ts";
import { QemuStage } from "./qemu-stage.ts";
import { atLeast, atMost, type Group, measured, type Verdict } from "./report.ts";
import {
  alternate,
  type Contestant,
  type Figures,
  median,
  medianOf,
  ratioOf,
  type Series,
} from "./rounds.ts";
import { warmHugePages, warmMemory } from "./stand.ts";

export const QEMU_GROUPS: readonly string[] = ["capture", "restore", "waits", "far", "big", "flat"];

const MIB = 2 ** 20;
const EAGER = "QEMU -incoming exec:cat";
const LAZY = "lazy";
const REPLAY = "lazy, working set ahead";
const CUT = "lazy, cut in the middle";
const READY = "all bytes ready in memory";
const DEVICES = "devices and their pages";
const FETCH_MS = 5;
/** Restores take seconds, and differ little from one another. */
const ROUNDS_MAX = 3;
const ROUNDS_BIG = 2;

interface Size {
  readonly memoryMiB: number;
  /** Of what a machine has, the guest fills this share: the rest is its system's, and zeros. */
  readonly fillShare: number;
}
const SMALL: Size = { memoryMiB: 1024, fillShare: 0.55 };
const BIG: Size = { memoryMiB: 4096, fillShare: 0.78 };
const QUICK: Size = { memoryMiB: 256, fillShare: 0.55 };

export interface QemuOptions {
  readonly rounds: number;
  readonly quick: boolean;
  readonly meter: LoadMeter;
}

interface Scene {
  readonly stage: QemuStage;
  readonly rounds: number;
  readonly meter: LoadMeter;
}

/** Measures the groups, or the one of that name, and hands each over as soon as it is there. */
export async function qemu(
  { rounds, quick, meter }: QemuOptions,
  only: string | undefined,
  add: (run: () => Promise<readonly Group[]>) => Promise<void>,
): Promise<void> {
  const small = { capture: captures, restore: restores, waits, far: farAway };
  const wanted = Object.entries(small).filter(([name]) => only === undefined || name === only);
  if (wanted.length > 0) {
    await onStage(quick ? QUICK : SMALL, Math.min(rounds, ROUNDS_MAX), meter, async (scene) => {
      for (const [, measure] of wanted) await add(async () => [await measure(scene)]);
    });
  }
  if (quick) return;
  if (only === undefined || only === "big") {
    await onStage(BIG, Math.min(rounds, ROUNDS_BIG), meter, async (scene) => {
      await add(async () => [await bigRestores(scene)]);
    });
  }
  if (only === undefined || only === "flat") {
    await onStage(SMALL, rounds, meter, async (small) => {
      await onStage(BIG, rounds, meter, async (big) => {
        await add(async () => [await flat(small, big)]);
      });
    });
  }
}

/** Says on the way what a run gave: the table comes when all have been made. */
function told({ name, run }: Contestant): Contestant {
  return {
    name,
    async run(round) {
      const figures = await run(round);
      const texts = Object.entries(figures).map(([key, value]) => `${key} ${value.toFixed(1)}`);
      console.error(`  ${round === 0 ? "warm" : `round ${round}`}  ${name}: ${texts.join(", ")}`);
      return figures;
    },
  };
}

async function onStage(
  { memoryMiB, fillShare }: Size,
  rounds: number,
  meter: LoadMeter,
  use: (scene: Scene) => Promise<void>,
): Promise<void> {
  // Memory that its host has not given this machine yet takes several times as long to fill.
  warmMemory(3 * memoryMiB * MIB);
  warmHugePages(memoryMiB * MIB);
  console.error(`booting a machine of ${memoryMiB} MiB`);
  const stage = await QemuStage.boot(memoryMiB, Math.round(memoryMiB * fillShare), meter);
  try {
    await use({ stage, rounds, meter });
  } finally {
    await stage.close();
  }
}

// ── capture ──

const SAVED = 'migrate "exec:cat > file"';
const SYNCED = "the same, and synced";
const TOOLS = "openssl sha256, zstd -1 -T2, synced";
const FLOOR = "floor: send, receive, write, sha256";
const CAPTURED = "minorfault qemu capture";

async function captures({ stage, rounds, meter }: Scene): Promise<Group> {
  const shares: number[] = [];
  const contestants: Contestant[] = [
    { name: SAVED, run: () => stage.saveByQemu() },
    { name: SYNCED, run: () => stage.saveByQemu((file) => `cat > ${file} && sync ${file}`) },
    ...(hasTools()
      ? [
          { name: TOOLS, run: () => stage.saveByQemu(byTools) },
          { name: FLOOR, run: () => stage.floor() },
        ]
      : []),
    { name: CAPTURED, run: () => captureTwice(stage, shares) },
  ];
  const series = await alternate(contestants.map(told), rounds, meter);
  const toSynced = ratioOf(series, "ms", CAPTURED, SYNCED).toFixed(2);
  return {
    title: `${stage.memoryMiB} MiB machine that stands: QEMU's own saving, and capturing it into an image`,
    columns: [
      { key: "ms", title: "ms", digits: 0 },
      { key: "writtenMiB", title: "written MiB", digits: 1 },
      { key: "againMs", title: "again ms", digits: 0 },
      { key: "againMiB", title: "written MiB", digits: 1 },
    ],
    verdicts: [
      atMost("captured : saved", ratioOf(series, "ms", CAPTURED, SAVED), 1.5),
      atMost("new in a second capture of an idle machine, %", median(shares), 2),
    ],
    notes: [
      `what is captured is on the disk when it ends, what cat has written is not; captured : saved and synced: ${toSynced}`,
      `${TOOLS}: the same work by C programs, which read what tee gives them`,
      `${FLOOR}: processors' time of QEMU, cat and openssl for the same stream, spread over all processors; nothing is compressed`,
    ],
    ...measured(series),
  };
}

async function captureTwice(stage: QemuStage, shares: number[]): Promise<Figures> {
  let startedAt = performance.now();
  const first = await stage.capture("first");
  const ms = performance.now() - startedAt;
  startedAt = performance.now();
  const second = await stage.capture("second");
  const againMs = performance.now() - startedAt;
  shares.push((second.chunks.stored * second.manifest.chunkBytes * 100) / second.manifest.byteLength);
  // Nothing of it is known in the next round.
  stage.forget();
  return { ms, writtenMiB: first.writtenBytes / MIB, againMs, againMiB: second.writtenBytes / MIB };
}

/** All of them are waited for, so that what they use is counted as ours. */
function byTools(file: string): string {
  const fifo = `${file}.hashed`;
  const steps = [
    `mkfifo ${fifo}`,
    `openssl dgst -sha256 < ${fifo} > /dev/null & tee ${fifo} | zstd -q -1 -T2 -o ${file}`,
    "wait",
    `rm ${fifo}`,
    `sync ${file}`,
  ];
  return steps.join("; ");
}

function hasTools(): boolean {
  try {
    for (const [tool, option] of [
      ["zstd", "--version"],
      ["openssl", "version"],
    ] as const) {
      execFileSync(tool, [option], { stdio: "ignore" });
    }
    return true;
  } catch {
    return false;
  }
}

// ── restore ──

const COLUMNS = [
  { key: "runMs", title: "runs ms", digits: 1 },
  { key: "shellMs", title: "shell ms", digits: 0 },
  { key: "allMs", title: "all ms", digits: 0 },
  { key: "requests", title: "requests", digits: 0 },
  { key: "recoveredMs", title: "recovered ms", digits: 1 },
];

async function restores({ stage, rounds, meter }: Scene): Promise<Group> {
  await stage.prepare();
  const contestants: Contestant[] = [
    { name: EAGER, run: () => stage.eager() },
    { name: LAZY, run: () => stage.lazy({ replay: false }) },
    { name: REPLAY, run: () => stage.lazy({ replay: true }) },
    { name: CUT, run: () => stage.lazy({ replay: true, cut: true }) },
    { name: READY, run: () => stage.readyMade() },
  ];
  const series = await alternate(contestants.map(told), rounds, meter);
  return {
    title: `${stage.memoryMiB} MiB machine: until it runs, its shell answers, everything is there`,
    columns: COLUMNS,
    verdicts: [
      ...sooner(series, { run: 100, shell: 6 }),
      atMost("recovery after a cut, ms", medianOf(series, CUT, "recoveredMs"), 30),
    ],
    notes: [
      CLOCK,
      `${READY}: nothing is read, verified or decided, and no guest runs; what QEMU alone takes`,
    ],
    ...measured(series),
  };
}

async function bigRestores({ stage, rounds, meter }: Scene): Promise<Group> {
  await stage.prepare();
  const contestants: Contestant[] = [
    { name: EAGER, run: () => stage.eager() },
    { name: LAZY, run: () => stage.lazy({ replay: false, push: false }) },
    { name: REPLAY, run: () => stage.lazy({ replay: true }) },
    { name: READY, run: () => stage.readyMade() },
  ];
  const series = await alternate(contestants.map(told), rounds, meter);
  return {
    title: `${stage.memoryMiB} MiB machine: until it runs, its shell answers, everything is there`,
    columns: COLUMNS.slice(0, 4),
    verdicts: sooner(series, { run: 1000, shell: 30 }),
    notes: [
      CLOCK,
      `${LAZY}: nothing is pushed here, and it ends when the shell has answered`,
      `${READY}: devices, and the pages that they need; what QEMU alone takes until it would run`,
    ],
    ...measured(series),
  };
}

/** Both sizes in turn, so that what the machine is like just now is the same for both. */
async function flat(small: Scene, big: Scene): Promise<Group> {
  const sizes = [small.stage, big.stage];
  for (const stage of sizes) await stage.prepare({ eager: false });
  const nameOf = (stage: QemuStage, what: string): string => `${stage.memoryMiB} MiB, ${what}`;
  const contestants: Contestant[] = sizes.flatMap((stage) => [
    { name: nameOf(stage, REPLAY), run: () => stage.lazy({ replay: true, untilShell: true }) },
    { name: nameOf(stage, DEVICES), run: () => stage.readyMade(false) },
  ]);
  const series = await alternate(contestants.map(told), small.rounds, small.meter);
  const ratio = (key: string, what: string): number =>
    medianOf(series, nameOf(big.stage, what), key) / medianOf(series, nameOf(small.stage, what), key);
  const [runs, qemu] = [ratio("runMs", REPLAY), ratio("runMs", DEVICES)].map((value) => value.toFixed(2));
  return {
    title: "Machines of 1 and 4 GiB with their working sets: until they run, until their shells answer",
    columns: COLUMNS.slice(0, 2),
    verdicts: [atMost("shell with a working set, 4 GiB : 1 GiB", ratio("shellMs", REPLAY), 1.3)],
    notes: [
      CLOCK,
      `${DEVICES}: kept in memory and sent at once; what QEMU alone takes until it would run`,
      `until it runs, 4 GiB : 1 GiB: ${runs}; QEMU alone: ${qemu}`,
    ],
    ...measured(series),
  };
}

const CLOCK =
  "QEMU is started and waits; from before image or file is opened; emulated (tcg), page cache and memory warm";

function sooner(series: Series, { run, shell }: { run: number; shell: number }): Verdict[] {
  return [
    atLeast("until it runs, eager : lazy", ratioOf(series, "runMs", EAGER, LAZY), run),
    atLeast("until the shell answers, eager : working set", ratioOf(series, "shellMs", EAGER, REPLAY), shell),
    atMost("everything moved, lazy : eager", ratioOf(series, "allMs", REPLAY, EAGER), 1.3),
  ];
}

// ── pages that are asked for ──

async function farAway({ stage, rounds, meter }: Scene): Promise<Group> {
  await stage.prepare();
  const far = { delayMs: FETCH_MS, push: false };
  const contestants: Contestant[] = [
    { name: "page by page", run: () => stage.lazy({ ...far, replay: false, isPlain: true }) },
    { name: LAZY, run: () => stage.lazy({ ...far, replay: false }) },
    { name: REPLAY, run: () => stage.lazy({ ...far, replay: true }) },
  ];
  const series = await alternate(contestants.map(told), rounds, meter);
  return {
    title: `${stage.memoryMiB} MiB machine, every read of the image ${FETCH_MS} ms away`,
    columns: [
      { key: "runMs", title: "runs ms", digits: 1 },
      { key: "shellMs", title: "shell ms", digits: 0 },
    ],
    verdicts: [
      atLeast(
        "until the shell answers, page by page : working set",
        ratioOf(series, "shellMs", "page by page", REPLAY),
        40,
      ),
    ],
    notes: ["lazy: with the chunk that a page lies in; page by page: what demand paging alone does"],
    ...measured(series),
  };
}

async function waits({ stage, rounds, meter }: Scene): Promise<Group> {
  await stage.prepare();
  const contestants: Contestant[] = [
    { name: "nothing is pushed", run: (round) => stage.waits(false, round) },
    { name: "all is pushed meanwhile", run: (round) => stage.waits(true, round) },
  ];
  const series = await alternate(contestants.map(told), rounds, meter);
  const ratio = ratioOf(series, "p99Us", "all is pushed meanwhile", "nothing is pushed");
  return {
    title: `${stage.memoryMiB} MiB machine: what a page takes that is asked for`,
    columns: [
      { key: "p50Us", title: "p50 us", digits: 0 },
      { key: "p99Us", title: "p99 us", digits: 0 },
      { key: "waits", title: "waits", digits: 0 },
    ],
    verdicts: [atMost("p99 wait, pushed : not pushed", ratio, 2)],
    notes: ["asked for by a thread that plays the destination, one page after the other, at random"],
    ...measured(series),
  };
}
