// Many random programs until so many operations have been compared; every divergence is cut down to a small program
// that still shows it.

import fc from "fast-check";
import type { System } from "../../src/abi/system.ts";
import { compare, type Divergence } from "./compare.ts";
import { type Program, programs } from "./steps.ts";

export interface CampaignOptions {
  readonly operations: number;
  readonly seed: number;
  /** Whether there are huge pages to play with; default true. */
  readonly huge?: boolean;
  /** Steps of a program; default 60. */
  readonly stepsMax?: number;
  /** Divergences after which it stops; default 10. */
  readonly divergencesMax?: number;
  readonly onProgress?: (done: number) => void;
}

export interface Found extends Divergence {
  readonly seed: number;
  readonly program: Program;
  /**
   * It does not happen every time with the same program. The software system has no chance in it, so it is the
   * kernel that answers now this and now that: no divergence of ours, but counted, and few are allowed.
   */
  readonly chance: boolean;
}

export interface Campaign {
  readonly operations: number;
  readonly programs: number;
  readonly counts: ReadonlyMap<string, number>;
  readonly found: readonly Found[];
}

/** How long a failing program may be cut down. */
const SHRINK_MS = 20_000;
const STEPS_MAX = 60;
/** How often a program that diverged is run again: always, or now and then? */
const REPEATS = 10;

export async function campaign(
  systems: readonly [System, System],
  options: CampaignOptions,
): Promise<Campaign> {
  const counts = new Map<string, number>();
  const found: Found[] = [];
  let operations = 0;
  let runs = 0;
  const arbitrary = programs(options.stepsMax ?? STEPS_MAX, options.huge ?? true);
  for (let round = 0; operations < options.operations; round++) {
    const seed = options.seed + round;
    // Address ranges of closed memory are given back in the event loop, when their views have been collected.
    await new Promise((next) => setImmediate(next));
    let shrinkUntil = Number.POSITIVE_INFINITY;
    let last: Divergence | undefined;
    // Each round is one seed of fast-check's: many programs, until one fails and has been cut down.
    const outcome = fc.check(
      fc.property(arbitrary, (program) => {
        if (operations >= options.operations && shrinkUntil === Number.POSITIVE_INFINITY) return;
        if (performance.now() > shrinkUntil) return;
        const run = compare(program, systems);
        runs++;
        for (const [name, count] of run.counts) {
          operations += count;
          counts.set(name, (counts.get(name) ?? 0) + count);
        }
        options.onProgress?.(operations);
        if (run.divergence === undefined) return;
        last = run.divergence;
        shrinkUntil = Math.min(shrinkUntil, performance.now() + SHRINK_MS);
        throw new Error("diverged");
      }),
      { seed, numRuns: 50 },
    );
    if (!outcome.failed || outcome.counterexample === null) continue;
    const [program] = outcome.counterexample;
    const repeats = Array.from({ length: REPEATS }, () => compare(program, systems).divergence);
    const chance = repeats.includes(undefined);
    const parted = repeats.find((divergence) => divergence !== undefined) ?? last;
    if (parted !== undefined) found.push({ seed, program, chance, ...parted });
    if (found.length >= (options.divergencesMax ?? 10)) break;
  }
  return { operations, programs: runs, counts, found };
}

/** A divergence for people. */
export function report(
  { seed, chance, acts, first, second }: Found,
  names: readonly [string, string],
): string {
  return [
    `seed ${seed}${chance ? " (the same program does it now and then)" : ""}:`,
    ...acts.map((act) => `    ${act}`),
    ...first.map((line) => `  ${names[0]}: ${line}`),
    ...second.map((line) => `  ${names[1]}: ${line}`),
  ].join("\n");
}
