// Captures a running QEMU into an image. It is told over QMP to migrate to a socket of ours; it never learns that
// nobody runs the machine there.
//
//   running               the guest runs; pages that it changes meanwhile come again; it stands for the last few
//   stopped               it stands all the time
//   background-snapshot   it runs all the time, and the image is of the moment at which the capture began
//
// Whatever happens, the guest goes on as it did before, and QEMU's settings are put back; unless it was told otherwise
// and the capture went well.

import { setTimeout as delay } from "node:timers/promises";
import { MinorfaultError } from "../../base/errors.ts";
import { checkAbsent } from "../../image/index.ts";
import type { ObjectStore } from "../../source/object-store.ts";
import {
  type CaptureReport,
  type CaptureStreamOptions,
  captureStream,
  type StreamPieces,
} from "./capture-stream.ts";
import type { IncomingStream, Landing } from "./incoming-stream.ts";
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
const ACCEPT_MS = 1;
const LOOK_MS = 20;
const PROGRESS_MS = 500;
const UNLIMITED = 2 ** 50;
/** LIMIT: how long a machine may take to close its end; and to send the rest of a snapshot that nobody wants. */
const END_MS = 5000;
const RUN_OUT_MS = 120_000;

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
  let socket: MigrationSocket | undefined;
  try {
    socket = MigrationSocket.listen(options.socketFolder);
    const capture = new MachineCapture(qmp, options, wasRunning, socket);
    return await capture.run((pieces, confirmed, onBytes) =>
      captureStream(store, name, pieces, { ...streamOptions(options), facts, confirmed, onBytes }),
    );
  } finally {
    socket?.close();
    await settings.restore();
  }
}

type Receive = (
  pieces: StreamPieces,
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
      const pieces = (landing: Landing) => stream.pieces(signal, landing);
      const report = await receive(pieces, () => this.#letGo(), onBytes);
      if (after === "quit") await this.#quit();
      return { ...report, downtimeMs: this.#downtimeMs };
    } catch (error) {
      const reason = await this.#reasonOf(error);
      if (!this.#hasLetGo) await this.#backOut();
      throw reason;
    } finally {
      clearInterval(looking);
    }
  }

  /** The connection of QEMU; or why there is none. */
  async #connected(): Promise<IncomingStream> {
    const { signal, connectMs = CONNECT_MS } = this.#options;
    const until = performance.now() + connectMs;
    for (let lookedAt = 0; ; ) {
      signal?.throwIfAborted();
      const stream = this.#socket.accept();
      if (stream !== undefined) return stream;
      const now = performance.now();
      if (now - lookedAt >= LOOK_MS) {
        lookedAt = now;
        const migration = await queryMigration(this.#qmp);
        if (migration.status === "failed" || migration.status === "cancelled") {
          throw migrationFailed(migration);
        }
      }
      if (now > until) {
        throw new MinorfaultError(
          "ERR_DEADLINE",
          `QEMU did not connect to ${this.#socket.path} in ${connectMs} ms`,
          {
            hint: "QEMU's user must be able to reach the socket: --socket-folder names another place for it",
          },
        );
      }
      await delay(ACCEPT_MS);
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
      if (this.#options.mode === "background-snapshot") await this.#runOut();
      await cancelMigration(this.#qmp);
      // QEMU cleans up behind a migration before it closes the socket, by the capabilities that are set then.
      await this.#socket.ended(END_MS);
      await this.#goOn();
    } catch {}
  }

  /**
   * Lets a snapshot in the background come to its end, as fast as can be and to nobody: QEMU 7.2 cannot migrate any
   * more once one was cancelled.
   */
  async #runOut(): Promise<void> {
    if ((await queryMigration(this.#qmp)).status !== "active") return;
    await setBandwidth(this.#qmp, UNLIMITED);
    await this.#socket.ended(RUN_OUT_MS);
  }

  /** QEMU's own words for a stream that ended too early. */
  async #reasonOf(error: unknown): Promise<unknown> {
    const isCut = error instanceof MinorfaultError && ["ERR_SOURCE_SHORT", "ERR_QEMU"].includes(error.code);
    if (!isCut) return error;
    const migration = await queryMigration(this.#qmp).catch(() => undefined);
    return migration?.status === "failed" ? migrationFailed(migration, error) : error;
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
    const capabilities = await queryCapabilities(qmp);
    // A machine that came by post-copy would want answers from us when it leaves.
    const shall = { "background-snapshot": mode === "background-snapshot", "postcopy-ram": false };
    for (const [name, state] of Object.entries(shall)) {
      const before = capabilities.has(name);
      if (before === state) continue;
      await setCapability(qmp, name, state);
      undo.push(() => setCapability(qmp, name, before));
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
  const { codec, level, chunkBytes, ifAbsent, signal, notes, temporaryFolder, mode } = options;
  return {
    isPatient: mode === "stopped",
    ...(codec !== undefined && { codec }),
    ...(level !== undefined && { level }),
    ...(chunkBytes !== undefined && { chunkBytes }),
    ...(ifAbsent !== undefined && { ifAbsent }),
    ...(signal && { signal }),
    ...(notes && { notes }),
    temporaryFolder,
  };
}
