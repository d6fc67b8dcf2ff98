// The socket that a machine sends its migration stream to: ours, in a folder that only this user can enter, and gone
// as soon as the machine has connected.

import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MinorfaultError } from "../../base/errors.ts";
import { fileCall } from "../../source/file-failure.ts";

/** struct sockaddr_un has room for so many bytes. */
const PATH_BYTES_MAX = 107;

export class MigrationSocket {
  readonly path: string;
  readonly #folder: string;
  readonly #server: Server;
  readonly #connected: Promise<Socket>;
  #socket: Socket | undefined;

  private constructor(folder: string, server: Server) {
    this.#folder = folder;
    this.path = join(folder, "stream");
    this.#server = server;
    this.#connected = new Promise((resolve) => {
      server.once("connection", (socket) => {
        this.#socket = socket;
        // Its errors are told to whoever reads from it; before that nobody listens.
        socket.on("error", () => {});
        resolve(socket);
        server.close();
      });
    });
  }

  /** Listens in a new folder within `parent`, which QEMU must be able to reach. */
  static async listen(parent: string = tmpdir()): Promise<MigrationSocket> {
    const folder = fileCall("create", "a folder for the migration socket", () =>
      mkdtempSync(join(parent, "minorfault-")),
    );
    const server = createServer();
    const socket = new MigrationSocket(folder, server);
    try {
      if (Buffer.byteLength(socket.path) > PATH_BYTES_MAX) {
        throw new MinorfaultError("ERR_BAD_ARGUMENT", `${socket.path} is too long for the path of a socket`);
      }
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(socket.path, resolve);
      });
      chmodSync(socket.path, 0o600);
      return socket;
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  /** The connection of the machine. */
  connected(): Promise<Socket> {
    return this.#connected;
  }

  /** Resolves when the machine has closed its end, or when time is up; what still comes is thrown away. */
  async ended(ms: number): Promise<void> {
    const socket = this.#socket;
    if (socket === undefined || socket.destroyed || socket.readableEnded) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      const end = () => {
        clearTimeout(timer);
        resolve();
      };
      for (const event of ["end", "close"]) socket.once(event, end);
      socket.resume();
    });
  }

  close(): void {
    this.#socket?.destroy();
    this.#server.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
