// A page server for tests: its processes, its image, and what it has said so far.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { Random } from "../../src/base/random.ts";
import type { ServerConfig } from "../../src/daemon/config.ts";
import type { FrontEvent } from "../../src/daemon/front-pipe.ts";
import { type RunningServer, startServer, takeOver } from "../../src/daemon/start.ts";

const DEADLINE_MS = 20_000;

export type Kind = FrontEvent["event"];

export interface StandOptions {
  /** Of the image. Default 1024. */
  readonly pages?: number;
  readonly config?: Partial<ServerConfig>;
}

export class Stand {
  readonly folder: string;
  /** A raw file; a page in four is zeros. */
  readonly imagePath: string;
  readonly events: FrontEvent[] = [];
  server: RunningServer;
  sparePid = 0;
  keeperPid = 0;
  readonly #root: string;
  readonly #waiting = new Set<() => void>();

  private constructor(root: string, pages: number, config: Partial<ServerConfig>) {
    this.#root = root;
    this.folder = join(root, "run");
    this.imagePath = join(root, "memory");
    const words = new Uint32Array((pages * PAGE_SIZE) / 4);
    const random = new Random(7);
    for (const index of words.keys()) words[index] = (index >> 10) % 4 === 3 ? 0 : random.uint32();
    writeFileSync(this.imagePath, words);
    const images = [{ name: "a", source: { url: this.imagePath, kind: "raw" as const } }];
    const control = { logLevel: "silent" };
    this.server = startServer(
      { folder: this.folder, images, control, ...config },
      { onEvent: (event) => this.#hear(event) },
    );
  }

  /** Serves, and has a spare. */
  static async open({ pages = 1024, config = {} }: StandOptions = {}): Promise<Stand> {
    const stand = new Stand(mkdtempSync(join(tmpdir(), "minorfault-server-")), pages, config);
    try {
      await stand.server.ready;
      stand.keeperPid = parentOf(stand.server.pid);
      await stand.until(() => stand.sparePid !== 0, "a spare");
      return stand;
    } catch (error) {
      await stand.close();
      throw error;
    }
  }

  get socket(): string {
    return join(this.folder, "images", "a.sock");
  }

  get path(): (name: string) => string {
    return (name) => join(this.#root, name);
  }

  /** All processes of the server, as the system lists them. */
  get processes(): readonly number[] {
    const ours = execFileSync("ps", ["-eo", "pid,args"], { encoding: "utf8" }).split("\n");
    return ours.filter((line) => line.includes(` ${this.folder}`)).map((line) => Number.parseInt(line, 10));
  }

  count(kind: Kind): number {
    return this.events.filter(({ event }) => event === kind).length;
  }

  last<K extends Kind>(kind: K): Extract<FrontEvent, { event: K }> | undefined {
    return this.events.findLast((event): event is Extract<FrontEvent, { event: K }> => event.event === kind);
  }

  /** Resolves when it is true; asked after every event. */
  async until(isTrue: () => boolean, what: string): Promise<void> {
    if (isTrue()) return;
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (!isTrue()) return;
        clearTimeout(timer);
        clearInterval(glance);
        this.#waiting.delete(look);
        resolve();
      };
      const timer = setTimeout(() => {
        clearInterval(glance);
        this.#waiting.delete(look);
        reject(new Error(`${what} did not come: ${JSON.stringify(this.events.slice(-12))}`));
      }, DEADLINE_MS);
      // What is no event of the server's: that a process is gone.
      const glance = setInterval(look, 20);
      this.#waiting.add(look);
    });
  }

  /** Kills the process that serves, and waits until another one does. */
  async killPager(): Promise<void> {
    const served = this.count("serving");
    process.kill(this.server.pid, "SIGKILL");
    await this.until(() => this.count("serving") > served, "a takeover");
  }

  async untilSpare(): Promise<void> {
    await this.until(() => this.sparePid !== 0 && this.sparePid !== this.server.pid, "a spare");
  }

  /** The planned upgrade: another server takes this one's place. */
  async takeOver(): Promise<void> {
    const before = this.server;
    this.server = takeOver(this.folder, { onEvent: (event) => this.#hear(event) });
    await this.server.ready;
    await before.ended;
  }

  async stop(): Promise<number> {
    this.server.stop();
    return (await this.server.ended).code;
  }

  /** Whatever is left of it is gone. */
  async close(): Promise<void> {
    for (const pid of this.processes) tryKill(pid);
    await this.server.ended;
    rmSync(this.#root, { recursive: true, force: true });
  }

  #hear(event: FrontEvent): void {
    this.events.push(event);
    if (event.event === "spare") this.sparePid = event.pid;
    if (event.event === "serving" && event.pid === this.sparePid) this.sparePid = 0;
    if (event.event === "keeper") this.keeperPid = event.pid;
    for (const look of [...this.#waiting]) look();
  }
}

export function parentOf(pid: number): number {
  return Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

export function descriptorsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

export function tryKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It was faster.
  }
}
