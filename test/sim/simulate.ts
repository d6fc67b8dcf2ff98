// One schedule: a world from a seed, so many steps, and an end.

import { Random } from "../../src/base/random.ts";
import { createSystem } from "../../src/uffd/software/index.ts";
import { World } from "./world.ts";

export interface Failure {
  readonly seed: number;
  readonly step: number;
  readonly message: string;
  readonly log: readonly string[];
}

/** Rounds in which everything has to come to an end, once the weather is fine. */
const ROUNDS = 400;

/** Runs the schedule of a seed; what it answers is what went wrong. */
export function simulate(seed: number, steps: number): Failure | undefined {
  const random = new Random(seed);
  const system = createSystem();
  const weather = { failing: [0, 10, 40][random.below(3)]!, hanging: [0, 0, 10, 30][random.below(4)]! };
  const world = new World(system, random, weather);
  let step = 0;
  try {
    for (; step < steps; step++) world.step();
    world.finish(ROUNDS);
    return undefined;
  } catch (error) {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { seed, step, message, log: world.log };
  } finally {
    world.close();
    system.close();
  }
}
