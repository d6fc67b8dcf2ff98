// Hand-overs at random, most of them for the parser alone, one in a hundred for a server that runs: what is taken has to be
// right, everything else has to be refused with a reason; the server has to have as many descriptors and about as much
// memory afterwards as before, and to serve a guest still.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { Random } from "../../src/base/random.ts";
import { createClient } from "../../src/client/index.ts";
import { type RunningServer, startServer } from "../../src/daemon/start.ts";
import { guardServer } from "../daemon/guard.ts";
import { MaliciousClient, type Piece } from "../daemon/malicious.ts";
import { startVmm } from "../daemon/vmm.ts";
import { type HandOver, HandOverFuzzer, parse, wrongIn } from "./hand-overs.ts";

/** One hand-over in so many goes to a server. */
const SERVED_SHARE = 100;
const PAGES = 64;
const IMAGE_BYTES = PAGES * PAGE_SIZE;
const PARSED_IMAGE_BYTES = 64 * 2 ** 20;
/** What a server may have grown by: what a runtime keeps for itself, whatever the number of hand-overs. */
const GROWTH_MAX = 48 * 2 ** 20;
const SETTLE_MS = 10_000;

export interface ServerFuzzResult {
  /** Hand-overs that were taken, by the parser and by the server. */
  readonly taken: number;
  /** Reasons of refusals, numbers left out, and how often each was given. */
  readonly refused: Readonly<Record<string, number>>;
  /** Of all: how many went to a server, and what it had before and after. */
  readonly served: number;
  readonly before: Holdings | undefined;
  readonly after: Holdings | undefined;
  readonly failures: readonly string[];
}

/** What the processes of a server have. */
export interface Holdings {
  readonly descriptors: number;
  readonly bytes: number;
}

/** `server: false`: the parser only, where no server can run. */
export async function fuzzServer(
  count: number,
  seed: number,
  { server = true, onProgress = () => {} }: { server?: boolean; onProgress?: (done: number) => void } = {},
): Promise<ServerFuzzResult> {
  const report = new Report();
  const served = server ? Math.ceil(count / SERVED_SHARE) : 0;
  fuzzParser(count - served, new Random(seed), report, onProgress);
  const holdings = server ? await fuzzRunning(served, new Random(seed + 1), report, onProgress) : undefined;
  const { taken, refused, failures } = report;
  return { taken, refused, served, before: holdings?.before, after: holdings?.after, failures };
}

class Report {
  taken = 0;
  readonly refused: Record<string, number> = {};
  readonly failures: string[] = [];

  refusal(reason: string): void {
    const kind = reason
      .replace(/0x[0-9a-f]+|\d+/g, "N")
      .replace(/is -?N.*?,/g, "is N,")
      .slice(0, 70);
    this.refused[kind] = (this.refused[kind] ?? 0) + 1;
  }
}

function fuzzParser(count: number, random: Random, report: Report, onProgress: (done: number) => void): void {
  const fuzzer = new HandOverFuzzer(random, PARSED_IMAGE_BYTES);
  for (let iteration = 0; iteration < count; iteration++) {
    const { bytes, right } = fuzzer.next();
    try {
      const parsed = parse(fuzzer.pieces(bytes), PARSED_IMAGE_BYTES);
      const wrong = typeof parsed === "string" ? undefined : wrongIn(parsed, PARSED_IMAGE_BYTES);
      if (typeof parsed === "string") report.refusal(parsed);
      else report.taken++;
      if (wrong !== undefined) report.failures.push(`${iteration}: took ${wrong}: ${shown(bytes)}`);
      if (right !== undefined && !isTaken(parsed, right)) {
        report.failures.push(`${iteration}: did not take what is right (${parsed}): ${shown(bytes)}`);
      }
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      report.failures.push(`${iteration}: ${what}: ${shown(bytes)}`);
    }
    if (iteration % 1000 === 0) onProgress(iteration);
  }
}

function isTaken(parsed: ReturnType<typeof parse>, right: NonNullable<HandOver["right"]>): boolean {
  if (typeof parsed === "string" || parsed.length !== right.length) return false;
  return right.every(({ address, byteLength, imageOffset, pageSize = PAGE_SIZE }, index) => {
    const found = parsed[index]!;
    return (
      found.start === address &&
      found.byteLength === byteLength &&
      found.imageOffset === imageOffset &&
      found.pageSize === pageSize
    );
  });
}

function shown(bytes: Uint8Array): string {
  return Buffer.from(bytes.subarray(0, 300)).toString("latin1");
}

// ── a server that runs ──

