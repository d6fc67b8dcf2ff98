// npm run bench -- restore: memory from an image as it is touched, beside reading the whole image first, and a recorded
// working set beside the kernel's own mapping of the same bytes.

import { openSource } from "./delayed-source.ts";
import { LoadMeter } from "./load.ts";
import { atLeast, atMost, type Group, measured, type Verdict } from "./report.ts";
import { imageUnits, RestoreStage, sourceUnits } from "./restore-stage.ts";
import { alternate, type Contestant, ratioOf, type Series } from "./rounds.ts";
import { unverified } from "./unverified.ts";

const MIB = 1024 * 1024;
const SET_BYTES = 16 * MIB;

export const RESTORE_GROUPS: readonly string[] = ["sets", "verify", "warm", "cold", "1ms", "10ms"];

export interface RestoreOptions {
  readonly rounds: number;
  /** One of RESTORE_GROUPS; default all. */
  readonly only?: string | undefined;
  readonly quick?: boolean;
  readonly meter?: LoadMeter;
}

interface Scene {
  readonly stage: RestoreStage;
  readonly rounds: number;
  readonly meter: LoadMeter;
}

/** All groups, in order. */
export async function restore({
  rounds,
  only,
  quick = false,
  meter = new LoadMeter(),
}: RestoreOptions): Promise<Group[]> {
  const stage = await RestoreStage.build(
    quick ? 128 * MIB : 1024 * MIB,
    quick ? SET_BYTES / 4 : SET_BYTES,
    meter,
  );
  try {
    const scene = { stage, rounds, meter };
    const run = [
      () => workingSets(scene),
      () => verification(scene),
      () => wholeImage(scene, false),
      () => wholeImage(scene, true),
      () => farAway(scene, 1),
      () => farAway(scene, 10),
    ];
    const groups: Group[] = [];
    for (const [index, name] of RESTORE_GROUPS.entries()) {
      if (only === undefined || only === name) groups.push(await run[index]!());
    }
    return groups;
  } finally {
    stage.close();
  }
}

async function wholeImage({ stage, rounds, meter }: Scene, isCold: boolean): Promise<Group> {
  const url = stage.urlOf("zstd");
  const before = async (): Promise<void> => (isCold ? stage.makeCold() : stage.makeWarm());
  const contestants: Contestant[] = [
    {
      name: "eager: all of it, then touching",
      run: async () => {
        await before();
        return stage.eager(() => imageUnits(url));
      },
    },
    ...[false, true].map((fills) => ({
      name: fills ? FILLING : "lazy",
      run: async () => {
        await before();
        return stage.lazy({ url }, fills);
      },
    })),
  ];
  const series = await alternate(contestants, rounds, meter);
  const cache = isCold ? "cold" : "warm";
  return {
    title: `${stage.byteLength / MIB} MiB image, zstd, page cache ${cache}: first byte; 2 % at random; all in order`,
    ...measured(series),
    columns: COLUMNS,
    verdicts: lazyVerdicts(series, cache, ["lazy", FILLING]),
    notes: ["counted from before the source is opened, with prepareThreads() done"],
  };
}

async function farAway({ stage, rounds, meter }: Scene, delayMs: number): Promise<Group> {
  const argument = { path: stage.rawPath, delayMs };
  const module = new URL("./delayed-source.js", import.meta.url).href;
  const contestants: Contestant[] = [
    {
      name: "eager, 16 reads of 1 MiB at once",
      run: () => {
        stage.makeWarm();
        return stage.eager(async () => sourceUnits(await openSource(argument)));
      },
    },
    { name: FILLING, run: () => stage.lazy({ module, argument }, true) },
  ];
  const series = await alternate(contestants, rounds, meter);
  return {
    title: `${stage.byteLength / MIB} MiB raw, ${delayMs} ms away: first byte; 2 % at random; all in order`,
    ...measured(series),
    columns: COLUMNS,
    verdicts: lazyVerdicts(series, `${delayMs} ms`, [FILLING]),
    notes: [
      "without installAll() one thread that touches at random waits for each read, one after the other: " +
        `${stage.few.count} times ${delayMs} ms at least`,
    ],
  };
}

const FILLING = "lazy, installAll() behind it";
const COLUMNS: Group["columns"] = [
  { key: "startMs", title: "started ms", digits: 1 },
  { key: "firstMs", title: "first ms", digits: 1 },
  { key: "fewMs", title: "2 % ms", digits: 0 },
  { key: "totalMs", title: "total ms", digits: 0 },
  { key: "faults", title: "faults", digits: 0 },
];

