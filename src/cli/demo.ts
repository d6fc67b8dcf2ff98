// `minorfault demo`: restores a real memory image three ways and shows what each costs.

import { constants } from "node:os";
import { type Command, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { MinorfaultError } from "../base/errors.ts";
import { GUEST_KINDS } from "./demo/guest.ts";
import { Progress, SILENT } from "./demo/progress.ts";
import { reportOf } from "./demo/report.ts";
import { type DemoOptions, runDemo } from "./demo/run.ts";
import { renderResult } from "./demo/screen.ts";
import { exactSize, formatSize, parseSize } from "./demo/size.ts";
import { styleOf } from "./demo/style.ts";
import { endOnSignals } from "./ending.ts";

const SIZE_DEFAULT = 256 * 2 ** 20;
const FAULT_AROUND_DEFAULT = 16;
const FAULT_AROUND_MAX = 512;
const SEED_UNTIL = 2 ** 32;
/** The image, one guest's memory, and room for what it takes to run both. */
const COPIES = 2;
const ROOM_BYTES = 256 * 2 ** 20;

const EXAMPLES = `
Exit code: 0 every page was right, 1 some were wrong, 2 usage, 3 the guest asked for does not work here,
130 ended by Ctrl-C. Results go to stdout, progress to stderr.

Examples:
  $ minorfault demo
  $ minorfault demo --size 1GiB --guest process
  $ minorfault demo --json --seed 7 | jq '.restores[] | {name, firstByteMs, faults}'`;

export function registerDemo(program: Command): void {
  program
    .command("demo")
    .description("restores a real memory image three ways (eagerly, page by page, with fault-around)")
    .addOption(
      new Option("--size <size>", "bytes of memory, such as 64MiB or 1GiB")
        .argParser(parseSize)
        .default(SIZE_DEFAULT, exactSize(SIZE_DEFAULT)),
    )
    .addOption(
      new Option("--guest <kind>", "whose memory is restored; auto takes the first that works here")
        .choices(["auto", ...GUEST_KINDS])
        .default("auto" as const),
    )
    .addOption(
      new Option("--fault-around <pages>", "pages installed around a missing one: a power of two, 1 to 512")
        .argParser(parseFaultAround)
        .default(FAULT_AROUND_DEFAULT),
    )
    .addOption(
      new Option(
        "--seed <number>",
        "of the image's layout and of the random pages (default: another every time)",
      ).argParser(parseSeed),
    )
    .option("--json", "print the figures as JSON, and no progress")
    .option("--quiet", "print no progress")
    .addHelpText("after", EXAMPLES)
    .action(async ({ size, guest, faultAround, seed, json, quiet }) => {
      checkMemory(size);
      const options: DemoOptions = {
        byteLength: size,
        guest: guest as DemoOptions["guest"],
        faultAroundPages: faultAround,
        seed: seed ?? Math.floor(Math.random() * SEED_UNTIL),
      };
      await run(options, json ? "json" : quiet ? "quiet" : "talkative");
    });
}

async function run(options: DemoOptions, manner: "json" | "quiet" | "talkative"): Promise<void> {
  const ending = endOnSignals();
  const style = styleOf(process.stderr);
  const progress = manner === "talkative" ? new Progress(process.stderr, style) : undefined;
  try {
    if (progress !== undefined) {
      process.stderr.write(
        `minorfault demo: ${formatSize(options.byteLength)} of memory, restored three ways\n\n`,
      );
    }
    const result = await runDemo(options, progress ?? SILENT, ending.signal);
    progress?.close();
    if (progress !== undefined) process.stderr.write("\n");
    const text =
      manner === "json"
        ? JSON.stringify(reportOf(result), null, 2)
        : renderResult(result, styleOf(process.stdout));
    process.stdout.write(`${text}\n`);
    process.exitCode = result.right ? 0 : 1;
  } catch (error) {
    progress?.close();
    if (ending.by === undefined) throw error;
    process.stderr.write(`minorfault demo: ended by ${ending.by}, nothing is left behind\n`);
    process.exitCode = 128 + constants.signals[ending.by];
  } finally {
    ending.close();
  }
}

function parseFaultAround(text: string): number {
  const pages = Number(text);
  if (
    Number.isInteger(pages) &&
    pages >= 1 &&
    pages <= FAULT_AROUND_MAX &&
    Number.isInteger(Math.log2(pages))
  ) {
    return pages;
  }
  throw new InvalidArgumentError(`It is a power of two from 1 to ${FAULT_AROUND_MAX}.`);
}

function parseSeed(text: string): number {
  const seed = Number(text);
  if (/^\d+$/.test(text) && seed < SEED_UNTIL) return seed;
  throw new InvalidArgumentError(`It is an integer from 0 to ${SEED_UNTIL - 1}.`);
}

/** Refuses what would make the machine swap or kill something. */
function checkMemory(byteLength: number): void {
  const available = process.availableMemory();
  const needed = COPIES * byteLength + ROOM_BYTES;
  if (needed <= available) return;
  const unit = 2 ** 20;
  const most = Math.max(0, Math.floor((available - ROOM_BYTES) / COPIES / unit) * unit);
  throw new MinorfaultError(
    "ERR_OUT_OF_RANGE",
    `--size ${exactSize(byteLength)} needs ${formatSize(needed)} of memory (the image, one guest at a time, ` +
      `and some room), ${formatSize(available)} are available`,
    { byteLength, hint: `The most that fits now is --size ${exactSize(most)}` },
  );
}
