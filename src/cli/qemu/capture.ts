// `minorfault qemu capture`: an image of a running machine.

import { type Command, Option } from "@commander-js/extra-typings";
import {
  type CaptureMode,
  captureMachine,
  type MachineCaptureReport,
  QmpClient,
} from "../../guest/qemu/index.ts";
import { bytesText, msText, parseBytes } from "../bytes.ts";
import { chunkOption, jsonOf, levelOption, pair } from "../image/create.ts";
import { collect, runCommand } from "../image/verb.ts";

const EXAMPLES = `
The guest runs on while it is captured, but for a moment at the end (default), stands meanwhile (--stop), or runs all
the time and is captured as it was at the beginning (--background-snapshot). Whatever goes wrong, it goes on as before.

Examples:
  $ minorfault qemu capture --qmp vm.qmp images/vm
  $ minorfault qemu capture --qmp vm.qmp images/vm --stop --replace
  $ minorfault qemu capture --qmp vm.qmp s3://bucket/images/vm --background-snapshot --json`;

const LEFT = "the store is as it was, and so is the machine";

export function registerCapture(qemu: Command): void {
  qemu
    .command("capture")
    .description("captures a running machine into an image")
    .argument("<image>", "where to store it: folder/name or s3://bucket/prefix/name")
    .requiredOption("--qmp <socket>", "the machine's QMP socket")
    .addOption(new Option("--stop", "stop the guest meanwhile").conflicts("backgroundSnapshot"))
    .option("--background-snapshot", "let the guest run; the image is of the capture's beginning")
    .addOption(
      new Option("--leave-stopped", "the guest stays stopped when it has been captured").conflicts("quit"),
    )
    .option("--quit", "QEMU ends when it has been captured")
    .option("--bandwidth <size>", "bytes a second that QEMU may send", parseBytes)
    .option("--socket-folder <folder>", "where our socket lies, which QEMU connects to")
    .option("--temp <folder>", "where RAM is kept meanwhile, as large as it is")
    .addOption(levelOption())
    .addOption(chunkOption())
    .option("--note <name=text>", "a note, may be repeated", collect)
    .option("--replace", "replace an image of the same name")
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, options) =>
      runCommand("qemu capture", options, LEFT, async ({ signal, progress, image: find }) => {
        const { store, name } = await find(url);
        const qmp = await QmpClient.connect(options.qmp, { signal });
        try {
          const bar = progress("capturing");
          const report = await captureMachine(qmp, store, name, {
            mode: modeOf(options),
            after: options.quit ? "quit" : options.leaveStopped ? "stopped" : "as before",
            bytesPerSecond: options.bandwidth,
            socketFolder: options.socketFolder,
            temporaryFolder: options.temp,
            ...(options.level === "none" ? { codec: "none" as const } : { level: options.level }),
            ...(options.chunk !== undefined && { chunkBytes: options.chunk }),
            notes: Object.fromEntries((options.note ?? []).map((text) => pair("--note", text))),
            ifAbsent: !options.replace,
            signal,
            onProgress: (now) => bar.update(now),
          });
          return { json: jsonOf(report), text: textOf(url, report) };
        } finally {
          qmp.close();
        }
      }),
    );
}

function modeOf(options: { stop?: true | undefined; backgroundSnapshot?: true | undefined }): CaptureMode {
  return options.stop ? "stopped" : options.backgroundSnapshot ? "background-snapshot" : "running";
}

function textOf(url: string, report: MachineCaptureReport): string {
  const { manifest, chunks, writtenBytes, streamBytes, revisedBytes, downtimeMs, ms } = report;
  const newBytes = chunks.stored * manifest.chunkBytes;
  const share = ((100 * newBytes) / Math.max(1, manifest.byteLength)).toFixed(1);
  const machine = `${manifest.notes["qemu.machine"] ?? "machine"}, QEMU ${manifest.notes["qemu.version"]}`;
  return [
    `${url}: ${bytesText(manifest.byteLength)} of ${machine}, captured in ${msText(ms)}`,
    `  received ${bytesText(streamBytes)}${revisedBytes > 0 ? `, ${bytesText(revisedBytes)} of it a second time` : ""}`,
    `  new      ${bytesText(newBytes)}, ${share} % of the memory; ${bytesText(writtenBytes)} written`,
    ...(downtimeMs === undefined ? [] : [`  guest    stood for ${msText(downtimeMs)}`]),
  ].join("\n");
}