function lazyVerdicts(series: Series, what: string, lazies: readonly string[]): Verdict[] {
  const [eager = ""] = series.figures.keys();
  const [first = ""] = lazies;
  return [
    atLeast(`${what}: time to first byte, eager : ${first}`, ratioOf(series, "firstMs", eager, first), 50),
    ...lazies.map((lazy) =>
      atMost(`${what}: total time, ${lazy} : eager`, ratioOf(series, "totalMs", lazy, eager), 1.2),
    ),
  ];
}

async function workingSets({ stage, rounds, meter }: Scene): Promise<Group> {
  const cold = (name: string, run: Contestant["run"]): Contestant => ({
    name,
    run: (round) => {
      stage.makeCold();
      return run(round);
    },
  });
  const contestants: Contestant[] = [];
  for (const image of ["plain", "zstd"] as const) {
    contestants.push(cold(`recorded, ${image}, cold`, () => stage.workingSet(image, true)));
    contestants.push({
      name: `recorded, ${image}, warm`,
      run: async () => {
        await stage.workingSet(image, true);
        return stage.workingSet(image, true);
      },
    });
    contestants.push(cold(`page by page, ${image}, cold`, () => stage.workingSet(image, false)));
  }
  contestants.push(cold("kernel's mmap of the raw file, cold", () => stage.mmap()));
  for (const image of ["plain", "zstd"] as const) {
    contestants.push({ name: `the disk alone, ${image}`, run: () => stage.disk(image) });
  }
  const series = await alternate(contestants, rounds, meter);
  const gain = (image: string, other: string, figure: string): number =>
    ratioOf(series, figure, other, `recorded, ${image}, cold`);
  const verdicts: Verdict[] = [];
  for (const image of ["plain", "zstd"]) {
    const mmap = "kernel's mmap of the raw file, cold";
    verdicts.push(atLeast(`${image}: kernel's mmap : recorded, both cold`, gain(image, mmap, "ms"), 20));
    const paging = `page by page, ${image}, cold`;
    verdicts.push(atLeast(`${image}: page by page : recorded, both cold`, gain(image, paging, "ms"), 30));
    const warm = ratioOf(series, "ms", `recorded, ${image}, cold`, `recorded, ${image}, warm`);
    verdicts.push(atMost(`${image}: recorded, cold : warm`, warm, 1.05));
  }
  const notes = [
    "from before the pager is started until the last page was touched; prepareThreads() was done before",
    `without the start: mmap : recorded plain ${gain("plain", "kernel's mmap of the raw file, cold", "touchMs").toFixed(1)}`,
  ];
  return {
    title: `a working set of ${(stage.set.count * 4096) / MIB} MiB, at random in ${stage.byteLength / MIB} MiB, touched in its order`,
    ...measured(series),
    columns: [
      { key: "startMs", title: "started ms", digits: 1 },
      { key: "ms", title: "all ms", digits: 1 },
      { key: "faults", title: "faults", digits: 0 },
    ],
    verdicts,
    notes,
  };
}

const HASHES = "half of the hashes of all of zstd, alone";

/** Restores of cold images beside the same by a pager that believes what it reads. */
async function verification({ stage, rounds, meter }: Scene): Promise<Group> {
  const believing = await unverified(stage, meter);
  const restores = {
    "recorded, plain": (on: RestoreStage) => on.workingSet("plain", true),
    "recorded, zstd": (on: RestoreStage) => on.workingSet("zstd", true),
    "all of zstd, installAll()": (on: RestoreStage) => on.lazy({ url: stage.urlOf("zstd") }, true),
  };
  const both = (name: string) => [`${name}, verified`, `${name}, believed`] as const;
  try {
    const contestants = Object.entries(restores).flatMap(([name, restore]): Contestant[] =>
      both(name).map((whose, index) => ({
        name: whose,
        run: async () => {
          stage.makeCold();
          const { ms, totalMs } = await restore(index === 0 ? stage : believing.stage);
          return { ms: ms ?? totalMs ?? Number.NaN };
        },
      })),
    );
    contestants.push({ name: HASHES, run: () => stage.halfOfHashes() });
    const series = await alternate(contestants, rounds, meter);
    const [, all] = both("all of zstd, installAll()");
    const floor = 1 + ratioOf(series, "ms", HASHES, all);
    return {
      title: "What verification adds to a cold restore",
      ...measured(series),
      columns: [{ key: "ms", title: "all ms", digits: 1 }],
      verdicts: Object.keys(restores).map((name) =>
        atMost(`cold, ${name}: verified : believed`, ratioOf(series, "ms", ...both(name)), 1.1),
      ),
      notes: [
        "believed: a copy of the product in which no hash of content is made",
        `all of zstd, if both CPUs had nothing to do for it but the hashes: ${floor.toFixed(2)}`,
      ],
    };
  } finally {
    believing.close();
  }
}
