// `npm run conformance`: the cases, built in or from files, on the kernel, the software implementation, or both.

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { setImmediate } from "node:timers/promises";
import { Command, CommanderError, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { MinorfaultError } from "../../base/errors.ts";
import { CASES } from "./cases/index.ts";
import { type Case, parseCases, type SystemName } from "./parse.ts";
import { type Pool, raisePool } from "./pool.ts";
import { countLine, countResults, resultLines } from "./report.ts";
import { type CaseResult, type Profile, runCase } from "./run.ts";
import type { Need } from "./scope.ts";
import { hostLacks, openSystem } from "./systems.ts";

interface Options {
  readonly cases: readonly string[];
  readonly on: SystemName | "both";
  readonly only: readonly string[];
  readonly profile: Profile;
  readonly json?: true | undefined;
  readonly list?: true | undefined;
}

interface SystemReport {
  readonly system: SystemName;
  readonly ok: number;
  readonly failed: number;
  readonly skipped: number;
  readonly milliseconds: number;
  /** Why the whole system was left out. */
  readonly missing?: string;
  readonly results: readonly CaseResult[];
}

const EXAMPLES = `
Examples:
  $ npm run conformance -- --only C09
  $ npm run conformance -- --on kernel --only 'E*,F*'
  $ npm run conformance -- --cases my-cases.txt --on software

docs/cases.md describes the language. Exit code: 0 nothing failed, 1 something did, 2 bad usage or a bad case.`;

const program = new Command()
  .name("conformance")
  .description("holds the kernel and the software implementation to the cases of userfaultfd's behaviour")
  .option(
    "--cases <file>",
    "run the cases of this file instead of the built-in ones (repeatable)",
    collect,
    [],
  )
  .addOption(
    new Option("--on <system>", "where to run them")
      .choices(["kernel", "software", "both"] as const)
      .default("both" as const),
  )
  .option("--only <ids>", "ids separated by commas; * stands for anything", commas, [])
  .addOption(
    new Option("--profile <release>", "the kernel whose answers are expected")
      .choices(["linux-6.18", "linux-4.3"] as const)
      .default("linux-6.18" as const),
  )
  .option("--json", "print one object with counts and results")
  .option("--list", "print the cases and run nothing")
  .addHelpText("after", EXAMPLES)
  .exitOverride()
  .action((options) => main(options));

function collect(file: string, before: readonly string[]): string[] {
  return [...before, file];
}

function commas(ids: string, before: readonly string[]): string[] {
  const found = ids.split(",").map((id) => id.trim());
  if (found.includes(""))
    throw new InvalidArgumentError("It is ids such as C09 or 'E*', separated by commas.");
  return [...before, ...found];
}

async function main(options: Options): Promise<void> {
  const cases = chosen(options);
  if (options.list) {
    console.log(options.json ? JSON.stringify(cases.map(({ id, text }) => ({ id, text }))) : listing(cases));
    return;
  }
  const names: SystemName[] = options.on === "both" ? ["kernel", "software"] : [options.on];
  const reports: SystemReport[] = [];
  for (const name of names) reports.push(await report(name, cases, options));
  const failed = reports.some((one) => one.failed > 0);
  // Asked for one system by name, not having it is a failure; of both, the one that is there decides.
  const absent = reports.every((one) => one.missing !== undefined);
  if (options.json) console.log(JSON.stringify({ profile: options.profile, systems: reports }));
  process.exitCode = failed || absent ? 1 : 0;
}

function listing(cases: readonly Case[]): string {
  return cases.map((one) => one.text).join("\n");
}

function chosen({ cases, only }: Options): Case[] {
  const all = cases.length === 0 ? CASES : cases.flatMap(readCases);
  // Nothing that ran is no success: a misspelled id or an empty file would pass for ever.
  if (all.length === 0) throw new MinorfaultError("ERR_BAD_CASE", `There is no case in ${cases.join(", ")}`);
  if (only.length === 0) return [...all];
  const wanted = new Set<Case>();
  for (const id of only) {
    const pattern = new RegExp(`^${id.split("*").map(escaped).join(".*")}$`);
    const found = all.filter((one) => pattern.test(one.id));
    if (found.length === 0) {
      const hint = "--list prints the cases that there are; * stands for anything";
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `No case is called ${id}`, { hint });
    }
    for (const one of found) wanted.add(one);
  }
  return all.filter((one) => wanted.has(one));
}

/** npm runs scripts in the package's folder; INIT_CWD is where the user is. */
function readCases(file: string): Case[] {
  return parseCases(readFileSync(resolve(process.env.INIT_CWD ?? ".", file), "utf8"), file);
}

function escaped(text: string): string {
  return text.replace(/[.+?^${}()|[\]\\]/g, "\\$&");
}

async function report(name: SystemName, cases: readonly Case[], options: Options): Promise<SystemReport> {
  const start = performance.now();
  const opened = await openSystem(name, options.profile);
  if ("missing" in opened) {
    if (!options.json) console.log(`skip everything on ${name}: ${opened.missing}`);
    const none = { ok: 0, failed: 0, skipped: cases.length, milliseconds: 0, results: [] };
    return { system: name, ...none, missing: opened.missing };
  }
  const { pool, lacks } = host(name, cases);
  try {
    const results: CaseResult[] = [];
    for (const one of cases) {
      const result = runCase(opened.system, one, { profile: options.profile, lacks });
      results.push(result);
      if (!options.json) console.log(resultLines(result));
      // Cases run to their end in one go; an interrupt is heard in between.
      await setImmediate();
    }
    const counts = countResults(name, results);
    const milliseconds = performance.now() - start;
    if (!options.json) console.log(countLine(counts, milliseconds / 1000));
    return { ...counts, system: name, milliseconds, results };
  } finally {
    opened.system.close();
    pool?.restore();
  }
}

/** The real kernel's cases need its pool of huge pages; the software one has its own. */
function host(name: SystemName, cases: readonly Case[]): { pool?: Pool; lacks: Map<Need, string> } {
  if (name === "software") return { lacks: new Map() };
  const lacks = hostLacks();
  if (!cases.some((one) => one.needs.has("hugetlb"))) return { lacks };
  const pool = raisePool();
  if (pool.missing !== undefined) lacks.set("hugetlb", pool.missing);
  return { pool, lacks };
}

// A reader that has seen enough (`| head`) is no error; what is to be put back is put back on exit.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit();
  throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof Error)) throw error;
  // Commander has said what is wrong; help is nothing wrong.
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  console.error(`error: ${error.message}`);
  if (error instanceof MinorfaultError) console.error(`hint: ${error.hint} (${error.code})`);
  process.exitCode = error instanceof MinorfaultError ? error.exitCode : 2;
}
