// npm run bench -- fault: how fast faults are served, beside the C handler of handler.c, as ratios, in one run.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { installEverything } from "./bulk.ts";
import { CHandlers } from "./c-handler.ts";
import { guests } from "./guests.ts";
import { image } from "./image.ts";
import { oneFaultAtATime, placements } from "./latency.ts";
import { LoadMeter, NOISE_MAX } from "./load.ts";
import { many } from "./many.ts";
import { QEMU_GROUPS, qemu } from "./qemu.ts";
import { type Group, isQuiet, printGroup, verdictText } from "./report.ts";
import { RESTORE_GROUPS, restore } from "./restore.ts";
import { server } from "./server.ts";
import { software } from "./software.ts";
import { Stand, warmMemory } from "./stand.ts";
import { touchMuch } from "./touch.ts";

const MIB = 1024 * 1024;
/** How long to wait for a quiet moment before each group. */
const QUIET_S = 20;
const RESULTS = "bench/results/fault.json";
/** Benchmarks that are one group of their own, and measured by one call. */
const ALONE = ["image", "restore", "memory", "many", "server", "qemu"] as const;

const HELP = `npm run bench -- fault|software|image|restore|memory|many|server|qemu [options]

fault      what serving page faults costs, side by side with the same handler in C, in alternating rounds;
           then how fast the software implementation is
software   the latter alone; runs anywhere
image      building an image beside zstd and sha256sum, reading it beside the codec alone; runs anywhere
restore    memory from an image as it is touched, beside reading all of it first; recorded working sets beside mmap
memory     lazy ArrayBuffers and WebAssembly memories beside the kernel's mappings; finding what was written
server     the page server beside handlers in C: first page, restores, a hundred at once, a pager that is killed
qemu       a saved machine that starts lazily beside QEMU's own -incoming, captures, recovery; needs QEMU
many       a thousand guests in one pager beside one, a pager that is disturbed, and what a guest costs

  --rounds N     rounds that count (default 5, of restore 3; one more before them for warmth)
  --quick        little memory and 3 rounds: to see that it works, not for figures
  --only GROUP   latency, placement, touch, bulk or software; of server: first, restore, many or kill;
                 of qemu: capture, restore, big, flat, waits or far; of restore: sets, verify, warm, cold, 1ms or 10ms
  --json FILE    where the results go (default ${RESULTS}; with --quick nowhere); with --only they
                 take the place of the same groups there
  --help

Needs a machine on which nobody else works; what others used is printed with each group.`;

const GROUPS = ["latency", "placement", "touch", "bulk", "software"] as const;
type Alone = (typeof ALONE)[number];
type GroupName = (typeof GROUPS)[number] | Alone;

type KernelGroup = Exclude<GroupName, "software" | Alone>;

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
  // Restores take long, and differ little from one another.
  const rounds = Number(values.rounds ?? (values.quick || what === "restore" ? 3 : 5));
  const names = namesOf(what, values.only);
  if (names === undefined || !Number.isInteger(rounds) || rounds < 1) {
    console.error(HELP);
    return 2;
  }
  const isWhole =
    !values.quick && ((isAlone(what) && values.only === undefined) || names.length === GROUPS.length);
  const results = isAlone(what) ? `bench/results/${what}.json` : RESULTS;
  const file = values.json ?? (isWhole ? results : undefined);
  const groups = await measure(names, rounds, values.quick, values.only);
  const missed = summarize(groups);
  if (file !== undefined) {
    mkdirSync(dirname(file), { recursive: true });
    const told = groups.map((group) => ({ ...group, quiet: isQuiet(group) }));
    // Of a benchmark that is measured in parts the other parts stay.
    const kept = values.only === undefined ? [] : groupsIn(file);
    const others = kept.filter(({ title }) => groups.every((group) => group.title !== title));
    const all = [...others, ...told];
    writeFileSync(file, `${JSON.stringify({ machine: machine(), rounds, groups: all }, null, 2)}\n`);
    console.log(`Results: ${file}`);
  }
  return missed === 0 && groups.every(isQuiet) ? 0 : 1;
}

function groupsIn(file: string): readonly Group[] {
  if (!existsSync(file)) return [];
  const { groups } = JSON.parse(readFileSync(file, "utf8")) as { readonly groups: readonly Group[] };
  return groups;
}

