// Captures a running QEMU into an image. It is told over QMP to migrate to a socket of ours; it never learns that
// nobody runs the machine there.
//
//   running               the guest runs; pages that it changes meanwhile come again; it stands for the last few
//   stopped               it stands all the time
//   background-snapshot   it runs all the time, and the image is of the moment at which the capture began
//
// Whatever happens, the guest goes on as it did before, and QEMU's settings are put back; unless it was told otherwise
// and the capture went well.

import type { Socket } from "node:net";
import { MinorfaultError } from "../../base/errors.ts";
import { checkAbsent } from "../../image/index.ts";
import type { ObjectStore } from "../../source/object-store.ts";
import { type CaptureReport, type CaptureStreamOptions, captureStream } from "./capture-stream.ts";
import {
  cancelMigration,
  checkMigratable,
  isRunning,
  migrationCompleted,
  migrationFailed,
  queryCapabilities,
  queryMigration,
  queryPageSizes,
  setBandwidth,
  setCapability,
} from "./migration.ts";
import { MigrationSocket } from "./migration-socket.ts";
import type { QmpClient } from "./qmp.ts";
import type { SavedMachine } from "./saved-machine.ts";

export type CaptureMode = Exclude<SavedMachine["saved"], "file">;

export interface CaptureMachineOptions
  extends Pick<CaptureStreamOptions, "codec" | "level" | "chunkBytes" | "ifAbsent" | "signal" | "notes"> {
  readonly mode: CaptureMode;
  /** What becomes of the machine when it has been captured; default: it goes on as before. */
  readonly after?: "as before" | "stopped" | "quit";
  /** LIMIT: bytes a second; default: what the machine has been told, but as fast as can be while it is stopped. */
  readonly bytesPerSecond?: number | undefined;
  /** Where our socket lies; default the system's folder for temporary files. QEMU must be able to reach it. */
  readonly socketFolder?: string | undefined;
  readonly temporaryFolder?: string | undefined;
  /** LIMIT: how long QEMU may take to connect; default 30 s. */
  readonly connectMs?: number;
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
}

export interface MachineCaptureReport extends CaptureReport {
  /** How long the guest stood, as QEMU says; undefined where it does not. */
  readonly downtimeMs: number | undefined;
}

const CONNECT_MS = 30_000;
const LOOK_MS = 20;
const PROGRESS_MS = 500;
const UNLIMITED = 2 ** 50;

export async function captureMachine(
  qmp: QmpClient,
  store: ObjectStore,
  name: string,
  options: CaptureMachineOptions,
): Promise<MachineCaptureReport> {
  // Before the machine is told anything.
  if (options.ifAbsent) await checkAbsent(store, name, options.signal);
  await checkMigratable(qmp);
  const wasRunning = await isRunning(qmp);
  const facts = { saved: options.mode, qemu: qmp.version, pageSizes: await queryPageSizes(qmp) };
  const settings = await applySettings(qmp, options);
  const socket = await MigrationSocket.listen(options.socketFolder).catch(async (error: unknown) => {
    await settings.restore();
    throw error;
  });
  const capture = new MachineCapture(qmp, options, wasRunning, socket);
  try {
    return await capture.run((pieces, confirmed, onBytes) =>
      captureStream(store, name, pieces, { ...streamOptions(options), facts, confirmed, onBytes }),
    );
  } finally {
    socket.close();
    await settings.restore();
  }
}

type Receive = (
  pieces: AsyncIterable<Uint8Array>,
  confirmed: () => Promise<void>,
  onBytes: (byteLength: number) => void,
) => Promise<CaptureReport>;

class MachineCapture {
  readonly #qmp: QmpClient;
  readonly #options: CaptureMachineOptions;
  readonly #wasRunning: boolean;
  readonly #socket: MigrationSocket;
  #totalBytes = 0;
  #downtimeMs: number | undefined;
  #hasLetGo = false;

  constructor(qmp: QmpClient, options: CaptureMachineOptions, wasRunning: boolean, socket: MigrationSocket) {
    this.#qmp = qmp;
    this.#options = options;
    this.#wasRunning = wasRunning;
    this.#socket = socket;
  }

