// `minorfault qemu restore`: starts a captured machine in a QEMU, before its memory has come.

import type { Command } from "@commander-js/extra-typings";
import { MinorfaultError } from "../../base/errors.ts";
import {
  connectTo,
  PagePool,
  QmpLine,
  type RestorableMachine,
  type RestoreOptions,
  type RestoreReport,
  readFirst,
  readMachine,
  reconnect,
  restoreMachine,
  type SourceState,
  type StartedQemu,
  startQemu,
  WORKING_SET,
} from "../../guest/qemu/index.ts";
import { addWorkingSet, type Image, openImage } from "../../image/index.ts";
import { type ObjectStore, splitImageUrl } from "../../source/index.ts";
import { counted, msText, parseMs } from "../bytes.ts";
import { runCommand, type Work } from "../image/verb.ts";
import { missingLines } from "./missing-lines.ts";
import { movedText, pageSizesOf, patienceOption, rateOption, showing } from "./moving.ts";

const EXAMPLES = `
The guest runs after milliseconds; pages that it asks for come first, all others follow. The first run records which
pages those are (working set "${WORKING_SET}"), every later one sends them ahead.

QEMU has the command line of the machine that was captured, and either waits (-incoming defer, capability postcopy-ram,
migrate-incoming), or is started: what is missing from its command line is added, and said.

Examples:
  $ minorfault qemu restore images/vm -- qemu-system-x86_64 -m 1G -nographic
  $ minorfault qemu restore images/vm --incoming unix:vm.incoming --qmp vm.qmp
  $ minorfault qemu restore https://host/images/vm --incoming tcp:127.0.0.1:4444 --rate 200MiB`;

const LEFT = "a machine that runs already waits for its memory: `minorfault qemu resume` goes on";

interface Options {
  readonly incoming?: string | undefined;
  readonly qmp?: string | undefined;
  readonly workingSet?: string | false | undefined;
  readonly record?: boolean | undefined;
  readonly recordFor?: number | undefined;
  readonly neighbours?: boolean | undefined;
  readonly rate?: number | undefined;
  readonly patience?: number | undefined;
  readonly onState?: (state: SourceState) => void;
  readonly detach?: true | undefined;
  readonly json?: true | undefined;
  readonly quiet?: true | undefined;
}

/** Where a machine goes. */
export interface Target {
  readonly uri: string;
  /** Its control socket, without which nothing is checked beforehand and no lost connection is made again. */
  readonly line: QmpLine | undefined;
  readonly started: StartedQemu | undefined;
  /** Threads that read what nobody has asked for, if they have been started. */
  readonly pool?: PagePool;
}

export function registerRestore(qemu: Command): void {
  qemu
    .command("restore")
    .description("starts a captured machine in a QEMU, before its memory has come")
    .argument("<image>", "folder/name, https://…/name or s3://bucket/prefix/name")
    .argument("[qemu...]", "behind --: the QEMU to start")
    .option("--incoming <address>", "of a QEMU that waits: unix:PATH or tcp:HOST:PORT")
    .option(
      "--qmp <socket>",
      "its QMP socket: to compare it with the image first, and to recover a lost connection",
    )
    .option("--working-set <name>", `what is sent ahead (default: "${WORKING_SET}" if the image has it)`)
    .option("--no-working-set", "send nothing ahead")
    .option("--record", "record the pages that are asked for first, even if a working set is sent ahead")
    .option("--no-record", "do not record them")
    .option("--record-for <time>", "how long; default until the guest rests", parseMs)
    .option("--no-neighbours", "a page that is asked for comes alone, not with its chunk")
    .addOption(rateOption())
    .addOption(patienceOption())
    .option("--detach", "QEMU runs on its own, without a terminal; end when it has everything")
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, line, options: Options) =>
      runCommand("qemu restore", options, LEFT, (tools) => restore(url, line, options, tools)),
    );
}

async function restore(
  url: string,
  line: readonly string[],
  options: Options,
  tools: Work,
): Promise<{ json: unknown; text: string; exitCode?: number }> {
  if ((options.incoming === undefined) === (line.length === 0)) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      "Either --incoming names a QEMU that waits, or -- starts one",
    );
  }
  // While QEMU is started: they take as long.
  const pool = new PagePool();
  try {
    return await restoreWith(pool, url, line, options, tools);
  } finally {
    await pool.close();
  }
}