async function fuzzRunning(
  count: number,
  random: Random,
  report: Report,
  onProgress: (done: number) => void,
): Promise<{ before: Holdings; after: Holdings }> {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-fuzz-"));
  const image = join(folder, "memory");
  writeFileSync(
    image,
    Uint32Array.from({ length: IMAGE_BYTES / 4 }, () => random.uint32()),
  );
  const dismissGuard = guardServer(join(folder, "run"), folder);
  const config = { folder: join(folder, "run"), images: [{ name: "it", source: { url: image } }] };
  const server = startServer({ ...config, control: { logLevel: "silent" } });
  const socket = join(folder, "run", "images", "it.sock");
  const visitor = new Visitor(socket, random, report);
  try {
    await server.ready;
    // What is made once is made before anybody counts.
    for (let warm = 0; warm < 50; warm++) await visitor.visit(`warm-up ${warm}`);
    visitor.leave();
    const before = await settled(server, folder);
    for (let iteration = 0; iteration < count; iteration++) {
      await visitor.visit(`server ${iteration}`);
      if (iteration % 100 === 0) onProgress(iteration);
    }
    visitor.leave();
    const after = await settled(server, folder, before.descriptors);
    if (after.descriptors !== before.descriptors) {
      report.failures.push(
        `the server has ${after.descriptors} descriptors, before it had ${before.descriptors}`,
      );
    }
    if (after.bytes - before.bytes > GROWTH_MAX) {
      report.failures.push(`the server has ${after.bytes} bytes, before it had ${before.bytes}`);
    }
    if (server.pid !== visitor.serverPid(server.pid)) report.failures.push("the pager has ended meanwhile");
    await checkService(socket, image, report);
    return { before, after };
  } finally {
    visitor.leave();
    server.stop();
    await server.ended;
    dismissGuard();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Whether a server may take these: what came first is a whole message, though more was on its way. */
function becomesMessage(pieces: readonly Uint8Array[]): boolean {
  return pieces.some((_, index) => typeof parse(pieces.slice(0, index + 1), IMAGE_BYTES) !== "string");
}

/** Brings hand-overs to a server, and starts anew after one that was taken. */
class Visitor {
  readonly #socket: string;
  readonly #random: Random;
  readonly #report: Report;
  #client: MaliciousClient | undefined;
  #serverPid = 0;

  constructor(socket: string, random: Random, report: Report) {
    this.#socket = socket;
    this.#random = random;
    this.#report = report;
  }

  /** The pager that was first seen. */
  serverPid(now: number): number {
    this.#serverPid ||= now;
    return this.#serverPid;
  }

  leave(): void {
    this.#client?.close();
    this.#client = undefined;
  }

  async visit(name: string): Promise<void> {
    this.#client ??= new MaliciousClient(this.#socket);
    const { vmm } = this.#client;
    const fuzzer = new HandOverFuzzer(this.#random, IMAGE_BYTES, vmm.regions);
    const { bytes, right } = fuzzer.next();
    const descriptors = this.#descriptors(vmm.uffd);
    const pieces = fuzzer.pieces(bytes).slice(0, 200);
    const at = this.#random.below(pieces.length);
    const sent = pieces.map(
      (piece, index): Piece => ({ bytes: piece, ...(index === at && { descriptors }) }),
    );
    const { answer } = await this.#client.converse(sent, true);
    const { text, isHungUp } = answer;
    const isWhole = descriptors.length === 1 && descriptors[0] === vmm.uffd && pieces.length < 200;
    if (text.includes('"guest"')) {
      this.#report.taken++;
      if (!isWhole || !becomesMessage(pieces)) {
        this.#report.failures.push(
          `${name}: the server took ${shown(bytes)} with ${descriptors.length} descriptors`,
        );
      }
      // The guest is there as long as its process is.
      this.leave();
      return;
    }
    const message = /"message":"(.*?[^\\])"/.exec(text)?.[1];
    if (message === undefined || !isHungUp) {
      this.#report.failures.push(`${name}: the server said ${JSON.stringify(answer)} to ${shown(bytes)}`);
    } else this.#report.refusal(message);
    if (right !== undefined && isWhole) {
      this.#report.failures.push(`${name}: the server refused ${shown(bytes)}: ${text}`);
    }
  }

  #descriptors(uffd: number): number[] {
    const kind = this.#random.below(8);
    if (kind === 0) return [];
    if (kind === 1) return [uffd, uffd];
    return kind === 2 ? [0] : [uffd];
  }
}

/** What the server has when it has come to rest: no guests, a spare, and `descriptors` if that many are awaited. */
async function settled(server: RunningServer, folder: string, descriptors?: number): Promise<Holdings> {
  const client = createClient({ socket: join(folder, "run", "control.sock") });
  const until = performance.now() + SETTLE_MS;
  let last: Holdings | undefined;
  for (;;) {
    const { keeperPid, sparePid, guests } = await client.health();
    if (guests === 0 && sparePid !== undefined) {
      const seen = holdings([keeperPid, sparePid, server.pid]);
      const isStill =
        descriptors === undefined ? last?.descriptors === seen.descriptors : seen.descriptors === descriptors;
      if (isStill || performance.now() > until) return seen;
      last = seen;
    }
    if (performance.now() > until + SETTLE_MS) throw new Error("The server does not come to rest");
    await delay(50);
  }
}

function holdings(pids: readonly number[]): Holdings {
  let [descriptors, bytes] = [0, 0];
  for (const pid of pids) {
    descriptors += readdirSync(`/proc/${pid}/fd`).length;
    const text = readFileSync(`/proc/${pid}/status`, "utf8");
    for (const name of ["RssAnon", "RssShmem"]) {
      bytes += Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1]) * 1024;
    }
  }
  return { descriptors, bytes };
}

async function checkService(socket: string, image: string, report: Report): Promise<void> {
  const vmm = startVmm({ socket, regions: IMAGE_BYTES, image });
  try {
    const wrong = [...(await vmm.touch({})).wrong, ...(await vmm.verify())];
    for (const each of wrong) report.failures.push(`a guest that came afterwards: ${each}`);
  } finally {
    vmm.close();
  }
}
