// A process that does nothing but hold the line to QEMU's control socket, so that a machine can be resumed when whoever
// restored it has been killed.
//
//   before   QEMU ◀── QMP ──▶ restore          after a SIGKILL   QEMU ◀── QMP ──▶ lifeline ◀──▶ resume
//
// A QEMU whose main thread stands at a missing page greets nobody any more: a new connection would never be agreed on.
// One that was agreed on before still takes commands out of band, and migrate-recover is one. So the line is handed to
// a process that parses no image, touches no page and needs no network, and everybody speaks through that. It also
// keeps what the machine is being restored from: of another image no page may follow.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { lstatSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { MinorfaultError } from "../../base/errors.ts";
import type { Image } from "../../image/index.ts";
import { listen, local } from "../../linux/index.ts";
import { QmpClient, type QmpOptions } from "./qmp.ts";

/** The command that ends it; QEMU has none of that name. */
export const END = "minorfault-end";

/** What the greeting of whoever holds a line has beside QEMU's own: the SHA-256 of the image's root index. */
const CONTENT = "minorfault-content";

const PROGRAM = fileURLToPath(new URL("./lifeline-worker.js", import.meta.url));

/** A line to a QEMU: direct, until somebody else is to hold it. */
export class QmpLine {
  readonly #path: string;
  readonly #options: QmpOptions;
  #client: Promise<QmpClient>;
  #isHeld: boolean;

  private constructor(path: string, options: QmpOptions, client: QmpClient, isHeld: boolean) {
    this.#path = path;
    this.#options = options;
    this.#client = Promise.resolve(client);
    this.#isHeld = isHeld;
  }

  /** The line that somebody holds already, or a new one. */
  static async open(qmpPath: string, options: QmpOptions = {}): Promise<QmpLine> {
    const path = lifelinePath(qmpPath);
    const held = await joinHeld(path, options);
    const client = held ?? (await QmpClient.connect(qmpPath, options));
    return new QmpLine(path, options, client, held !== undefined);
  }

  /** Whoever speaks with QEMU. */
  client(): Promise<QmpClient> {
    return this.#client;
  }

  /**
   * Lets a process of its own hold the line from now on. Nobody waits for that process until the line is needed.
   * @throws ERR_SOURCE_CHANGED where it is held already for a machine with other content
   */
  async hold({ manifest, name }: Image): Promise<void> {
    const content = manifest.root.sha256;
    const own = await this.#client;
    if (this.#isHeld) {
      const { [CONTENT]: held } = own.greeting as { readonly [CONTENT]?: string };
      if (held === content) return;
      throw new MinorfaultError(
        "ERR_SOURCE_CHANGED",
        `The machine has memory of another image than ${name}`,
        {
          hint: "Resume it from the image that it was restored from; if that was replaced, restore anew. Nothing was mixed",
        },
      );
    }
    const listening = listen(local, this.#path);
    try {
      own.handOver((socket) => {
        const greeting = { ...(own.greeting as object), [CONTENT]: content };
        const argv = [PROGRAM, this.#path, JSON.stringify(greeting)];
        const stdio = ["ignore" as const, "ignore" as const, "ignore" as const, socket, listening];
        spawn(process.execPath, argv, { detached: true, stdio }).unref();
      });
    } finally {
      local.call("close", listening);
    }
    this.#isHeld = true;
    this.#client = QmpClient.connect(this.#path, this.#options);
    this.#client.catch(() => {});
  }

  /** The machine stands on its own: nobody has to hold the line any more, and QEMU takes another client. */
  async end(): Promise<void> {
    if (this.#isHeld) await this.#client.then((client) => client.execute(END)).catch(() => {});
    await this.close();
  }

  /** Whoever holds the line goes on holding it. */
  async close(): Promise<void> {
    await this.#client.then(
      (client) => client.close(),
      () => {},
    );
  }
}

async function joinHeld(path: string, options: QmpOptions): Promise<QmpClient | undefined> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return undefined;
  if (!found.isSocket() || found.uid !== process.getuid?.()) {
    throw new MinorfaultError("ERR_QEMU", `${path} is somebody else's`);
  }
  try {
    return await QmpClient.connect(path, options);
  } catch (error) {
    if (!(error instanceof MinorfaultError) || error.code !== "ERR_QEMU") throw error;
    // Left behind by one that was killed as well.
    rmSync(path, { force: true });
    return undefined;
  }
}

function lifelinePath(qmpPath: string): string {
  let real = qmpPath;
  try {
    real = realpathSync(qmpPath);
  } catch {
    // Connecting tells what is wrong with it.
  }
  const name = createHash("sha256").update(real).digest("hex").slice(0, 16);
  return join(tmpdir(), `minorfault-qmp-${process.getuid?.() ?? 0}-${name}`);
}
