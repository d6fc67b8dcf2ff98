// Which placement is the fastest on this machine? Tried out, in some tens of milliseconds, before the first guest.
//
// On one machine waking a thread on another CPU costs 2 µs, on another, virtual one, 60; no table knows. So a second
// thread touches pages of a stage, this one serves them, in each placement in turn, three rounds, and the median counts.
//
//   pager's thread (here)                    toucher (toucher-worker.ts)
//   ADDRESS, COUNT, then GO += 1   ───────▶  touches COUNT pages, notes nanoseconds for each
//   serves exactly COUNT faults    ◀───────  DONE = GO

import { PAGE_SIZE } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import { local, setAffinity, setNonBlocking } from "../linux/index.ts";
import type { MedianUs } from "./control.ts";
import { COUNTER } from "./counters.ts";
import type { PlacementMode, PlacementReport } from "./options.ts";
import { type Stage, setStage } from "./rehearsal.ts";

/** Faults a round; three rounds of each placement. */
const FAULTS = 48;
const ROUNDS = 3;
/** LIMIT: a toucher that has not answered by then never will. */
const DEADLINE_MS = 500;

/** Index of each 32-bit word that the two threads share; the times follow. */
export const TOUCHER = {
  GO: 0,
  DONE: 1,
  ADDRESS_LOW: 2,
  ADDRESS_HIGH: 3,
  COUNT: 4,
  TID: 5,
  TIMES: 8,
} as const;
export const TOUCHER_WORDS: number = TOUCHER.TIMES + FAULTS;

/** Told to the toucher instead of a count: it may end. */
export const TOUCHER_END = -1;

export interface SelfTest {
  readonly durationMs: number;
  readonly medianUs: MedianUs;
}

/** Measures every placement that `cpus` allow; leaves the calling thread on all of them. */
export function selfTest(toucher: Int32Array, cpus: readonly number[]): SelfTest {
  const begin = performance.now();
  const modes: readonly PlacementMode[] = cpus.length > 1 ? ["same-cpu", "spin", "block"] : ["same-cpu"];
  const times = new Map<PlacementMode, number[]>(modes.map((mode) => [mode, []]));
  awaitWord(toucher, TOUCHER.TID, 0);
  const [home = 0] = cpus;
  setAffinity(local, [home], toucher[TOUCHER.TID]!);
  const stage = setStage(FAULTS);
  // A toucher that is only late would find nothing where it is told to touch.
  let isInUse = true;
  try {
    for (let round = 0; round < ROUNDS; round++) {
      for (const mode of modes) {
        setAffinity(local, mode === "same-cpu" ? [home] : cpus.filter((cpu) => cpu !== home));
        times.get(mode)?.push(...serveRound(stage, toucher, mode));
      }
    }
    isInUse = false;
  } finally {
    stage.close(isInUse);
    setAffinity(local, cpus);
  }
  const medians = [...times].map(([mode, list]) => [mode, median(list) / 1000]);
  return { durationMs: performance.now() - begin, medianUs: Object.fromEntries(medians) as MedianUs };
}

/** Tells the toucher that it is not needed any more. */
export function dismiss(toucher: Int32Array): void {
  toucher[TOUCHER.COUNT] = TOUCHER_END;
  Atomics.add(toucher, TOUCHER.GO, 1);
  Atomics.notify(toucher, TOUCHER.GO);
}

/** The report for the fastest placement of a self-test. */
export function fastest({ durationMs, medianUs }: SelfTest): PlacementReport {
  const ranking = (Object.entries(medianUs) as [PlacementMode, number][]).sort((a, b) => a[1] - b[1]);
  const [[mode, us] = ["block", 0] as const] = ranking;
  const others = ranking.slice(1).map(([other, otherUs]) => `${other} ${otherUs.toFixed(1)}`);
  const against = others.length === 0 ? "the only CPU" : `against ${others.join(", ")}`;
  return {
    asked: "auto",
    mode,
    why: `${us.toFixed(1)} us a fault in the self-test, ${against}`,
    selfTest: { durationMs, medianUs },
  };
}

function serveRound(stage: Stage, toucher: Int32Array, mode: PlacementMode): number[] {
  const { loop } = stage;
  stage.reset();
  setNonBlocking(local, loop.port.fd, mode === "spin");
  toucher[TOUCHER.ADDRESS_LOW] = stage.address;
  toucher[TOUCHER.ADDRESS_HIGH] = stage.address / 2 ** 32;
  toucher[TOUCHER.COUNT] = FAULTS;
  const go = Atomics.add(toucher, TOUCHER.GO, 1) + 1;
  Atomics.notify(toucher, TOUCHER.GO);
  const until = performance.now() + DEADLINE_MS;
  const { counters } = loop;
  const wanted = counters[COUNTER.FAULTS]! + FAULTS;
  while (counters[COUNTER.FAULTS]! < wanted) {
    loop.pump(wanted - counters[COUNTER.FAULTS]!);
    if (performance.now() > until) throw new MinorfaultError("ERR_DEADLINE", "The self-test did not end");
  }
  awaitWord(toucher, TOUCHER.DONE, go - 1);
  return Array.from(toucher.subarray(TOUCHER.TIMES, TOUCHER.TIMES + FAULTS));
}

/** Waits until a word is no longer what it was. */
function awaitWord(words: Int32Array, index: number, was: number): void {
  if (Atomics.wait(words, index, was, DEADLINE_MS) === "timed-out") {
    throw new MinorfaultError(
      "ERR_DEADLINE",
      "The thread that touches pages for the self-test did not answer",
    );
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}

/** Bytes that the toucher looks into. */
export const STAGE_BYTES: number = FAULTS * PAGE_SIZE;
