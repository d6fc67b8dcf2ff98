// `minorfault map`: a lazy memory over an image, a file or a URL, and a script of the user's that works on it.

import { constants } from "node:os";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Command, Option } from "@commander-js/extra-typings";
import { MinorfaultError } from "../base/errors.ts";
import {
  type LazyMemory,
  type MemoryImplementation,
  type MemoryMode,
  open,
  type StoredWorkingSet,
  storeWorkingSet,
} from "../guest/array-buffer/index.ts";
import { openImage } from "../image/index.ts";
import { bytesText, counted, msText, parseBytes } from "./bytes.ts";
import { endOnSignals } from "./ending.ts";

type Script = (memory: LazyMemory, ...args: string[]) => unknown;

interface MapOptions {
  readonly script: string;
  readonly mode: MemoryMode;
  readonly budget?: number | undefined;
  readonly implementation: MemoryImplementation;
  readonly record?: string | undefined;
  readonly json?: true | undefined;
  readonly quiet?: true | undefined;
}

const EXAMPLES = `
The script is a module whose default export is called with the memory and the arguments: memory.buffer is an
ArrayBuffer that loads as it is touched, memory.prefetch() and memory.read() bring ranges, memory.regions says what is
where. What it returns is printed.

Exit code: 0 ok, 1 the script failed, 2 usage, 3 environment, 4 source, 128 + n ended by signal n.

Examples:
  $ cat sum.mjs
  export default (memory, step) => {
    const bytes = new Uint8Array(memory.buffer);
    let sum = 0;
    for (let at = 0; at < bytes.length; at += Number(step)) sum += bytes[at];
    return sum;
  };
  $ minorfault map images/model --script sum.mjs 65536
  $ minorfault map s3://bucket/images/model --budget 512MiB --script sum.mjs 4096
  $ minorfault map images/model --record start --script start.mjs
  $ minorfault map table.bin --mode write-back --script fix.mjs --json`;

export function registerMap(program: Command): void {
  program
    .command("map")
    .description("opens a memory that loads as it is touched, and runs a script on it")
    .argument("<image>", "a file, folder/name, https://…/name or s3://bucket/prefix/name")
    .argument("[arguments...]", "passed to the script, as text")
    .requiredOption("--script <module>", "the module whose default export is called")
    .addOption(
      new Option("--mode <mode>", "whether the script may write, and what becomes of it")
        .choices(["read", "private", "write-back"] as const)
        .default("read" as const),
    )
    .option("--budget <size>", "how much may be resident, such as 512MiB; default: no limit", parseBytes)
    .addOption(
      new Option("--implementation <name>", "how pages come")
        .choices(["auto", "kernel", "mmap", "software"] as const)
        .default("auto" as const),
    )
    .option(
      "--record <name>",
      "store what the script touches as a working set of the image, in the place of one of that name",
    )
    .option("--json", "print what happened as JSON, behind whatever the script prints")
    .option("--quiet", "print only what the script prints and returns")
    .addHelpText("after", EXAMPLES)
    .action((target, args, options) => map(target, args, options));
}

async function map(target: string, args: readonly string[], options: MapOptions): Promise<void> {
  const run = await loadScript(options.script);
  const { mode, budget, implementation, record } = options;
  const began = performance.now();
  // Refused before anything is run.
  if (record !== undefined) await (await openImage(target)).close();
  const limit = budget === undefined ? {} : { budget };
  const memory = await open(target, { mode, implementation, trace: record !== undefined, ...limit });
  const openMs = performance.now() - began;
  const ending = endOnSignals();
  try {
    const ended = new Promise<"ended">((done) => {
      ending.signal.addEventListener("abort", () => done("ended"));
    });
    const work = Promise.resolve().then(() => run(memory, ...args));
    work.catch(() => undefined);
    const outcome = await Promise.race([work.then((result) => ({ result })), ended]);
    if (outcome === "ended") {
      await memory.close({ flush: false });
      process.stderr.write(`minorfault map: ended by ${ending.by}, nothing was written back\n`);
      process.exit(128 + constants.signals[ending.by!]);
    }
    const report = reportOf(memory, openMs, performance.now() - began - openMs);
    const traces = record === undefined ? [] : [memory.trace()];
    await memory.close();
    const workingSet =
      record === undefined ? undefined : await storeWorkingSet(target, record, traces, { replace: true });
    print({ ...report, workingSet }, outcome.result, options);
  } catch (error) {
    await memory.close({ flush: false });
    if (error instanceof MinorfaultError) throw error;
    // The script's own: its author wants to see where.
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exitCode = 1;
  } finally {
    ending.close();
  }
}

async function loadScript(path: string): Promise<Script> {
  const url = pathToFileURL(resolve(path)).href;
  let loaded: { readonly default?: unknown };
  try {
    loaded = (await import(url)) as { readonly default?: unknown };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `The script ${path} can't be loaded: ${reason}`, { cause });
  }
  if (typeof loaded.default === "function") return loaded.default as Script;
  throw new MinorfaultError("ERR_BAD_ARGUMENT", `The script ${path} has no function as its default export`, {
    hint: "export default (memory, ...args) => { … }",
  });
}

interface Report {
  readonly name: string;
  readonly how: LazyMemory["how"];
  readonly why: string;
  readonly mode: MemoryMode;
  readonly byteLength: number;
  readonly regions: LazyMemory["regions"];
  readonly openMs: number;
  readonly runMs: number;
  readonly resident: ReturnType<LazyMemory["resident"]>;
  readonly statistics: ReturnType<LazyMemory["statistics"]>;
  readonly workingSet?: StoredWorkingSet | undefined;
}

function reportOf(memory: LazyMemory, openMs: number, runMs: number): Report {
  const { name, how, why, mode, byteLength, regions } = memory;
  const [resident, statistics] = [memory.resident(), memory.statistics()];
  return { name, how, why, mode, byteLength, regions, openMs, runMs, resident, statistics };
}

function print(report: Report, result: unknown, { json, quiet }: MapOptions): void {
  if (json) {
    // A bigint has no JSON of its own.
    const plain = (_: string, value: unknown): unknown => (typeof value === "bigint" ? String(value) : value);
    process.stdout.write(`${JSON.stringify({ ...report, result }, plain, 2)}\n`);
    return;
  }
  if (result !== undefined) console.log(result);
  if (quiet) return;
  const { name, how, why, byteLength, openMs, runMs, resident, statistics, workingSet } = report;
  const { faults, bytesInstalled, bytesEvicted } = statistics;
  const served =
    how === "userfaultfd"
      ? `${counted(faults, "fault")}, ${bytesText(bytesInstalled)} loaded, ${bytesText(bytesEvicted)} evicted`
      : `${bytesText(resident.bytes)} in memory`;
  process.stderr.write(
    `${name}: ${bytesText(byteLength)} by ${how} (${why})\n` +
      `opened in ${msText(openMs)}, ran ${msText(runMs)}, ${served}\n`,
  );
  if (workingSet !== undefined) {
    const { name: set, pages, bytes } = workingSet;
    process.stderr.write(`working set ${set}: ${counted(pages, "page")}, ${bytesText(bytes)} stored\n`);
  }
}
