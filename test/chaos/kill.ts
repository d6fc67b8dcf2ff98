// Kills the processes of a page server again and again while machines are restored from it, touch, store, give pages away,
// and hash what they have: at random moments, and at each of the labelled steps. What a machine reads must be right, and it
// must never wait beyond the deadline.
//
// Somebody has to be left who knows everything: of pager, keeper and spare, two are killed together only while the third
// one is warm. All three at once are what a host's end is.

import { setTimeout as delay } from "node:timers/promises";
import { ERRNO } from "../../src/abi/errno.ts";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { STEPS, type Step } from "../../src/daemon/step.ts";
import { KernelSystem } from "../../src/guest/process/index.ts";
import { isAlive, Stand, tryKill } from "../daemon/stand.ts";
import { startVmm, type Vmm } from "../daemon/vmm.ts";

const PAGES = 1024;
const MACHINES = 2;
/** How long a machine may wait for one page, whatever happens, also where other tests take most of both cores. */
export const DEADLINE_MS = 40_000;
/** Waits that are told of: a takeover by a process that is loaded takes a tenth of that. */
const LONG_MS = 250;
/** Rounds of work after which a machine is checked whole and replaced. */
const ROUNDS = 12;
/** What a connection answers that died with whoever had just accepted it. */
const LOST: ReadonlySet<number | undefined> = new Set([ERRNO.ECONNRESET, ERRNO.EPIPE]);
/** Between two deaths, at most. */
const PAUSE_MS = 120;

export interface KillReport {
  /** Deaths by whom or at what step. */
  readonly deaths: Readonly<Record<string, number>>;
  readonly takeovers: number;
  readonly machines: number;
  readonly pagesChecked: number;
  /** Connections that were lost with the keeper that had just accepted them; their machines connected again. */
  readonly lostConnections: number;
  /** What a machine has waited for a page at most. */
  readonly longestWaitMs: number;
  /** Those that were longer than that of any takeover by somebody who was warm, with the deaths before each. */
  readonly longWaits: readonly LongWait[];
  readonly failures: readonly string[];
}

export interface LongWait {
  readonly ms: number;
  readonly before: readonly string[];
}

export async function chaosKill(
  count: number,
  seed: number,
  onProgress: (done: number) => void = () => undefined,
): Promise<KillReport> {
  const stand = await Stand.open({ pages: PAGES, canDie: true });
  const chaos = new Chaos(stand, seed);
  try {
    return await chaos.run(count, onProgress);
  } finally {
    await stand.close();
  }
}

class Chaos {
  readonly #stand: Stand;
  readonly #random: Random;
  readonly #seed: number;
  readonly #system = new KernelSystem();
  readonly #deaths: Record<string, number> = {};
  readonly #failures: string[] = [];
  readonly #lately: string[] = [];
  #machines = 0;
  #pagesChecked = 0;
  #lostConnections = 0;
  #longestWaitMs = 0;
  readonly #longWaits: LongWait[] = [];
  #isOver = false;

  constructor(stand: Stand, seed: number) {
    this.#stand = stand;
    this.#seed = seed;
    this.#random = new Random(seed);
  }