/** Prints what is met and what is missed; answers how many are missed. Groups that were not quiet are not counted. */
function summarize(groups: readonly Group[]): number {
  const verdicts = groups.filter(isQuiet).flatMap((group) => group.verdicts);
  const missed = verdicts.filter(({ met }) => !met);
  console.log(`\n${verdicts.length - missed.length} of ${verdicts.length} targets met`);
  for (const verdict of missed) console.log(`  ${verdictText(verdict)}`);
  const noisy = groups.filter((group) => !isQuiet(group));
  for (const { title, verdicts: open } of noisy) {
    console.log(`  not decided, the machine was not quiet: ${title} (${open.length} targets)`);
  }
  return missed.length;
}

/** The groups that are asked for; undefined when there is no such thing. */
function namesOf(what: string, only: string | undefined): readonly GroupName[] | undefined {
  if (what === "qemu") return only === undefined || QEMU_GROUPS.includes(only) ? [what] : undefined;
  if (what === "restore") return only === undefined || RESTORE_GROUPS.includes(only) ? [what] : undefined;
  if (isAlone(what)) return only === undefined || what === "server" ? [what] : undefined;
  const names = GROUPS.filter((name) => only === undefined || name === only);
  if (names.length === 0 || (what !== "fault" && what !== "software")) return undefined;
  return what === "fault" ? names : ["software"];
}

function isAlone(what: string): what is Alone {
  return ALONE.some((name) => name === what);
}

async function measure(
  names: readonly GroupName[],
  rounds: number,
  isQuick: boolean,
  only: string | undefined,
): Promise<Group[]> {
  const meter = new LoadMeter();
  const groups: Group[] = [];
  const add = async (run: () => Promise<readonly Group[]>): Promise<void> => {
    const load = await meter.quiet(isQuick ? 0 : QUIET_S);
    if (load.foreign + load.stolen > NOISE_MAX) {
      console.log("\nOthers are working on this machine: the figures that follow are not to be trusted");
    }
    for (const group of await run()) {
      printGroup(group);
      groups.push(group);
    }
  };
  const onKernel = names.filter((name): name is KernelGroup => name !== "software" && !isAlone(name));
  if (onKernel.length > 0) await measureKernel(onKernel, rounds, isQuick, meter, add);
  if (names.includes("image")) await add(() => image({ rounds, quick: isQuick, meter }));
  if (names.includes("restore")) await add(() => restore({ rounds, only, quick: isQuick, meter }));
  if (names.includes("many")) await add(() => many({ rounds, quick: isQuick, meter }));
  if (names.includes("qemu")) await qemu({ rounds, quick: isQuick, meter }, only, add);
  if (names.includes("memory")) await add(() => guests({ rounds, quick: isQuick, meter }));
  if (names.includes("server")) await server({ rounds, quick: isQuick, meter }, only, add);
  if (names.includes("software")) await add(() => software({ rounds, quick: isQuick, meter }));
  return groups;
}

/** The groups that need userfaultfd, a guest, and for comparison gcc. */
async function measureKernel(
  names: readonly KernelGroup[],
  rounds: number,
  isQuick: boolean,
  meter: LoadMeter,
  add: (run: () => Promise<readonly Group[]>) => Promise<void>,
): Promise<void> {
  const scale = isQuick ? 16 : 1;
  const big = (1024 * MIB) / scale;
  warmMemory(Math.min(3 * big, totalmem() / 2));
  const compiled = CHandlers.compile(meter);
  if (typeof compiled === "string") console.log(`No rows of C: ${compiled}`);
  const handlers = typeof compiled === "string" ? undefined : compiled;
  process.on("exit", () => handlers?.abandon());
  const stand = new Stand(big, meter);
  const shared = { stand, meter, handlers, rounds };
  const latency = { ...shared, fast: 16384 / scale, slow: 4096 / scale };
  const touch = { byteLength: big, partBytes: (64 * MIB) / scale, windows: [16, 128, 512], window: 128 };
  const run = {
    latency: () => oneFaultAtATime(latency),
    placement: () => placements(latency),
    touch: () => touchMuch({ ...shared, ...touch }),
    bulk: () => installEverything({ ...shared, byteLength: big }),
  };
  try {
    for (const name of names) await add(async () => [await run[name]()]);
  } finally {
    stand.close();
    await handlers?.close();
  }
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
