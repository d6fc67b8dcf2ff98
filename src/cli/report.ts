// `minorfault report`: what happened in one restore, as a single HTML file.

import { writeFileSync } from "node:fs";
import type { Command } from "@commander-js/extra-typings";
import { MinorfaultError } from "../base/errors.ts";
import { bytesText } from "./bytes.ts";
import { idOf } from "./guest.ts";
import { runVerb, WHERE_HELP, withManner } from "./server/verb.ts";

export function registerReport(program: Command): void {
  const command = program
    .command("report")
    .description("writes what happened in the restore of a guest as a single HTML file")
    .argument("<guest>", "its id, also of one that has ended lately, or its name");
  withManner(command)
    .option("-o, --out <file>", "where to; - is stdout. Default: <guest>.html")
    .addHelpText(
      "after",
      `\nExamples:\n  $ minorfault report vm-7\n  $ minorfault report vm-7 --out restore.html\n${WHERE_HELP}`,
    )
    .action((guest, options) =>
      runVerb("report", options, async (client, signal) => {
        const { reportHtml } = await import("../daemon/page/report.ts");
        const id = await known(client, guest, signal);
        const history = await client.guestHistory({ id }, { signal });
        const { version } = await client.health({}, { signal });
        const html = reportHtml(history, version);
        if (options.out === "-") {
          return { json: history, text: html.trimEnd() };
        }
        const name = (history.name ?? history.id).replace(/[^A-Za-z0-9._-]/g, "_");
        const path = options.out ?? `${name}.html`;
        write(path, html);
        return {
          json: { path, byteLength: Buffer.byteLength(html) },
          text: `${path}: ${bytesText(html.length)}`,
        };
      }),
    );
}

/** Also the name of a guest that has ended. */
async function known(
  client: import("../client/index.ts").Client,
  given: string,
  signal: AbortSignal,
): Promise<string> {
  const id = await idOf(client, given, signal);
  if (id !== given) return id;
  for await (const { guests, ended } of client.watch({ signal })) {
    if (guests.some((guest) => guest.id === given)) return given;
    return ended.find((guest) => guest.id === given || guest.name === given)?.id ?? given;
  }
  return given;
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `The report cannot be written to ${path}: ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
}