  async run(count: number, onProgress: (done: number) => void): Promise<KillReport> {
    const lives = Array.from({ length: MACHINES }, (_, index) => this.#live(index));
    try {
      for (let done = 0; done < count && this.#failures.length === 0; done++) {
        await this.#killOne();
        onProgress(done + 1);
        await delay(this.#random.below(PAUSE_MS));
      }
    } catch (error) {
      this.#fail("the server", error);
    }
    this.#isOver = true;
    await Promise.all(lives);
    this.#system.close();
    return {
      deaths: this.#deaths,
      takeovers: this.#stand.count("serving") - 1,
      machines: this.#machines,
      pagesChecked: this.#pagesChecked,
      lostConnections: this.#lostConnections,
      longestWaitMs: this.#longestWaitMs,
      longWaits: this.#longWaits,
      failures: this.#failures,
    };
  }

  // ── the nemesis ──

  async #killOne(): Promise<void> {
    const kinds = ["pager", "pager", "keeper", "spare", "both", "step", "step", "step", "step"] as const;
    const kind = kinds[this.#random.below(kinds.length)]!;
    if (kind === "step") await this.#killAtStep();
    else await this.#killNow(kind);
  }

  async #killNow(kind: "pager" | "keeper" | "spare" | "both"): Promise<void> {
    const stand = this.#stand;
    if (kind === "both" || kind === "spare") await stand.untilSpare();
    this.#count(kind);
    const [served, keepers] = [stand.count("serving"), stand.count("keeper")];
    const { keeperPid, sparePid } = stand;
    if (kind === "spare") tryKill(sparePid);
    if (kind === "keeper" || kind === "both") tryKill(keeperPid);
    if (kind === "pager" || kind === "both") tryKill(stand.server.pid);
    if (kind === "spare") await stand.until(() => stand.sparePid !== sparePid, "a new spare");
    if (kind === "pager" || kind === "both") {
      await stand.until(() => stand.count("serving") > served, "a takeover");
    }
    if (kind === "keeper" || kind === "both") {
      await stand.until(() => stand.count("keeper") > keepers, "a new keeper");
    }
  }

  /** Whoever comes to the step next dies there; where nobody would by himself, something is done that leads there. */
  async #killAtStep(): Promise<void> {
    const stand = this.#stand;
    const groups = Object.keys(STEPS) as (keyof typeof STEPS)[];
    const group = groups[this.#random.below(groups.length)]!;
    const steps: readonly Step[] = STEPS[group];
    const step = steps[this.#random.below(steps.length)]!;
    await stand.untilSpare();
    this.#count(step);
    const [served, keepers] = [stand.count("serving"), stand.count("keeper")];
    stand.dieAt(step);
    if (group === "takeover") await this.#takeOverUntilDeath();
    if (group === "keeper") tryKill(stand.keeperPid);
    if (group === "spare") tryKill(stand.sparePid);
    await stand.until(() => stand.hasDied, `the death at ${step}`);
    // Of whom, is told by what comes next.
    const isFounder = group === "keeper" && step !== "keeper-born";
    if (group === "takeover" || group === "handOver" || isFounder) {
      const isServed = () => stand.count("serving") > served && isAlive(stand.server.pid);
      await stand.until(isServed, `a takeover after ${step}`);
    }
    // Who founded a keeper has died over it. Once that one runs, whoever took over may die as well: all is in its links.
    const isFounded = isFounder && step !== "keeper-link";
    if (isFounded && this.#random.below(2) === 0) await this.#killHeir(step);
    if (group === "accept" || group === "keeper" || group === "spare") {
      await stand.until(() => stand.count("keeper") > keepers, `a keeper after ${step}`);
    }
    await stand.untilSpare();
  }

  async #killHeir(step: Step): Promise<void> {
    const stand = this.#stand;
    const [served, heir] = [stand.count("serving"), stand.server.pid];
    this.#count(`heir after ${step}`);
    tryKill(heir);
    await stand.until(
      () => stand.count("serving") > served && stand.server.pid !== heir,
      `a takeover by the keeper of ${step}`,
    );
  }

  /** The step comes with a takeover, and maybe with a guest that is taken over: until somebody has died there. */
  async #takeOverUntilDeath(): Promise<void> {
    const stand = this.#stand;
    while (!stand.hasDied) {
      await stand.untilSpare();
      const served = stand.count("serving");
      tryKill(stand.server.pid);
      await stand.until(
        () => stand.hasDied || stand.count("serving") > served,
        "a takeover or a death in it",
      );
    }
  }

  #count(what: string): void {
    this.#lately.push(`${what} at ${new Date().toISOString()}`);
    this.#deaths[what] = (this.#deaths[what] ?? 0) + 1;
  }

  // ── the machines ──

  async #live(index: number): Promise<void> {
    const random = new Random(this.#seed + 1 + index);
    while (!this.#isOver && this.#failures.length === 0) {
      const vmm = startVmm({
        socket: this.#stand.socket,
        regions: [{ byteLength: (PAGES / 2) * PAGE_SIZE }, { byteLength: (PAGES / 2) * PAGE_SIZE }],
        image: this.#stand.imagePath,
        system: this.#system,
        deadlineMs: DEADLINE_MS,
        handOver: false,
      });
      try {
        this.#machines++;
        if (await this.#isTaken(vmm)) await this.#work(vmm, random);
        else this.#lostConnections++;
      } catch (error) {
        this.#fail(`machine ${index}`, error);
      } finally {
        vmm.close();
      }
    }
  }

  /** False when the connection was lost before anybody had looked at it: then nothing else has happened. */
  async #isTaken(vmm: Vmm): Promise<boolean> {
    const until = performance.now() + DEADLINE_MS;
    try {
      vmm.handOver();
      for (;;) {
        const { text, isHungUp } = vmm.heard();
        if (text.includes('"guest"')) return true;
        if (text !== "") throw new Error(`It was refused: ${text}`);
        if (isHungUp) return false;
        if (performance.now() > until) throw new Error("It was neither taken nor refused");
        await delay(1);
      }
    } catch (error) {
      if (error instanceof MinorfaultError && LOST.has(error.errno)) return false;
      throw error;
    }
  }

  async #work(vmm: Vmm, random: Random): Promise<void> {
    for (let round = 0; round < ROUNDS && !this.#isOver; round++) {
      const from = random.below(PAGES - 64);
      const walking = vmm.begin(
        { from, count: 64, shuffle: random.uint32() },
        round % 4 === 3 ? "store" : "read",
      );
      if (round % 3 === 0) await vmm.balloon(random.below(PAGES / 2 - 32), 1 + random.below(32));
      const { latenciesUs, wrong } = await walking.ended();
      this.#noteWait(latenciesUs.reduce((most, us) => Math.max(most, us / 1000), 0));
      this.#told("a walk", wrong);
      this.#told("hashes", await vmm.verify({ from: random.below(PAGES - 64), count: 64 }));
      this.#pagesChecked += 128;
    }
    this.#told("all hashes", await vmm.verify());
    this.#pagesChecked += PAGES;
  }

  #noteWait(ms: number): void {
    if (ms > LONG_MS) this.#longWaits.push({ ms, before: this.#lately.slice(-3) });
    this.#longestWaitMs = Math.max(this.#longestWaitMs, ms);
  }

  #told(what: string, wrong: readonly string[]): void {
    if (wrong.length > 0) this.#failures.push(`${what}: ${wrong.join("; ")}`);
  }

  #fail(who: string, error: unknown): void {
    const before = `; before: ${this.#lately.slice(-4).join(", ")}; ${JSON.stringify(this.#stand.events.slice(-30))}`;
    this.#failures.push(`${who}: ${error instanceof Error ? error.message : String(error)}${before}`);
  }
}