async function restoreWith(
  pool: PagePool,
  url: string,
  line: readonly string[],
  options: Options,
  tools: Work,
): Promise<{ json: unknown; text: string; exitCode?: number }> {
  await using image = await openImage(url, { ahead: readFirst(options.workingSet) });
  const machine = await readMachine(image, tools.signal);
  const report = (target: Target): Promise<RestoreReport> =>
    restoreInto(url, image, machine, target, options, tools);
  if (options.incoming !== undefined) {
    const { incoming: uri, qmp } = options;
    const line = qmp === undefined ? undefined : await QmpLine.open(qmp, { signal: tools.signal });
    try {
      const done = await report({ uri, line, started: undefined, pool });
      await line?.end();
      return { json: jsonOf(url, done), text: textOf(url, done) };
    } finally {
      await line?.close();
    }
  }
  const isDetached = options.detach ?? false;
  const started = await startQemu(line, machine.machine, { isDetached, signal: tools.signal });
  if (!options.quiet && !options.json) {
    for (const added of started.added) process.stderr.write(`added to QEMU: ${added}\n`);
  }
  const done = await report({ uri: started.incoming, line: started.line, started, pool });
  await pool.close();
  await started.line.end();
  const outcome = { json: jsonOf(url, done, started), text: textOf(url, done) };
  if (isDetached) {
    letGo(started);
    return outcome;
  }
  if (!options.json && !options.quiet) process.stderr.write(`${outcome.text}\n`);
  return { json: outcome.json, text: "", exitCode: await started.exited };
}

export async function restoreInto(
  url: string,
  image: Image,
  machine: RestorableMachine,
  { uri, line, started, pool }: Target,
  options: Options,
  tools: Work,
): Promise<RestoreReport> {
  let hasRun = false;
  try {
    const pageSizes = line === undefined ? undefined : await pageSizesOf(line, machine.machine);
    await line?.hold(image);
    const report = await restoreMachine({
      image,
      url,
      pool,
      machine,
      ...restoreOptions(options),
      ...(pageSizes !== undefined && { pageSizes }),
      ...(line !== undefined && {
        reconnect: async (signal) => reconnect(await line.client(), signal),
      }),
      connect: (signal) => connectTo(uri, signal),
      signal: tools.signal,
      patienceMs: options.patience,
      onProgress: showing(tools.progress("moving")),
      onMissing: missingLines(image, options),
      onState: (state) => {
        hasRun ||= state === "running";
        options.onState?.(state);
      },
    });
    if (report.touched !== undefined) await keepWorkingSet(url, report.touched, tools);
    return report;
  } catch (error) {
    if (started === undefined) throw error;
    // One that has run waits for its memory, and can be resumed. One that has not is not asked where the image is to blame.
    const isImage = error instanceof MinorfaultError && error.kind === "source";
    const explained = hasRun || isImage ? error : await started.explain(error);
    if (!hasRun) started.kill();
    throw explained;
  }
}

function restoreOptions(options: Options): Partial<RestoreOptions> {
  const { workingSet, record, recordFor, neighbours, rate } = options;
  return {
    ...(workingSet !== undefined && { replay: workingSet }),
    ...(record !== undefined && { record }),
    ...(recordFor !== undefined && { recordMs: recordFor }),
    ...(neighbours === false && { neighbours }),
    ...(rate !== undefined && { pushBytesPerSecond: rate }),
  };
}

/** Stores what was recorded with the image. A store that can only be read is no failure of the restore. */
async function keepWorkingSet(
  url: string,
  touched: readonly number[],
  { store, signal }: Work,
): Promise<void> {
  if (touched.length === 0) return;
  const { store: storeUrl, name } = splitImageUrl(url);
  try {
    const target: ObjectStore = await store(storeUrl);
    await addWorkingSet(target, name, WORKING_SET, touched, { replace: true, signal });
  } catch (error) {
    if (!(error instanceof MinorfaultError)) throw error;
    process.stderr.write(`The working set was not stored: ${error.message}\n`);
  }
}

function letGo({ child }: StartedQemu): void {
  child.stderr?.destroy();
  child.unref();
}

function jsonOf(url: string, { touched, ...report }: RestoreReport, started?: StartedQemu): unknown {
  return {
    image: url,
    ...report,
    ...(touched !== undefined && { recordedPages: touched.length }),
    ...(started !== undefined && { pid: started.child.pid, qmp: started.qmpPath, added: started.added }),
  };
}

function textOf(url: string, report: RestoreReport): string {
  const { runningMs, replayed, touched } = report;
  return [
    `${url}: the guest ran after ${msText(runningMs)}`,
    ...(replayed === undefined
      ? []
      : [`  ahead    working set ${replayed.name}, sent after ${msText(replayed.ms)}`]),
    ...(replayed?.error === undefined ? [] : [`  but      ${replayed.error}`]),
    ...movedText(report),
    ...(touched === undefined
      ? []
      : [`  recorded ${counted(touched.length, "page")} as working set ${WORKING_SET}`]),
  ].join("\n");
}
