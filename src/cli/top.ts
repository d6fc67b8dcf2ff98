// `minorfault top`: a page server as it is, again and again, in a terminal. Where there is none, one picture as plain text.
//
//   minorfault  ready   12 guests   1 240 faults/s   77.5 MiB/s   3 waiting            pager 4711
//   GUEST            IMAGE      MEMORY                           RESIDENT  FAULTS/S     P99  WAITS
//   vm-7             web        ████▓▓▒▒░░      ░░░░      ▒▒▒▒     12.5 %       310  9.1 µs      0

import type { Command } from "@commander-js/extra-typings";
import { InvalidArgumentError } from "@commander-js/extra-typings";
import type { Frame } from "../client/index.ts";
import { parseMs } from "./bytes.ts";
import { plain, type Style, styleOf } from "./demo/style.ts";
import { endOnSignals } from "./ending.ts";
import { rowsOf } from "./server/top-screen.ts";
import { openClient, WHERE_HELP, type Where, withWhere } from "./server/verb.ts";

const ALTERNATE_SCREEN = { on: "\x1b[?1049h\x1b[?25l", off: "\x1b[?25h\x1b[?1049l" } as const;
const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";
const ROWS_DEFAULT = 24;

interface TopOptions extends Where {
  readonly once?: true | undefined;
  readonly json?: true | undefined;
  readonly every?: number | undefined;
}

export function registerTop(program: Command): void {
  const command = program
    .command("top")
    .description("shows a page server and its guests in the terminal, as they change");
  withWhere(command)
    .option("--once", "print one picture and end; what happens where there is no terminal")
    .option("--json", "print the numbers of one picture")
    .option("--every <time>", "how often it is renewed, 1s by default", parseEvery)
    .addHelpText("after", `\nExamples:\n  $ minorfault top\n  $ minorfault top --once | head\n${WHERE_HELP}`)
    .action((options) => top(options));
}

async function top(options: TopOptions): Promise<void> {
  const isLive = process.stdout.isTTY === true && options.once === undefined && options.json === undefined;
  const client = await openClient(options);
  const ending = endOnSignals();
  const { signal } = ending;
  const everyMs = options.every ?? 1000;
  let before: Frame | undefined;
  try {
    for await (const frame of client.watch({ everyMs: isLive ? everyMs : 200, signal })) {
      if (options.json) {
        process.stdout.write(`${JSON.stringify(frame, null, 2)}\n`);
        return;
      }
      // One look has no rates: a picture on its own takes two.
      if (!isLive && before === undefined) before = frame;
      else if (!isLive) {
        process.stdout.write(
          `${picture(frame, before, styleOf(process.stdout), Number.POSITIVE_INFINITY).join("\n")}\n`,
        );
        return;
      } else {
        show(frame, before);
        before = frame;
      }
    }
  } catch (error) {
    if (ending.by === undefined) throw error;
  } finally {
    if (isLive && before !== undefined) process.stdout.write(ALTERNATE_SCREEN.off);
    ending.close();
  }
}

function show(frame: Frame, before: Frame | undefined): void {
  const rows = (process.stdout.rows ?? ROWS_DEFAULT) - 1;
  const lines = picture(frame, before, styleOf(process.stdout), rows);
  const start = before === undefined ? ALTERNATE_SCREEN.on : "";
  process.stdout.write(
    `${start}${HOME}${lines.map((line) => `${line}${CLEAR_LINE}\n`).join("")}${CLEAR_BELOW}`,
  );
}

function picture(frame: Frame, before: Frame | undefined, style: Style, rows: number): string[] {
  return rowsOf(frame, before, style, rows).map((line) => plain(line, style));
}

function parseEvery(text: string): number {
  const ms = parseMs(text);
  if (ms >= 100 && ms <= 60_000) return ms;
  throw new InvalidArgumentError("From 100ms to 60s.");
}