  async run(receive: Receive): Promise<MachineCaptureReport> {
    const { mode, signal, onProgress, after } = this.#options;
    let looking: NodeJS.Timeout | undefined;
    try {
      if (mode === "stopped" && this.#wasRunning) await this.#qmp.execute("stop");
      await this.#qmp.execute("migrate", { uri: `unix:${this.#socket.path}` });
      const stream = await this.#connected();
      looking = setInterval(() => void this.#look(), PROGRESS_MS);
      await this.#look();
      const onBytes = (doneBytes: number) =>
        onProgress?.({ doneBytes, totalBytes: Math.max(doneBytes, this.#totalBytes) });
      const report = await receive(piecesOf(stream, signal), () => this.#letGo(), onBytes);
      if (after === "quit") await this.#quit();
      return { ...report, downtimeMs: this.#downtimeMs };
    } catch (error) {
      if (!this.#hasLetGo) await this.#backOut();
      throw error;
    } finally {
      clearInterval(looking);
    }
  }

  /** The connection of QEMU; or why there is none. */
  async #connected(): Promise<Socket> {
    const { signal, connectMs = CONNECT_MS } = this.#options;
    const until = performance.now() + connectMs;
    const connected = this.#socket.connected();
    for (;;) {
      signal?.throwIfAborted();
      const socket = await Promise.race([connected, after(LOOK_MS)]);
      if (socket !== undefined) return socket;
      const migration = await queryMigration(this.#qmp);
      if (migration.status === "failed" || migration.status === "cancelled") throw migrationFailed(migration);
      if (performance.now() > until) {
        throw new MinorfaultError(
          "ERR_DEADLINE",
          `QEMU did not connect to ${this.#socket.path} in ${connectMs} ms`,
          {
            hint: "QEMU's user must be able to reach the socket: --socket-folder names another place for it",
          },
        );
      }
    }
  }

  /** Everything has been sent: the guest goes on at once, while the rest is being stored. */
  async #letGo(): Promise<void> {
    const { downtime } = await migrationCompleted(this.#qmp, this.#options.signal);
    this.#downtimeMs = downtime;
    this.#hasLetGo = true;
    const { after = "as before" } = this.#options;
    if (after === "as before") await this.#goOn();
    else if (await isRunning(this.#qmp)) await this.#qmp.execute("stop");
  }

  /** Undoes what was begun: no migration, and the guest as it was. */
  async #backOut(): Promise<void> {
    // What went wrong first is what is told; a QEMU that is gone needs no backing out.
    try {
      this.#socket.close();
      await cancelMigration(this.#qmp);
      await this.#goOn();
    } catch {}
  }

  async #goOn(): Promise<void> {
    if (this.#wasRunning && !(await isRunning(this.#qmp))) await this.#qmp.execute("cont");
  }

  async #quit(): Promise<void> {
    // It may close the socket before it has answered.
    await this.#qmp.execute("quit").catch(() => {});
  }

  async #look(): Promise<void> {
    try {
      const { ram } = await queryMigration(this.#qmp);
      if (ram !== undefined) this.#totalBytes = ram.transferred + ram.remaining;
    } catch {
      // Progress only; what is wrong shows elsewhere.
    }
  }
}

/** Sets what the mode needs, and remembers what it was. */
async function applySettings(
  qmp: QmpClient,
  { mode, bytesPerSecond }: CaptureMachineOptions,
): Promise<{ restore: () => Promise<void> }> {
  const undo: (() => Promise<unknown>)[] = [];
  const restore = async () => {
    for (const step of undo.reverse()) await step().catch(() => {});
    undo.length = 0;
  };
  try {
    const isBackground = (await queryCapabilities(qmp)).has("background-snapshot");
    const shallBackground = mode === "background-snapshot";
    if (isBackground !== shallBackground) {
      await setCapability(qmp, "background-snapshot", shallBackground);
      undo.push(() => setCapability(qmp, "background-snapshot", isBackground));
    }
    const wanted = bytesPerSecond ?? (mode === "stopped" ? UNLIMITED : undefined);
    if (wanted !== undefined) {
      const before = await setBandwidth(qmp, wanted);
      undo.push(() => setBandwidth(qmp, before));
    }
    return { restore };
  } catch (error) {
    await restore();
    throw error;
  }
}

function streamOptions(options: CaptureMachineOptions): Omit<CaptureStreamOptions, "facts"> {
  const { codec, level, chunkBytes, ifAbsent, signal, notes, temporaryFolder } = options;
  return {
    ...(codec !== undefined && { codec }),
    ...(level !== undefined && { level }),
    ...(chunkBytes !== undefined && { chunkBytes }),
    ...(ifAbsent !== undefined && { ifAbsent }),
    ...(signal && { signal }),
    ...(notes && { notes }),
    temporaryFolder,
  };
}

/** What comes over a socket; its end by an error is one. */
async function* piecesOf(socket: Socket, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  const abort = () => socket.destroy(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  try {
    signal?.throwIfAborted();
    for await (const piece of socket) yield piece as Buffer;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

function after(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, ms, undefined));
}
