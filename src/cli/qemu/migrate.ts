// `minorfault qemu migrate`: moves a running machine into another QEMU, by way of an image.

import type { Command } from "@commander-js/extra-typings";
import { MinorfaultError } from "../../base/errors.ts";
import { migrateMachine, QmpLine, readMachine, type StartedQemu, startQemu } from "../../guest/qemu/index.ts";
import { openImage } from "../../image/index.ts";
import { bytesText, msText, parseBytes } from "../bytes.ts";
import { runCommand, type Work } from "../image/verb.ts";
import { movedText, patienceOption, rateOption } from "./moving.ts";
import { restoreInto, type Target } from "./restore.ts";

const EXAMPLES = `
The machine runs while its memory goes into the image, stands for what it changed last, and runs in the other QEMU before
its memory has come there. An image of it that was captured before makes this faster. If the other QEMU refuses it, it
goes on where it was.

Examples:
  $ minorfault qemu migrate images/vm --qmp here.qmp --incoming unix:there.incoming --to-qmp there.qmp
  $ minorfault qemu migrate images/vm --qmp here.qmp -- qemu-system-x86_64 -m 1G -display none`;

const LEFT = "the machine goes on where it was, or waits for its memory where it is";

interface Options {
  readonly qmp: string;
  readonly incoming?: string | undefined;
  readonly toQmp?: string | undefined;
  readonly bandwidth?: number | undefined;
  readonly rate?: number | undefined;
  readonly patience?: number | undefined;
  readonly keep?: true | undefined;
  readonly json?: true | undefined;
  readonly quiet?: true | undefined;
}

export function registerMigrate(qemu: Command): void {
  qemu
    .command("migrate")
    .description("moves a running machine into another QEMU, by way of an image")
    .argument("<image>", "where its memory goes: folder/name or s3://bucket/prefix/name")
    .argument("[qemu...]", "behind --: the QEMU to start")
    .requiredOption("--qmp <socket>", "the running machine's QMP socket")
    .option("--incoming <address>", "of a QEMU that waits: unix:PATH or tcp:HOST:PORT")
    .option("--to-qmp <socket>", "its QMP socket")
    .option("--bandwidth <size>", "bytes a second that the running machine may send", parseBytes)
    .addOption(rateOption())
    .addOption(patienceOption())
    .option("--keep", "the old QEMU stays, stopped; default: it ends")
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, line, options: Options) =>
      runCommand("qemu migrate", options, LEFT, (tools) => migrate(url, line, options, tools)),
    );
}

async function migrate(
  url: string,
  line: readonly string[],
  options: Options,
  tools: Work,
): Promise<{ json: unknown; text: string }> {
  const { qmp, incoming, toQmp, bandwidth, keep } = options;
  if ((incoming === undefined) === (line.length === 0)) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      "Either --incoming names a QEMU that waits, or -- starts one",
    );
  }
  const { signal } = tools;
  const { store, name } = await tools.image(url);
  const source = await QmpLine.open(qmp, { signal });
  let target: Target | undefined;
  try {
    const bar = tools.progress("capturing");
    const report = await migrateMachine({
      source: await source.client(),
      store,
      name,
      capture: { bytesPerSecond: bandwidth, signal, onProgress: (now) => bar.update(now) },
      restore: async (onState) => {
        await using image = await openImage(url);
        const machine = await readMachine(image, signal);
        const start = () => startQemu(line, machine.machine, { isDetached: true });
        target = await targetOf(incoming, toQmp, start, signal);
        return await restoreInto(url, image, machine, target, { ...options, record: false, onState }, tools);
      },
      isGone: async () => target?.started !== undefined && (await hasEnded(target.started)),
    });
    await target?.line?.end();
    if (!keep) await (await source.client()).execute("quit").catch(() => {});
    const { capture, restore, downtimeMs } = report;
    const started = target?.started;
    letGo(started);
    return {
      json: {
        image: url,
        downtimeMs,
        capture: { ms: capture.ms, streamBytes: capture.streamBytes, writtenBytes: capture.writtenBytes },
        restore,
        ...(started !== undefined && { pid: started.child.pid, qmp: started.qmpPath, added: started.added }),
      },
      text: [
        `${url}: moved; nobody ran the machine for ${msText(downtimeMs)}`,
        `  captured ${bytesText(capture.streamBytes)} in ${msText(capture.ms)}, ${bytesText(capture.writtenBytes)} written`,
        ...movedText(restore),
      ].join("\n"),
    };
  } finally {
    await target?.line?.close();
    await source.close();
  }
}

async function targetOf(
  incoming: string | undefined,
  toQmp: string | undefined,
  start: () => Promise<StartedQemu>,
  signal: AbortSignal,
): Promise<Target> {
  if (incoming !== undefined) {
    const other = toQmp === undefined ? undefined : await QmpLine.open(toQmp, { signal });
    return { uri: incoming, line: other, started: undefined };
  }
  const started = await start();
  return { uri: started.incoming, line: started.line, started };
}

/** A QEMU that was ended because it refused the machine. */
async function hasEnded({ exited }: StartedQemu): Promise<boolean> {
  await exited;
  return true;
}

function letGo(started: StartedQemu | undefined): void {
  started?.child.stderr?.destroy();
  started?.child.unref();
}
