// One Linux machine under QEMU, saved twice: as QEMU's own file and as an image; and every way to bring it back.
//
// The clock starts when the destination's QEMU is there and waits (as `-incoming defer` for its own file, at its socket for
// us), with the file or image not opened; it stops when the guest runs, when its shell has answered, or when all of its
// memory is there. Everything is in the page cache. Threads that read are started with QEMU, as the command does.

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import {
  captureMachine,
  connectTo,
  type MachineCaptureReport,
  PagePool,
  QmpClient,
  type RestoreOptions,
  readFirst,
  reconnect,
  restoreMachine,
  WORKING_SET,
} from "../src/guest/qemu/index.ts";
import { addWorkingSet, openImageIn } from "../src/image/index.ts";
import { type ObjectStore, openStore } from "../src/source/index.ts";
import { linuxGuest } from "../test/qemu/guest/linux-guest.ts";
import { QemuMachine } from "../test/qemu/harness/machine.ts";
import type { MachineSpec } from "../test/qemu/harness/machine-spec.ts";
import { delayedStore } from "./delayed-store.ts";
import { whenLeaving } from "./leaving.ts";
import type { LoadMeter } from "./load.ts";
import { ReadyStream } from "./qemu-ready.ts";
import type { WaiterOrder } from "./qemu-waiter-worker.ts";
import type { Figures } from "./rounds.ts";

const IMAGE = "machine";
const UNLIMITED = 2 ** 40;
const READY_MS = 180_000;
/** Of a larger machine only so many pages of each block are made ready: those that devices ask for. */
const READY_MIB_MAX = 1024;
const READY_PAGES = 256;
const CONT_TRIES = 200;
const CONT_MS = 5;
/** How long a cut connection's machine is left alone before it is recovered. */
const CUT_SHARE = 0.5;
/** Of the times in /proc: USER_HZ is 100 on all architectures that we run on. */
const TICK_MS = 10;
/** Pages that are asked for, one after the other, to see how long one takes. */
const WAITS = 2000;

export interface LazyOptions {
  readonly replay: boolean;
  /** Each read of the image's store takes so much longer. */
  readonly delayMs?: number;
  /** Requested pages come alone: plain demand paging. */
  readonly isPlain?: boolean;
  /** Whether the rest is pushed, and waited for. */
  readonly push?: boolean;
  /** The connection is cut when half has been moved. */
  readonly cut?: boolean;
  /** It is over when the shell has answered. */
  readonly untilShell?: boolean;
}

export class QemuStage {
  readonly memoryMiB: number;
  readonly #spec: MachineSpec;
  readonly #folder: string;
  readonly #store: ObjectStore;
  readonly #meter: LoadMeter;
  readonly #forget: () => void;
  #source: QemuMachine | undefined;
  #machines = 0;
  #ready: ReadyStream | undefined;

  private constructor(spec: MachineSpec, folder: string, store: ObjectStore, meter: LoadMeter) {
    this.memoryMiB = spec.memoryMiB;
    this.#spec = spec;
    this.#folder = folder;
    this.#store = store;
    this.#meter = meter;
    // Machines see to themselves.
    this.#forget = whenLeaving(() => rmSync(folder, { recursive: true, force: true }));
  }

  /** Boots the machine, whose guest fills so many MiB. */
  static async boot(memoryMiB: number, fillMiB: number, meter: LoadMeter): Promise<QemuStage> {
    const spec: MachineSpec = { type: "pc-i440fx-7.2", memoryMiB, fillMiB };
    const folder = mkdtempSync(join(tmpdir(), "mf-bench-qemu-"));
    const stage = new QemuStage(spec, folder, await openStore(join(folder, "images")), meter);
    try {
      stage.#source = await stage.#start("source", undefined);
      await stage.#source.console.ready(READY_MS);
      return stage;
    } catch (error) {
      await stage.close();
      throw error;
    }
  }

