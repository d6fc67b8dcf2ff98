// `minorfault guests`: who is being served, and who is expected.

import type { Command } from "@commander-js/extra-typings";
import { bytesText, msText } from "./bytes.ts";
import { columns, runVerb, WHERE_HELP, withManner } from "./server/verb.ts";

const EXAMPLES = `
Examples:
  $ minorfault guests
  $ minorfault guests --image web --json | jq '.guests[].id'
${WHERE_HELP}`;

export function registerGuests(program: Command): void {
  const command = program.command("guests").description("lists the guests of a page server");
  withManner(command)
    .option("--image <name>", "only those of this image")
    .addHelpText("after", EXAMPLES)
    .action((options) =>
      runVerb("guests", options, async (client, signal) => {
        const json = await client.listGuests({ image: options.image }, { signal });
        return { json, text: textOf(json) };
      }),
    );
}

type Listed = Awaited<ReturnType<import("../client/index.ts").Client["listGuests"]>>;

function textOf({ guests, expected }: Listed): string {
  if (guests.length + expected.length === 0) return "no guests";
  const now = Date.now();
  const heads = ["ID", "NAME", "IMAGE", "STATE", "PID", "RESIDENT", "OF", "FAULTS", "P99 US", "AGE"];
  const rows = guests.map(
    ({ id, name = "-", image, state, pid, residentBytes, byteLength, statistics, since }) => [
      id,
      name,
      image,
      state,
      String(pid),
      bytesText(residentBytes),
      bytesText(byteLength),
      String(statistics.faults),
      statistics.latencyUs.p99.toFixed(1),
      msText(now - Date.parse(since)),
    ],
  );
  const coming = expected.map(({ id, name = "-", image, until }) => [
    id,
    name,
    image,
    "expected",
    "-",
    "-",
    "-",
    "-",
    "-",
    `for ${msText(Math.max(0, Date.parse(until) - now))}`,
  ]);
  return columns([heads, ...rows, ...coming], [4, 5, 6, 7, 8, 9]);
}
