// The stage for the page server: it runs with images of one memory (a raw file, an image, an image with a recorded working
// set), and its guests are machines that hand over by Firecracker's protocol (test/daemon/vmm.ts).

import {
  closeSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { PAGE_SIZE } from "../src/abi/memory.ts";
import { Random } from "../src/base/random.ts";
import { type Client, createClient } from "../src/client/index.ts";
import type { ImageConfig } from "../src/daemon/config.ts";
import { type RunningServer, startServer } from "../src/daemon/start.ts";
import { KernelSystem } from "../src/guest/process/index.ts";
import { addWorkingSet, buildImage, openRawFile } from "../src/image/index.ts";
import { openStore } from "../src/source/index.ts";
import { ImageContent, startVmm, type Vmm, type VmmOptions } from "../test/daemon/vmm.ts";
import { guestMemory } from "./image-content.ts";
import { whenLeaving } from "./leaving.ts";
import type { LoadMeter } from "./load.ts";

const MIB = 1024 * 1024;
/** Content repeats after so much, but for the first word of each page, which is its number. */
const BLOCK_BYTES = 8 * MIB;
/** Runs of pages that a guest touches: 256 KiB each. */
const RUN_PAGES = 64;
const DEADLINE_MS = 60_000;

export type ImageName = "raw" | "image" | "set" | "unkept";

export class ServerStage {
  readonly byteLength: number;
  /** What guests touch: runs of pages, the runs in random order. */
  readonly touches: Uint32Array;
  readonly content: ImageContent;
  readonly system = new KernelSystem();
  readonly #folder: string;
  readonly #meter: LoadMeter;
  readonly #server: RunningServer;
  readonly #client: Client;
  readonly #forget: () => void;
  #spare = 0;

  private constructor(folder: string, byteLength: number, touches: Uint32Array, meter: LoadMeter) {
    this.#folder = folder;
    this.byteLength = byteLength;
    this.touches = touches;
    this.#meter = meter;
    this.content = new ImageContent(this.rawPath);
    const store = join(folder, "store");
    const images: readonly ImageConfig[] = [
      { name: "raw", source: { url: this.rawPath, kind: "raw" } },
      { name: "image", source: { url: join(store, "memory"), replay: false } },
      { name: "set", source: { url: join(store, "memory") } },
      // By another name: what is kept of the one is nothing to the other.
      { name: "unkept", warm: false, source: { url: join(folder, "again", "memory") } },
    ];
    const config = { folder: join(folder, "run"), images, control: { logLevel: "error" } };
    this.#server = startServer(config, {
      onEvent: (event) => {
        if (event.event === "spare") this.#spare = event.pid;
        if (event.event === "error") console.error("server:", event.message);
      },
    });
    this.#forget = whenLeaving(() => {
      killAllOf(config.folder);
      rmSync(folder, { recursive: true, force: true });
    });
    this.#client = createClient({ socket: join(folder, "run", "control.sock") });
  }

  /** `touchedBytes`: how much of its memory a guest touches. */
  static async open(byteLength: number, touchedBytes: number, meter: LoadMeter): Promise<ServerStage> {
    const folder = mkdtempSync(join(tmpdir(), "minorfault-bench-server-"));
    try {
      const touches = runsOf(byteLength, touchedBytes);
      await write(folder, byteLength, touches);
      const stage = new ServerStage(folder, byteLength, touches, meter);
      await stage.#server.ready;
      await stage.count();
      return stage;
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** A file with the pages that guests touch, in that order, 32 bits each. */
  get touchesPath(): string {
    return join(this.#folder, "touches");
  }

  get rawPath(): string {
    return join(this.#folder, "memory");
  }

  /** A free path for somebody else's socket. */
  socketPath(name: string): string {
    return join(this.#folder, name);
  }

  /** A machine of this memory; it has not handed over yet. */
  machine(image: ImageName | { readonly socket: string }, options: Partial<VmmOptions> = {}): Vmm {
    const socket =
      typeof image === "string" ? join(this.#folder, "run", "images", `${image}.sock`) : image.socket;
    const { system, content } = this;
    const vmm = startVmm({
      socket,
      regions: this.byteLength,
      image: content,
      system,
      handOver: false,
      deadlineMs: DEADLINE_MS,
      ...options,
    });
    this.#meter.add(vmm.pid);
    return vmm;
  }

  /** Ends a machine. */
  end(vmm: Vmm): void {
    this.#meter.leave(vmm.pid);
    vmm.kill();
  }

  /** What the server has counted of one machine. */
  async faultsOf(vmm: Vmm): Promise<number> {
    const { guests } = await this.#client.listGuests();
    const found = guests.find(({ pid }) => pid === vmm.pid);
    if (found === undefined) throw new Error("The server does not know the machine");
    return found.statistics.faults;
  }

  /** Counts the server's processes as ours. */
  async count(): Promise<void> {
    for (const pid of await this.#processes()) this.#meter.add(pid);
  }

  /** Bytes that all processes of the server have for themselves, files in the page cache aside. */
  async memory(): Promise<number> {
    let bytes = 0;
    for (const pid of await this.#processes()) {
      const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
      for (const name of ["Pss_Anon", "Pss_Shmem"]) {
        bytes += Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? Number.NaN) * 1024;
      }
    }
    return bytes;
  }

  /** Waits until a spare is ready that could take over; then SIGKILL for the pager. */
  async killPager(): Promise<void> {
    const until = performance.now() + DEADLINE_MS;
    while (this.#spare === 0 || this.#spare === this.#server.pid) {
      if (performance.now() > until) throw new Error("There is no spare");
      await delay(5);
    }
    await this.count();
    const { pid } = this.#server;
    this.#spare = 0;
    this.#meter.leave(pid);
    process.kill(pid, "SIGKILL");
  }

  async close(): Promise<void> {
    this.system.close();
    this.#server.stop();
    await this.#server.ended;
    this.content.close();
    rmSync(this.#folder, { recursive: true, force: true });
    this.#forget();
  }

  async #processes(): Promise<number[]> {
    const { pid, keeperPid, sparePid } = await this.#client.health();
    return [pid, keeperPid, ...(sparePid === undefined ? [] : [sparePid])];
  }
}

/** Ends all processes of a server at once: each of them would start others in the place of those that are gone. */
function killAllOf(folder: string): void {
  const pids = readdirSync("/proc").map(Number).filter(Number.isInteger);
  const isOf = (pid: number): boolean => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(folder);
    } catch {
      return false;
    }
  };
  const ours = pids.filter(isOf);
  for (const name of ["SIGSTOP", "SIGKILL"] as const) {
    for (const pid of ours) {
      try {
        process.kill(pid, name);
      } catch {
        // Gone already.
      }
    }
  }
}

/** Runs spread over the memory, in random order; the pages of a run in theirs. */
function runsOf(byteLength: number, touchedBytes: number): Uint32Array {
  const runBytes = RUN_PAGES * PAGE_SIZE;
  const runs = new Random(11).sample(touchedBytes / runBytes, byteLength / runBytes);
  return Uint32Array.from(runs, (run) => run * RUN_PAGES).reduce(
    (pages, first, run) => {
      for (let page = 0; page < RUN_PAGES; page++) pages[run * RUN_PAGES + page] = first + page;
      return pages;
    },
    new Uint32Array(runs.length * RUN_PAGES),
  );
}

async function write(folder: string, byteLength: number, touches: Uint32Array): Promise<void> {
  const block = guestMemory(BLOCK_BYTES, 5);
  const words = new Uint32Array(block.buffer);
  const path = join(folder, "memory");
  const fd = openSync(path, "w");
  for (let at = 0; at < byteLength; at += BLOCK_BYTES) {
    for (let page = 0; page < BLOCK_BYTES; page += PAGE_SIZE) words[page / 4] = (at + page) / PAGE_SIZE + 1;
    writeSync(fd, block, 0, Math.min(BLOCK_BYTES, byteLength - at));
  }
  // What is still to be written to the disk would be written while we measure.
  fsyncSync(fd);
  closeSync(fd);
  const store = await openStore(join(folder, "store"));
  const { source } = openRawFile(path);
  await buildImage(store, "memory", { regions: [{ name: "memory", source }], codec: "none" });
  await source.close();
  symlinkSync("store", join(folder, "again"));
  writeFileSync(join(folder, "touches"), touches);
  const offsets = Array.from(touches, (page) => page * PAGE_SIZE);
  await addWorkingSet(store, "memory", "recorded", offsets);
  await store.close();
}
