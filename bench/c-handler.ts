// The yardstick in C (handler.c): compiled where there is a gcc, in a folder of its own that is gone afterwards.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { LoadMeter } from "./load.ts";

/** Where a handler finds what it serves. */
export interface Post {
  readonly pid: number;
  /** The userfaultfd's number in that process. */
  readonly fd: number;
  readonly cpu: number;
  readonly image: string;
  readonly base: number;
}

export class CHandlers {
  readonly #folder: string;
  readonly #program: string;
  readonly #meter: LoadMeter;
  readonly #running = new Set<ChildProcess>();

  constructor(folder: string, program: string, meter: LoadMeter) {
    this.#folder = folder;
    this.#program = program;
    this.#meter = meter;
  }

  /** Compiles the handler; a string says why it can't be. */
  static compile(meter: LoadMeter): CHandlers | string {
    const folder = mkdtempSync(join(tmpdir(), "minorfault-bench-"));
    const program = join(folder, "handler");
    // The C file lies beside the sources, not beside the compiled benchmark.
    const source = fileURLToPath(new URL("../../bench/handler.c", import.meta.url));
    try {
      execFileSync("gcc", ["-O2", "-Wall", "-o", program, source], { stdio: ["ignore", "ignore", "pipe"] });
      return new CHandlers(folder, program, meter);
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      return `gcc did not compile bench/handler.c: ${error instanceof Error ? error.message : error}`;
    }
  }

  /** Starts a handler that serves until `close`; resolves when it waits for faults. */
  async serve(mode: "block" | "spin", post: Post): Promise<void> {
    const child = this.#spawn(mode, post, []);
    const line = await this.#line(child);
    if (line !== "ready") throw new Error(`The C handler said ${line}`);
  }

  /** Serves many guests of one image in one thread; the CPU and the image are those of the first. */
  async serveCrowd(posts: readonly Post[]): Promise<void> {
    const [{ image, cpu }] = posts as readonly [Post];
    const list = join(this.#folder, "crowd");
    writeFileSync(list, posts.map(({ pid, fd, base }) => `${pid} ${fd} ${base}\n`).join(""));
    await this.#lines(["crowd", list, image, String(cpu)]);
  }

  /** Installs a range in pieces; the nanoseconds that the loop took. */
  async bulk(post: Post, byteLength: number, piece: number): Promise<number> {
    const child = this.#spawn("bulk", post, [String(byteLength), String(piece)]);
    const line = await this.#line(child);
    await end(child);
    this.#running.delete(child);
    return Number(line);
  }

  /** Takes guests at a socket as the example handlers do, a process a guest. */
  async listen(socket: string, image: string, cpu = -1): Promise<CDoor> {
    return new CDoor(socket, await this.#lines(["listen", socket, image, String(cpu)]), this.#meter);
  }

  /** The same, and installs a working set first, whose pages stand in a file. */
  async installSet(socket: string, image: string, cpu: number, list: string): Promise<CDoor> {
    return new CDoor(socket, await this.#lines(["set", socket, image, String(cpu), list]), this.#meter);
  }

  /** Takes one guest, for which there is a worker and a spare; answers the pids of workers, one after the other. */
  async keep(socket: string, image: string): Promise<() => Promise<number>> {
    const lines = await this.#lines(["keep", socket, image, "-1"]);
    return async () => Number(/^worker (\d+)$/.exec((await lines.next()).value ?? "")?.[1]);
  }

  async #lines(args: readonly string[]): Promise<AsyncIterator<string>> {
    const child = this.#start(args);
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.value !== "ready") throw new Error(`The C handler said ${first.value}`);
    return lines;
  }

  /** Ends all that are serving. */
  async stop(): Promise<void> {
    const children = [...this.#running];
    this.#running.clear();
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(children.map(end));
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** For the end of the process: what can be done without waiting. */
  abandon(): void {
    for (const child of this.#running) child.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #spawn(mode: string, { pid, fd, cpu, image, base }: Post, rest: readonly string[]): ChildProcess {
    return this.#start([...[mode, pid, fd, cpu, image, base].map(String), ...rest]);
  }

  #start(args: readonly string[]): ChildProcess {
    const child = spawn(this.#program, args, { stdio: ["ignore", "pipe", "inherit"] });
    this.#running.add(child);
    if (child.pid !== undefined) this.#meter.add(child.pid);
    return child;
  }

  async #line(child: ChildProcess): Promise<string> {
    for await (const line of createInterface({ input: child.stdout! })) return line;
    throw new Error("The C handler ended without a word");
  }
}

/** A C handler that takes guests at a socket. */
export class CDoor {
  readonly socket: string;
  readonly #lines: AsyncIterator<string>;
  readonly #meter: LoadMeter;

  constructor(socket: string, lines: AsyncIterator<string>, meter: LoadMeter) {
    this.socket = socket;
    this.#lines = lines;
    this.#meter = meter;
  }

  /** Waits until the process of one guest that is gone has ended; how many faults it had. */
  async left(): Promise<number> {
    const { value } = await this.#lines.next();
    const [, faults, seconds] = /^faults (\d+) seconds ([\d.]+)$/.exec(value ?? "") ?? [];
    this.#meter.credit(Number(seconds));
    return Number(faults);
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
}
