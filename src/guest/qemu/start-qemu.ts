// Starts a QEMU that takes a saved machine: its control socket, post-copy, and a socket where it waits.
//
// The control socket listens before QEMU has been started, and QEMU inherits it: nobody has to try until it is there. It
// stays where it is as long as QEMU lives, for `minorfault qemu resume` and for whoever else has to talk to it.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MinorfaultError } from "../../base/errors.ts";
import { listen, local } from "../../linux/index.ts";
import { completeCommandLine } from "./command-line.ts";
import { QmpLine } from "./lifeline.ts";
import type { SavedMachine } from "./saved-machine.ts";

/** The number under which QEMU inherits its control socket. */
const QMP_FD = 3;
/** LIMIT: characters of what QEMU has said that are kept. */
const WORDS_MAX = 4096;
/** How long a QEMU that refuses something may take to say so and end. */
const LAST_WORDS_MS = 2000;

export interface StartedQemu {
  readonly child: ChildProcess;
  readonly line: QmpLine;
  readonly qmpPath: string;
  /** Where it waits for the machine. */
  readonly incoming: string;
  /** What was added to its command line. */
  readonly added: readonly string[];
  /** Its exit code, or 128 + the number of the signal. */
  readonly exited: Promise<number>;
  /** The error, with QEMU's own words if it has ended over it. */
  explain(error: unknown): Promise<unknown>;
  kill(): void;
}

export interface StartQemuOptions {
  /** QEMU has no terminal, and lives on when we end. */
  readonly isDetached?: boolean;
  readonly signal?: AbortSignal;
}

/** `line`: the program and its options. */
export async function startQemu(
  [program = "", ...given]: readonly string[],
  saved: SavedMachine,
  { isDetached = false, signal }: StartQemuOptions = {},
): Promise<StartedQemu> {
  const { arguments: options, added } = completeCommandLine(given, saved, QMP_FD);
  const folder = mkdtempSync(join(tmpdir(), "minorfault-qemu-"));
  const qmpPath = join(folder, "qmp");
  const forget = (): void => rmSync(folder, { recursive: true, force: true });
  const listening = listen(local, qmpPath);
  const own = isDetached ? "ignore" : "inherit";
  const child = spawn(program, options, { stdio: [own, own, "pipe", listening], detached: isDetached });
  local.call("close", listening);
  const qemu = new Child(program, child, isDetached, forget);
  try {
    const line = await QmpLine.open(qmpPath, { signal });
    const qmp = await line.client();
    await qmp.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "postcopy-ram", state: true }],
    });
    const incoming = `unix:${join(folder, "incoming")}`;
    await qmp.execute("migrate-incoming", { uri: incoming });
    return {
      child,
      line,
      qmpPath,
      incoming,
      added: [...added, "capability postcopy-ram", `control socket ${qmpPath}`],
      exited: qemu.exited,
      explain: (error) => qemu.explain(error),
      kill: () => qemu.kill(),
    };
  } catch (error) {
    const explained = await qemu.explain(error);
    qemu.kill();
    throw explained;
  }
}

class Child {
  readonly exited: Promise<number>;
  readonly #program: string;
  readonly #child: ChildProcess;
  #words = "";
  #failure: Error | undefined;
  #hasExited = false;

  constructor(program: string, child: ChildProcess, isQuiet: boolean, forget: () => void) {
    this.#program = program;
    this.#child = child;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#words = (this.#words + text).slice(-WORDS_MAX);
      if (!isQuiet) process.stderr.write(text);
    });
    this.exited = new Promise((resolve) => {
      child.once("error", (error) => {
        this.#failure = error;
        resolve(127);
      });
      // All that it has said has come by then.
      child.once("close", (code, signal) => resolve(code ?? (signal === null ? 1 : 128 + 15)));
    });
    void this.exited.then(() => {
      this.#hasExited = true;
      forget();
    });
  }

  async explain(error: unknown): Promise<unknown> {
    if (!this.#hasExited) await Promise.race([this.exited, later(LAST_WORDS_MS)]);
    if (!this.#hasExited) return error;
    if (this.#failure !== undefined) {
      return new MinorfaultError("ERR_QEMU", `${this.#program} cannot be started: ${this.#failure.message}`, {
        cause: this.#failure,
      });
    }
    const words = this.#words.trim();
    const said = words === "" ? "it gives no reason" : words;
    return new MinorfaultError("ERR_QEMU", `QEMU refused the machine: ${said}`, { cause: error });
  }

  kill(): void {
    if (!this.#hasExited) this.#child.kill("SIGKILL");
  }
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
