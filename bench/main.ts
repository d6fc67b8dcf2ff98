// npm run bench -- fault: how fast faults are served, beside the C handler of handler.c, as ratios, in one run.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { installEverything } from "./bulk.ts";
import { CHandlers } from "./c-handler.ts";
import { oneFaultAtATime, placements } from "./latency.ts";
import { LoadMeter } from "./load.ts";
import { type Group, printGroup, verdictText } from "./report.ts";
import { Stand, warmMemory } from "./stand.ts";
import { touchMuch } from "./touch.ts";

const MIB = 1024 * 1024;
const RESULTS = "bench/results/fault.json";

const HELP = `npm run bench -- fault [options]

Measures what serving page faults costs, side by side with the same handler in C, in alternating rounds.

  --rounds N     rounds that count (default 5; one more before them for warmth)
  --quick        little memory and 3 rounds: to see that it works, not for figures
  --only GROUP   latency, placement, touch or bulk
  --json FILE    where the results go (default ${RESULTS}; with --quick nowhere)
  --help

Needs a machine on which nobody else works; what others used is printed with each group.`;

const GROUPS = ["latency", "placement", "touch", "bulk"] as const;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: "string" },
      quick: { type: "boolean", default: false },
      only: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const [what = "fault"] = positionals;
  const rounds = Number(values.rounds ?? (values.quick ? 3 : 5));
  const isGroup = values.only === undefined || (GROUPS as readonly string[]).includes(values.only);
  if (what !== "fault" || !Number.isInteger(rounds) || rounds < 1 || !isGroup) {
    console.error(HELP);
    return 2;
  }
  const file = values.json ?? (values.quick || values.only !== undefined ? undefined : RESULTS);
  const groups = await fault(rounds, values.quick, values.only);
  const verdicts = groups.flatMap((group) => group.verdicts);
  const missed = verdicts.filter(({ met }) => !met);
  console.log(`\n${verdicts.length - missed.length} of ${verdicts.length} targets met`);
  for (const verdict of missed) console.log(`  ${verdictText(verdict)}`);
  if (file !== undefined) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${JSON.stringify({ machine: machine(), rounds, groups }, null, 2)}\n`);
    console.log(`Results: ${file}`);
  }
  return missed.length === 0 ? 0 : 1;
}

async function fault(rounds: number, isQuick: boolean, only: string | undefined): Promise<Group[]> {
  const scale = isQuick ? 16 : 1;
  const big = (1024 * MIB) / scale;
  warmMemory(Math.min(3 * big, totalmem() / 2));
  const meter = new LoadMeter();
  const compiled = CHandlers.compile(meter);
  if (typeof compiled === "string") console.log(`No rows of C: ${compiled}`);
  const handlers = typeof compiled === "string" ? undefined : compiled;
  process.on("exit", () => handlers?.abandon());
  const stand = new Stand(big, meter);
  const shared = { stand, meter, handlers, rounds };
  const latency = { ...shared, fast: 16384 / scale, slow: 4096 / scale };
  const run: Record<(typeof GROUPS)[number], () => Promise<Group>> = {
    latency: () => oneFaultAtATime(latency),
    placement: () => placements(latency),
    touch: () =>
      touchMuch({
        ...shared,
        byteLength: big,
        partBytes: (64 * MIB) / scale,
        windows: [16, 128, 512],
        window: 128,
      }),
    bulk: () => installEverything({ ...shared, byteLength: big }),
  };
  const groups: Group[] = [];
  try {
    for (const name of GROUPS) {
      if (only !== undefined && only !== name) continue;
      const load = await meter.quiet(isQuick ? 0 : 20);
      if (load.foreign + load.stolen > 0.15) console.log("Others are working on this machine.");
      const group = await run[name]();
      printGroup(group);
      groups.push(group);
    }
  } finally {
    stand.close();
    await handlers?.close();
  }
  return groups;
}

function machine(): Record<string, unknown> {
  const text = (path: string): string => {
    try {
      return readFileSync(path, "utf8").trim();
    } catch {
      return "unknown";
    }
  };
  const gcc = (): string => {
    try {
      return execFileSync("gcc", ["-dumpfullversion"], { encoding: "utf8" }).trim();
    } catch {
      return "none";
    }
  };
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model,
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
    hypervisor: text("/sys/hypervisor/type"),
    transparentHugePages: text("/sys/kernel/mm/transparent_hugepage/enabled"),
    node: process.version,
    gcc: gcc(),
  };
}

process.exitCode = await main();
