// A page server for tests: its processes, its image, and what it has said so far.

import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { Random } from "../../src/base/random.ts";
import type { ServerConfig } from "../../src/daemon/config.ts";
import type { FrontEvent } from "../../src/daemon/front-pipe.ts";
import { type RunningServer, startServer, takeOver } from "../../src/daemon/start.ts";
import type { Step } from "../../src/daemon/step.ts";
import { guardServer } from "./guard.ts";

const DEADLINE_MS = 60_000;

export type Kind = FrontEvent["event"];

export interface StandOptions {
  /** Of the image. Default 1024. */
  readonly pages?: number;
  readonly config?: Partial<ServerConfig>;
  /** Its processes can be told to die at a step. */
  readonly canDie?: boolean;
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
  readonly #dismissGuard: () => void;

  private constructor(root: string, { pages = 1024, config = {}, canDie = false }: StandOptions) {
    this.#root = root;
    this.folder = join(root, "run");
    this.imagePath = join(root, "memory");
    const words = new Uint32Array((pages * PAGE_SIZE) / 4);
    const random = new Random(7);
    for (const index of words.keys()) words[index] = (index >> 10) % 4 === 3 ? 0 : random.uint32();
    writeFileSync(this.imagePath, words);
    const images = [{ name: "a", source: { url: this.imagePath, kind: "raw" as const } }];
    const control = { logLevel: "silent" };
    this.#dismissGuard = guardServer(this.folder, root);
    // Whoever is started from here inherits it, and so do its children.
    if (canDie) process.env.MINORFAULT_DIE_AT = this.#order;
    this.server = startServer(
      { folder: this.folder, images, control, ...config },
      { onEvent: (event) => this.#hear(event) },
    );
    delete process.env.MINORFAULT_DIE_AT;
  }

  /** Serves, and has a spare. */
  static async open(options: StandOptions = {}): Promise<Stand> {
    const stand = new Stand(mkdtempSync(join(tmpdir(), "minorfault-server-")), options);
    try {
      await stand.server.ready;
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

  get #order(): string {
    return join(this.#root, "die-at");
  }

  /** Whoever comes to the step next dies there. */
  dieAt(step: Step): void {
    writeFileSync(`${this.#order}.new`, step);
    renameSync(`${this.#order}.new`, this.#order);
  }

  /** Somebody has. */
  get hasDied(): boolean {
    return !existsSync(this.#order);
  }

  /** All processes of the server, as the system lists them. */
  get processes(): readonly number[] {
    const ours = execFileSync("ps", ["-eo", "pid,args"], { encoding: "utf8" }).split("\n");
    return ours.filter((line) => line.includes(` ${this.folder}`)).map((line) => Number.parseInt(line, 10));
  }

  /** What its processes are at, for whoever looks for the reason. */
  get #state(): string {
    const threads = ["-Lo", "pid,ppid,tid,stat,wchan:20,args", "-p", this.processes.join(",") || "1"];
    return execFileSync("ps", threads, { encoding: "utf8" });
  }

  /** The process that has its program and knows nothing; 0: there is none. */
  get reservePid(): number {
    const known = [this.keeperPid, this.server.pid, this.sparePid];
    return this.processes.find((pid) => !known.includes(pid)) ?? 0;
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
        reject(new Error(`${what} did not come: ${JSON.stringify(this.events.slice(-12))}; ${this.#state}`));
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
    // It may have had its turn, and died before it said so.
    const isSpare = (pid: number) => pid !== 0 && pid !== this.server.pid && isAlive(pid);
    await this.until(() => isSpare(this.sparePid), "a spare");
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
    // One that has just been killed may have started another one.
    for (let left = this.processes; left.length > 0; left = this.processes)
      for (const pid of left) tryKill(pid);
    await this.server.ended;
    this.#dismissGuard();
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
