// One fault at a time: the C handler and ours, on the guest's CPU and on another; and each placement by hand
// against what `auto` chooses. All handlers are there all the time, each waiting on a range of its own.

import { readFileSync } from "node:fs";
import { PAGE_SIZE } from "../src/abi/memory.ts";
import type { Pager, PlacementChoice } from "../src/pager/index.ts";
import type { CHandlers } from "./c-handler.ts";
import type { LoadMeter } from "./load.ts";
import { atLeast, atMost, type Group, measured, type Verdict } from "./report.ts";
import { alternate, type Contestant, medianOf, ratioOf, roundsMax, type Series } from "./rounds.ts";
import type { Range, Stand } from "./stand.ts";

const COLUMNS = [
  { key: "p50", title: "p50 µs", digits: 2 },
  { key: "p99", title: "p99 µs", digits: 2 },
  { key: "mean", title: "mean µs", digits: 2 },
];

export interface LatencyOptions {
  readonly stand: Stand;
  readonly meter: LoadMeter;
  readonly handlers: CHandlers | undefined;
  readonly rounds: number;
  /** Faults a run where one takes a few microseconds, and where it takes many. */
  readonly fast: number;
  readonly slow: number;
}

/** Ranges and handlers of one group, and how to get rid of them. */
class Field {
  readonly contestants: Contestant[] = [];
  readonly #options: LatencyOptions;
  readonly #ranges: Range[] = [];
  readonly #pagers: Pager[] = [];

  constructor(options: LatencyOptions) {
    this.#options = options;
  }

  async c(name: string, mode: "block" | "spin", cpu: number, faults: number): Promise<void> {
    const { handlers, stand } = this.#options;
    if (handlers === undefined) return;
    const range = this.#range(name, faults);
    await handlers.serve(mode, stand.post(range, cpu));
  }

  async ours(name: string, placement: PlacementChoice, faults: number): Promise<Pager> {
    const pager = await this.#options.stand.pager(this.#range(name, faults), placement);
    this.#pagers.push(pager);
    return pager;
  }

  /** A range with fresh pages for every round. */
  #range(name: string, faults: number): Range {
    const { stand, rounds } = this.#options;
    const bytes = faults * PAGE_SIZE;
    const range = stand.map(bytes * roundsMax(rounds));
    this.#ranges.push(range);
    this.contestants.push({
      name,
      run: (round) => ({ ...stand.walk(range.base + round * bytes, faults) }),
    });
    return range;
  }

  async close(): Promise<void> {
    await this.#options.handlers?.stop();
    for (const pager of this.#pagers) await pager.close();
    for (const range of this.#ranges) this.#options.stand.unmap(range);
  }
}

export async function oneFaultAtATime(options: LatencyOptions): Promise<Group> {
  const { stand, meter, rounds, fast, slow, handlers } = options;
  const field = new Field(options);
  try {
    await field.c("C, same CPU", "block", stand.home, fast);
    await field.ours("ours, same CPU", "same-cpu", fast);
    if (stand.other !== undefined) {
      await field.c("C, other CPU", "block", stand.other, slow);
      await field.ours("ours, other CPU", "block", slow);
    }
    const series = await alternate(field.contestants, rounds, meter);
    const verdicts: Verdict[] = [];
    if (handlers !== undefined) {
      const same = (figure: string): number => ratioOf(series, figure, "ours, same CPU", "C, same CPU");
      verdicts.push(atMost("same CPU, p50, ours : C", same("p50"), 1.1));
      verdicts.push(atMost("same CPU, p99, ours : C", same("p99"), 1.3));
      if (stand.other !== undefined) {
        const other = ratioOf(series, "p50", "ours, other CPU", "C, other CPU");
        verdicts.push(atMost("other CPU, p50, ours : C", other, 1.05));
      }
    }
    return group("One fault at a time, blocking", series, verdicts, [
      `${fast} faults a run on the same CPU, ${slow} on another; time of the access as the guest sees it (rdtsc)`,
    ]);
  } finally {
    await field.close();
  }
}

export async function placements(options: LatencyOptions): Promise<Group> {
  const { stand, meter, rounds, fast, slow, handlers } = options;
  const field = new Field(options);
  try {
    const byHand: string[] = [];
    const add = async (placement: PlacementChoice, faults: number): Promise<Pager> => {
      const name = `ours, ${placement}`;
      if (placement !== "auto") byHand.push(name);
      return field.ours(name, placement, faults);
    };
    const auto = await add("auto", fast);
    await add("same-cpu", fast);
    let spinner: Pager | undefined;
    if (stand.other !== undefined) {
      spinner = await add("spin", slow);
      await add("block", slow);
      await field.c("C, other CPU, blocking", "block", stand.other, slow);
    }
    const series = await alternate(field.contestants, rounds, meter);
    const best = byHand.reduce((a, b) => (medianOf(series, a, "p50") <= medianOf(series, b, "p50") ? a : b));
    const verdicts = [
      atMost(`auto : best by hand (${best})`, ratioOf(series, "p50", "ours, auto", best), 1.1),
    ];
    if (handlers !== undefined && stand.other !== undefined) {
      const gain = ratioOf(series, "p50", "C, other CPU, blocking", "ours, auto");
      verdicts.push(atLeast("blocking C on another CPU : auto", gain, 4));
    }
    const parked = [auto, ...(spinner === undefined ? [] : [spinner])];
    const share = await parkedShare(parked.map(({ threadId }) => threadId));
    verdicts.push(atMost("CPU used by parked pagers, %", share * 100, 0));
    const { placement } = auto;
    const test = placement.selfTest;
    const notes = [`auto chose ${placement.mode}: ${placement.why}`];
    if (test !== undefined) {
      verdicts.push(atMost("self-test, ms", test.durationMs, 100));
    }
    return group("Placement: by hand and auto", series, verdicts, notes);
  } finally {
    await field.close();
  }
}

/** The share of one second that threads of this process ran while nobody faulted. */
async function parkedShare(threads: readonly number[]): Promise<number> {
  const used = (): number =>
    threads.reduce((sum, tid) => {
      const [ran = "0"] = readFileSync(`/proc/self/task/${tid}/schedstat`, "utf8").split(" ");
      return sum + Number(ran) / 1e9;
    }, 0);
  // A pager that spins parks a millisecond after the last fault.
  await new Promise((resolve) => setTimeout(resolve, 100));
  const before = used();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  return used() - before;
}

function group(title: string, series: Series, verdicts: readonly Verdict[], notes: readonly string[]): Group {
  return { title, columns: COLUMNS, ...measured(series), verdicts, notes };
}
