// The socket that a machine sends its migration stream to: ours, in a folder that only this user can enter, and gone
// as soon as the machine has connected.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { accept, listen, local, poll } from "../../linux/index.ts";
import { fileCall } from "../../source/file-failure.ts";
import { IncomingStream } from "./incoming-stream.ts";

export class MigrationSocket {
  readonly path: string;
  readonly #folder: string;
  #listener: number | undefined;
  #stream: IncomingStream | undefined;

  private constructor(folder: string, path: string, listener: number) {
    this.#folder = folder;
    this.path = path;
    this.#listener = listener;
  }

  /** Listens in a new folder within `parent`, which QEMU must be able to reach. */
  static listen(parent: string = tmpdir()): MigrationSocket {
    const folder = fileCall("create", "a folder for the migration socket", () =>
      mkdtempSync(join(parent, "minorfault-")),
    );
    const path = join(folder, "stream");
    try {
      return new MigrationSocket(folder, path, listen(local, path, 1));
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** The machine's stream, if it has connected by now: it does so within a moment, which costs nothing to look for. */
  accept(): IncomingStream | undefined {
    const fd = this.#listener;
    if (this.#stream !== undefined || fd === undefined) return this.#stream;
    if (poll(local, [{ fd }], 0)[0] === 0) return undefined;
    const connection = accept(local, fd);
    if (connection === undefined) return undefined;
    this.#stream = new IncomingStream(connection);
    this.#stopListening();
    return this.#stream;
  }

  /** Resolves when the machine has closed its end, or when time is up; what still comes is thrown away. */
  async ended(ms: number): Promise<void> {
    await this.#stream?.ended(ms);
  }

  close(): void {
    this.#stream?.close();
    this.#stopListening();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #stopListening(): void {
    if (this.#listener !== undefined) local.call("close", this.#listener);
    this.#listener = undefined;
  }
}
