// `minorfault qemu resume`: goes on with a machine whose memory was cut off.

import type { Command } from "@commander-js/extra-typings";
import { QmpLine, resumeMachine } from "../../guest/qemu/index.ts";
import { openImage } from "../../image/index.ts";
import { msText } from "../bytes.ts";
import { runCommand } from "../image/verb.ts";
import { missingLines } from "./missing-lines.ts";
import { movedText, patienceOption, rateOption, showing } from "./moving.ts";

const EXAMPLES = `
QEMU says itself which pages it has: nothing that the interrupted restore knew is needed but the image.

Examples:
  $ minorfault qemu resume images/vm --qmp vm.qmp
  $ minorfault qemu resume images/vm --qmp vm.qmp --listen tcp:127.0.0.1:4444`;

const LEFT = "the machine waits for its memory, and can be resumed again";

export function registerResume(qemu: Command): void {
  qemu
    .command("resume")
    .description("goes on where a restore was interrupted; the machine has waited (postcopy-paused)")
    .argument("<image>", "the image that it is restored from")
    .requiredOption("--qmp <socket>", "the machine's QMP socket")
    .option(
      "--listen <address>",
      "where QEMU is to listen: unix:PATH or tcp:HOST:PORT; default a socket of our own",
    )
    .addOption(rateOption())
    .addOption(patienceOption())
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, options) =>
      runCommand("qemu resume", options, LEFT, async ({ signal, progress }) => {
        await using image = await openImage(url);
        const line = await QmpLine.open(options.qmp, { signal });
        try {
          // Whoever kills us as well finds the line held again.
          await line.hold(image);
          const report = await resumeMachine({
            image,
            url,
            qmp: await line.client(),
            ...(options.listen !== undefined && { uri: options.listen }),
            ...(options.rate !== undefined && { pushBytesPerSecond: options.rate }),
            patienceMs: options.patience,
            signal,
            onProgress: showing(progress("moving")),
            onMissing: missingLines(image, options),
          });
          await line.end();
          const head = `${url}: served again after ${msText(report.recoveredMs)}`;
          return { json: { image: url, ...report }, text: [head, ...movedText(report)].join("\n") };
        } finally {
          await line.close();
        }
      }),
    );
}
