// How quiet the machine was: processor time that others used (foreign) or that the hypervisor gave to others (stolen)
// while something was measured. Both in CPUs: 0.5 is half of one CPU over the whole time.

import { readdirSync, readFileSync } from "node:fs";

/** /proc counts in hundredths of a second. */
const TICKS_PER_SECOND = 100;
/** More than this, and a round is measured again. */
export const NOISE_MAX = 0.15;

export interface Load {
  readonly seconds: number;
  readonly foreign: number;
  readonly stolen: number;
}

interface Sample {
  readonly atMs: number;
  readonly busy: number;
  readonly stolen: number;
  readonly own: number;
}

export class LoadMeter {
  /** Processes of the benchmark besides this one. */
  readonly #pids = new Set<number>();
  /** Those of them that start others, which nobody but they themselves knows. */
  readonly #parents = new Set<number>();
  #credit = 0;
  #from: Sample = this.#sample();

  /** `withChildren`: what those have used that it has started and waited for is ours as well. */
  add(pid: number, { withChildren = false } = {}): void {
    this.#pids.add(pid);
    if (withChildren) this.#parents.add(pid);
  }

  begin(): void {
    this.#credit = 0;
    this.#from = this.#sample();
  }

  /** Processor time of a process of the benchmark that has ended since `begin`. */
  credit(seconds: number): void {
    this.#credit += seconds;
  }

  /** A process of the benchmark is about to end: what it has used stays ours. */
  leave(pid: number): void {
    if (this.#pids.delete(pid)) this.#credit += this.#secondsOf(pid);
    this.#parents.delete(pid);
  }

  /** Since `begin`. */
  end(): Load {
    const [from, to] = [this.#from, this.#sample()];
    const seconds = Math.max((to.atMs - from.atMs) / 1000, 0.001);
    const foreign = Math.max(0, to.busy - from.busy - (to.own - from.own) - this.#credit) / seconds;
    return { seconds, foreign, stolen: (to.stolen - from.stolen) / seconds };
  }

  /** Waits until a second passes in which nobody else did much, at most so long; answers the last look. */
  async quiet(secondsMax: number): Promise<Load> {
    for (let waited = 0; ; waited++) {
      this.begin();
      await new Promise((resolve) => setTimeout(resolve, 500));
      const load = this.end();
      if (load.foreign + load.stolen < NOISE_MAX || waited >= secondsMax * 2) return load;
    }
  }

  #secondsOf(pid: number): number {
    return processSeconds(pid, this.#parents.has(pid));
  }

  #sample(): Sample {
    const [, ...fields] = (readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "").trim().split(/\s+/);
    const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = fields.map(Number);
    const { user: ownUser, system: ownSystem } = process.cpuUsage();
    let own = (ownUser + ownSystem) / 1e6;
    for (const pid of this.#pids) own += this.#secondsOf(pid);
    return {
      atMs: performance.now(),
      busy: (user + nice + system + irq + softirq) / TICKS_PER_SECOND,
      stolen: steal / TICKS_PER_SECOND,
      own,
    };
  }
}

/**
 * Processor time of another process with its threads, 0 when it has ended. The system's ticks are rounded down to 10 ms twice a
 * process, which is all that a short one has used; what its threads that live have used it knows to the nanosecond.
 */
function processSeconds(pid: number, withChildren: boolean): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const ticks = fields.slice(11, withChildren ? 15 : 13).map(Number);
    const told = ticks.reduce((sum, each) => sum + each, 0) / TICKS_PER_SECOND;
    return Math.max(told, threadSeconds(pid));
  } catch {
    return 0;
  }
}

/** By threads that live. */
function threadSeconds(pid: number): number {
  let nanoseconds = 0;
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    nanoseconds += Number.parseInt(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, "utf8"), 10);
  }
  return nanoseconds / 1e9;
}
