// The command line: one program, one file a command, errors in one form and exit codes in one table.
//
// Results go to stdout, everything else to stderr. 0 ok, 1 failed, 2 usage, 3 environment, 4 source, 5 peer,
// 70 a bug, 128 + n ended by signal n.

import { Command, CommanderError } from "@commander-js/extra-typings";
import { MinorfaultError } from "../base/errors.ts";
import { packageVersion } from "../daemon/version.ts";
import { registerCompletion } from "./completion.ts";
import { registerDemo } from "./demo.ts";
import { registerDoctor } from "./doctor.ts";
import { registerGuest } from "./guest.ts";
import { registerGuests } from "./guests.ts";
import { registerImage } from "./image.ts";
import { registerMap } from "./map.ts";
import { registerQemu } from "./qemu.ts";
import { registerReport } from "./report.ts";
import { registerServe } from "./serve.ts";
import { registerServer } from "./server.ts";
import { paint } from "./terminal.ts";
import { registerTop } from "./top.ts";

const USAGE = 2;
const BUG = 70;

export function createProgram(): Command {
  const program = new Command("minorfault")
    .description("User-space paging: memory whose pages arrive when they are first touched")
    .version(packageVersion())
    .option("--debug", "print stack traces with errors")
    .exitOverride();
  registerDemo(program as unknown as Command);
  registerDoctor(program as unknown as Command);
  registerImage(program as unknown as Command);
  registerMap(program as unknown as Command);
  registerQemu(program as unknown as Command);
  registerServe(program as unknown as Command);
  for (const register of [registerGuests, registerGuest, registerServer, registerTop, registerReport]) {
    register(program as unknown as Command);
  }
  registerCompletion(program as unknown as Command);
  pointToHelp(program as unknown as Command, "minorfault");
  return program as unknown as Command;
}

/** Behind an error of usage stands whose help says more. */
function pointToHelp(command: Command, called: string): void {
  const says = command.commands.length > 0 ? "lists the commands" : "says what it takes";
  command.showHelpAfterError(`(${called} --help ${says})`);
  for (const each of command.commands) pointToHelp(each as Command, `${called} ${each.name()}`);
}

/** Runs a command line; returns the exit code, or undefined when the command has set its own. */
export async function runProgram(argv: readonly string[]): Promise<number | undefined> {
  const program = createProgram();
  try {
    await program.parseAsync(argv, { from: "user" });
    return undefined;
  } catch (error) {
    // Commander has printed its own message already; help and version are no failures.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE;
    return report(error, argv.includes("--debug"), argv.includes("--json"));
  }
}

/** Prints an error as people or programs want it, and gives its exit code. */
export function report(error: unknown, debug: boolean, json: boolean): number {
  const known = error instanceof MinorfaultError;
  const message = error instanceof Error ? error.message : String(error);
  if (json) {
    const { code, hint, errno, operation, address } = known
      ? error
      : ({ code: "ERR_BUG" } as Partial<MinorfaultError>);
    console.log(JSON.stringify({ error: { code, message, hint, errno, operation, address } }, null, 2));
  } else {
    console.error(`${paint("red", "error:", process.stderr)} ${message}`);
    if (known) console.error(`hint: ${error.hint}\ncode: ${error.code}`);
  }
  if (debug && error instanceof Error) console.error(error.stack, error.cause ?? "");
  return known ? error.exitCode : BUG;
}
