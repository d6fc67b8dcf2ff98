// What all commands that ask a page server have in common: where it is, --json and --quiet, Ctrl-C.

import { readFileSync } from "node:fs";
import { constants } from "node:os";
import type { Command, OptionValues } from "@commander-js/extra-typings";
import { MinorfaultError } from "../../base/errors.ts";
import type { Client, ClientOptions } from "../../client/index.ts";
import { endOnSignals } from "../ending.ts";

export interface Where {
  readonly folder?: string | undefined;
  readonly control?: string | undefined;
  readonly url?: string | undefined;
  readonly tokenFile?: string | undefined;
}

export interface Manner extends Where {
  readonly json?: true | undefined;
  readonly quiet?: true | undefined;
}

export interface Outcome {
  /** What --json prints. */
  readonly json: unknown;
  /** What is printed otherwise. */
  readonly text: string;
  readonly exitCode?: number;
}

export const WHERE_HELP = `
Where the server is: --folder, $MINORFAULT_FOLDER, /run/minorfault (root) or $XDG_RUNTIME_DIR/minorfault.
Over TCP: --url http://127.0.0.1:PORT with --token-file.`;

/** The options that every such command has, added to a command. */
export function withWhere<Arguments extends unknown[], Options extends OptionValues>(
  command: Command<Arguments, Options>,
): Command<Arguments, Options & Where> {
  return command
    .option("--folder <folder>", "the server's folder")
    .option("--control <socket>", "the server's control socket, where it is not in its folder")
    .option("--url <url>", "http://127.0.0.1:PORT instead of a socket")
    .option("--token-file <file>", "a file with the token that --url needs") as unknown as Command<
    Arguments,
    Options & Where
  >;
}

/** As withWhere, with --json and --quiet. */
export function withManner<Arguments extends unknown[], Options extends OptionValues>(
  command: Command<Arguments, Options>,
): Command<Arguments, Options & Manner> {
  return withWhere(command)
    .option("--json", "print the result as JSON")
    .option("--quiet", "print nothing but errors") as unknown as Command<Arguments, Options & Manner>;
}

export async function openClient(where: Where): Promise<Client> {
  const { createClient } = await import("../../client/index.ts");
  const { controlPath, defaultFolder } = await import("../../daemon/folder.ts");
  const { url, tokenFile, control, folder } = where;
  if (url === undefined) return createClient({ socket: control ?? controlPath(folder ?? defaultFolder()) });
  const options: ClientOptions = { url, ...(tokenFile === undefined ? {} : { token: readToken(tokenFile) }) };
  return createClient(options);
}

function readToken(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (cause) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `The token file ${path} cannot be read`, { cause });
  }
}

/** Runs a command against a server. `left` says what an interruption leaves behind. */
export async function runVerb(
  name: string,
  manner: Manner,
  work: (client: Client, signal: AbortSignal) => Promise<Outcome>,
  left = "nothing has changed",
): Promise<void> {
  const ending = endOnSignals();
  try {
    const outcome = await work(await openClient(manner), ending.signal);
    if (manner.json) process.stdout.write(`${JSON.stringify(outcome.json, null, 2)}\n`);
    else if (!manner.quiet && outcome.text !== "") process.stdout.write(`${outcome.text}\n`);
    process.exitCode = outcome.exitCode ?? 0;
  } catch (error) {
    if (ending.by === undefined) throw error;
    process.stderr.write(`minorfault ${name}: ended by ${ending.by}, ${left}\n`);
    process.exitCode = 128 + constants.signals[ending.by];
  } finally {
    ending.close();
  }
}

/** Lines in columns: all but the last as wide as their widest; numbers to the right. */
export function columns(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths = rows.reduce<number[]>(
    (most, row) => row.map((cell, index) => Math.max(most[index] ?? 0, cell.length)),
    [],
  );
  return rows
    .map((row) =>
      row
        .map((cell, index) =>
          right.includes(index) ? cell.padStart(widths[index]!) : cell.padEnd(widths[index]!),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