  /**
   * QEMU's own way: `migrate "exec:cat > file"` of the machine, which stands. Or another command that takes the stream,
   * which is waited for: QEMU has completed its migration before that has ended.
   */
  async saveByQemu(command?: (file: string) => string): Promise<Figures> {
    const { monitor } = this.#running;
    const [file, fifo] = [join(this.#folder, "stream.qemu"), join(this.#folder, "ended")];
    await this.#stand();
    await monitor.command("migrate-set-parameters", { "max-bandwidth": UNLIMITED });
    monitor.forgetEvents();
    execFileSync("mkfifo", [fifo]);
    try {
      const ended = command === undefined ? undefined : readFile(fifo);
      const line = command === undefined ? `cat > ${file}` : `${command(file)}; echo > ${fifo}`;
      const startedAt = performance.now();
      await monitor.command("migrate", { uri: `exec:${line}` });
      await monitor.migration("completed", READY_MS);
      await ended;
      return { ms: performance.now() - startedAt };
    } finally {
      for (const path of [file, fifo]) rmSync(path, { force: true });
    }
  }

  /**
   * What must be done at least of what a capture does: a machine's stream sent, received and written by QEMU and cat,
   * and hashed by openssl; the processors' time that it takes, if all of them had their share from the first moment
   * to the last. Nothing is compressed, nobody waits for a disk.
   */
  async floor(): Promise<Figures> {
    const times = join(this.#folder, "times");
    const pid = this.#running.process.pid!;
    const before = processorMs(pid);
    const timed = (command: string) => `bash -c "TIMEFORMAT='%U %S'; time ${command}" 2>> ${times}`;
    await this.saveByQemu(
      (file) => `${timed(`cat > ${file}`)}; ${timed(`openssl dgst -sha256 ${file} > /dev/null`)}`,
    );
    const sent = processorMs(pid) - before;
    const [cat, hash] = readFileSync(times, "utf8").trim().split("\n");
    rmSync(times);
    const [catUser = 0, catSystem = 0] = cat!.split(" ").map(Number);
    // Its reading of the file is no part of it.
    const [hashUser = 0] = hash!.split(" ").map(Number);
    return { ms: (sent + (catUser + catSystem + hashUser) * 1000) / availableParallelism() };
  }

  /** Ours, of the machine that stands as well. */
  async capture(name: string): Promise<MachineCaptureReport> {
    await this.#stand();
    const qmp = await QmpClient.connect(this.#running.qmpPath);
    try {
      return await captureMachine(qmp, this.#store, name, { mode: "stopped", bytesPerSecond: UNLIMITED });
    } finally {
      qmp.close();
    }
  }

  /** Forgets all images, and what they have stored. */
  forget(): void {
    for (const part of ["manifests", "packs"]) {
      rmSync(join(this.#folder, "images", part), { recursive: true, force: true });
    }
  }

  /** What is restored, unless it is there: QEMU's own file, if it is wanted, and the image with its working set from a first run. */
  async prepare({ eager = true } = {}): Promise<void> {
    if (this.#source === undefined) return;
    if (eager) await this.saveByQemu((file) => `cat > ${file} && mv ${file} ${this.#file}`);
    await this.capture(IMAGE);
    await this.#stop(this.#running);
    this.#source = undefined;
    const { touched } = await this.#lazy({ replay: false }, { record: true });
    await addWorkingSet(this.#store, IMAGE, WORKING_SET, touched, { replace: true });
  }

  /** `-incoming "exec:cat file"`. */
  async eager(): Promise<Figures> {
    const machine = await this.#start("eager", "plain");
    try {
      const startedAt = performance.now();
      await machine.listen(`exec:cat ${this.#file}`);
      await machine.monitor.migration("completed", READY_MS);
      // It was saved while it stood, which QEMU's own loading keeps to.
      await machine.monitor.command("cont");
      const runMs = performance.now() - startedAt;
      await machine.console.run("count", READY_MS);
      return { runMs, shellMs: performance.now() - startedAt, allMs: runMs };
    } finally {
      await this.#stop(machine);
    }
  }

  /** All that QEMU is sent made beforehand, in memory, and nobody runs; of a large machine until it would run. */
  async readyMade(isWhole: boolean = this.memoryMiB <= READY_MIB_MAX): Promise<Figures> {
    const pagesMax = isWhole ? undefined : READY_PAGES;
    if (this.#ready === undefined) {
      await using image = await openImageIn(this.#store, IMAGE);
      this.#ready = await ReadyStream.of(image, pagesMax);
    }
    const machine = await this.#start("ready", "post-copy", ["-S"]);
    try {
      return await this.#ready.send(machine.incomingPath);
    } finally {
      await this.#stop(machine);
    }
  }

  async lazy(options: LazyOptions): Promise<Figures> {
    return (await this.#lazy(options)).figures;
  }

  /** What a page costs that is asked for, in microseconds, with the rest being pushed meanwhile or not. */
  async waits(push: boolean, round: number): Promise<Figures> {
    const path = join(this.#folder, `waiter${this.#machines++}`);
    await using image = await openImageIn(this.#store, IMAGE);
    const ram = image.regions.reduce((a, b) => (a.byteLength > b.byteLength ? a : b));
    const order: WaiterOrder = {
      path,
      block: ram.name,
      pages: ram.byteLength / 4096,
      requests: WAITS,
      seed: round + 1,
      isPushed: push,
    };
    const worker = new Worker(new URL("./qemu-waiter-worker.js", import.meta.url), { workerData: order });
    const over = new AbortController();
    try {
      await once(worker, "message");
      const url = join(this.#folder, "images", IMAGE);
      const restoring = restoreMachine({
        image,
        url,
        connect: (signal) => connectTo(`unix:${path}`, signal),
        replay: false,
        record: false,
        neighbours: false,
        push,
        signal: over.signal,
      });
      restoring.catch(() => {});
      const [waits] = (await once(worker, "message")) as [number[]];
      over.abort(new Error("enough"));
      await restoring.catch(() => {});
      const sorted = Float64Array.from(waits).sort();
      const at = (share: number): number => sorted[Math.floor(share * sorted.length)] ?? Number.NaN;
      return { p50Us: at(0.5), p99Us: at(0.99), waits: sorted.length };
    } finally {
      await worker.terminate();
    }
  }

  async close(): Promise<void> {
    if (this.#source !== undefined) await this.#stop(this.#source);
    await this.#store.close();
    rmSync(this.#folder, { recursive: true, force: true });
    this.#forget();
  }

  async #lazy(
    { replay, delayMs = 0, isPlain = false, push = true, cut = false, untilShell = !push }: LazyOptions,
    { record = false } = {},
  ): Promise<{ figures: Figures; touched: readonly number[] }> {
    const pool = push && delayMs === 0 ? new PagePool() : undefined;
    const machine = await this.#start("lazy", "post-copy");
    const qmp = cut ? await QmpClient.connect(machine.qmpPath) : undefined;
    const url = join(this.#folder, "images", IMAGE);
    const over = new AbortController();
    const figures: Record<string, number> = {};
    try {
      // What the machine's start has left to be done is done by then.
      await sleep(200);
      const startedAt = performance.now();
      const since = (): number => performance.now() - startedAt;
      const ahead = readFirst(replay ? undefined : false);
      await using image = await openImageIn(delayedStore(this.#store, delayMs), IMAGE, { ahead });
      let cutAt = Number.NaN;
      let socket: Awaited<ReturnType<typeof connectTo>> | undefined;
      const options: RestoreOptions = {
        image,
        ...(delayMs === 0 && { url, pool }),
        connect: async (signal) => {
          socket = await connectTo(`unix:${machine.incomingPath}`, signal);
          return socket;
        },
        ...(qmp !== undefined && { reconnect: (signal) => reconnect(qmp, signal) }),
        ...(!replay && { replay: false }),
        record,
        ...(isPlain && { neighbours: false }),
        push,
        signal: over.signal,
        onProgress: ({ pagesSent, zerosSent, pagesTotal }) => {
          if (!cut || !Number.isNaN(cutAt) || pagesSent + zerosSent < pagesTotal * CUT_SHARE) return;
          cutAt = performance.now();
          socket?.destroy();
        },
        onState: (state) => {
          if (state === "running") figures.runMs ??= since();
          if (state === "running" && !Number.isNaN(cutAt)) figures.recoveredMs ??= performance.now() - cutAt;
        },
      };
      const restoring = restoreMachine(options);
      restoring.catch(() => {});
      await Promise.race([machine.runs(), restoring]);
      await machine.console.run("count", READY_MS);
      figures.shellMs = since();
      if (untilShell) {
        over.abort(new Error("enough"));
        await restoring.catch(() => {});
        return { figures, touched: [] };
      }
      const { counters, touched = [] } = await restoring;
      figures.allMs = since();
      figures.requests = counters.requests;
      return { figures, touched };
    } finally {
      qmp?.close();
      await pool?.close();
      await this.#stop(machine);
    }
  }

  get #running(): QemuMachine {
    if (this.#source === undefined) throw new Error("The machine has been saved, and has ended");
    return this.#source;
  }

  get #file(): string {
    return join(this.#folder, "saved.qemu");
  }

  /** Runs for a moment if it has just been saved, and stands again. */
  async #stand(): Promise<void> {
    const { monitor } = this.#running;
    for (let tries = 0; ; tries++) {
      try {
        await monitor.command("cont");
        break;
      } catch (error) {
        // QEMU says that a migration has completed a moment before it is through with it.
        if (tries === CONT_TRIES) throw error;
        await sleep(CONT_MS);
      }
    }
    await monitor.command("stop");
  }

  async #start(
    what: string,
    incoming: "plain" | "post-copy" | undefined,
    options: readonly string[] = [],
  ): Promise<QemuMachine> {
    const guest = linuxGuest();
    if (typeof guest === "string") throw new Error(guest);
    const machine = await QemuMachine.start({
      folder: this.#folder,
      name: `${what}${this.#machines++}`,
      spec: this.#spec,
      guest,
      ...(incoming !== undefined && { incoming }),
      options,
    });
    this.#meter.add(machine.process.pid!, { withChildren: true });
    return machine;
  }

  async #stop(machine: QemuMachine): Promise<void> {
    this.#meter.leave(machine.process.pid!);
    await machine.stop();
  }
}

/** Processors' time of a process so far, that of its threads which have ended with it. */
function processorMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}
