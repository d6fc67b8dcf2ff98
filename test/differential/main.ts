// `npm run differential -- --operations N [--seed S] [--json] [--against kernel]`: random programs on the kernel and on the
// software implementation, for as long as one likes. Exit code 1 when they differed.
//
// With `--corners` it says what programs are kept out of. With `--against kernel` the kernel is compared with itself, which must never differ: it proves that the programs
// keep out of what is chance.

import { release } from "node:os";
import { parseArgs } from "node:util";
import type { System } from "../../src/abi/system.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { KernelSystem } from "../../src/guest/process/index.ts";
import { raisePool } from "../../src/testing/conformance/pool.ts";
import { createSystem } from "../../src/uffd/software/index.ts";
import { type Campaign, campaign, report } from "./campaign.ts";
import { CORNERS } from "./corners.ts";

interface Options {
  readonly operations: number;
  readonly seed: number;
  readonly against: "software" | "kernel";
  readonly json: boolean;
  readonly corners: boolean;
  readonly help: boolean;
}

const USAGE =
  "usage: differential [--operations N] [--seed S] [--against software|kernel] [--json] | --corners [--json]";

const HELP = `${USAGE}

Random programs on the kernel and on the software implementation (or on the kernel twice), every result compared.
--corners lists what programs are kept out of, and why. Exit code 1 when they differed.

Examples:
  $ npm run differential -- --operations 1000000
  $ npm run differential -- --seed 7 --against kernel --json`;

function parse() {
  try {
    return parseArgs({
      options: {
        operations: { type: "string", default: "20000" },
        seed: { type: "string" },
        against: { type: "string", default: "software" },
        json: { type: "boolean", default: false },
        corners: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
  } catch (cause) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", cause instanceof Error ? cause.message : USAGE, {
      cause,
      hint: USAGE,
    });
  }
}

function options(): Options {
  const { values } = parse();
  const operations = Number(values.operations);
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  const { against, json, corners, help } = values;
  const usable = Number.isSafeInteger(operations) && operations > 0 && Number.isSafeInteger(seed);
  if (!usable || (against !== "software" && against !== "kernel")) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", USAGE);
  }
  return { operations, seed, against, json, corners, help };
}

async function run({ operations, seed, against, json }: Options): Promise<number> {
  const pool = raisePool();
  const names = ["kernel", against === "kernel" ? "kernel again" : "software"] as const;
  const kernel = new KernelSystem();
  const other: System = against === "kernel" ? new KernelSystem() : createSystem();
  const begin = performance.now();
  if (!json) console.error(`differential: seed ${seed}, Linux ${release()}`);
  let shown = begin;
  try {
    const result = await campaign([kernel, other], {
      operations,
      seed,
      huge: pool.missing === undefined,
      onProgress: (done) => {
        if (json || performance.now() - shown < 2000) return;
        shown = performance.now();
        console.error(`differential: ${done} of ${operations} operations`);
      },
    });
    const seconds = (performance.now() - begin) / 1000;
    if (json) console.log(JSON.stringify(toJson(result, seed, seconds), undefined, 2));
    else print(result, seconds, names);
    return result.found.every(({ chance }) => chance) ? 0 : 1;
  } finally {
    kernel.close();
    other.close();
    pool.restore();
  }
}

const byCount = (counts: ReadonlyMap<string, number>) => [...counts].sort(([, a], [, b]) => b - a);

function toJson({ operations, programs, counts, found }: Campaign, seed: number, seconds: number) {
  return {
    kernel: release(),
    seed,
    seconds,
    operations,
    programs,
    counts: Object.fromEntries(byCount(counts)),
    divergences: found,
  };
}

function print(result: Campaign, seconds: number, names: readonly [string, string]): void {
  for (const found of result.found) console.log(report(found, names));
  for (const [name, count] of byCount(result.counts)) console.log(`${String(count).padStart(8)}  ${name}`);
  const { operations, programs } = result;
  const found = result.found.filter(({ chance }) => !chance);
  const rate = Math.round(operations / seconds);
  console.log(
    `${operations} operations in ${programs} programs compared in ${seconds.toFixed(1)} s (${rate}/s): ` +
      `${found.length === 0 ? "no" : found.length} divergence${found.length === 1 ? "" : "s"}, ` +
      `${result.found.length - found.length} times the kernel differed from itself`,
  );
}

function printCorners(json: boolean): number {
  if (json) console.log(JSON.stringify(CORNERS, undefined, 2));
  else
    for (const { kernel, kept, because } of CORNERS) console.log(`${kept}\n    ${because} (Linux ${kernel})`);
  return 0;
}

try {
  const chosen = options();
  if (chosen.help) console.log(HELP);
  else process.exitCode = chosen.corners ? printCorners(chosen.json) : await run(chosen);
} catch (error) {
  if (!(error instanceof MinorfaultError)) throw error;
  console.error(`error: ${error.message}`);
  console.error(`hint: ${error.hint}`);
  process.exitCode = error.exitCode;
}
