// `npm run sim`: schedules of the pager's simulation, one seed or many.
//
//   npm run sim -- --seed 7 --steps 60      one schedule, as npm test had it, with what happened if it fails
//   npm run sim -- --schedules 100000       so many, from a seed that is printed

import { parseArgs } from "node:util";
import { simulate } from "./simulate.ts";

const USAGE = `npm run sim -- [--seed S] [--steps N] [--schedules N] [--verbose]

Schedules of the pager's simulation: one with a seed, 10,000 from one that is printed without. Exit code 1 when one fails.`;

const { values } = parseArgs({
  options: {
    help: { type: "boolean", short: "h", default: false },
    seed: { type: "string" },
    steps: { type: "string", default: "40" },
    schedules: { type: "string" },
    verbose: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}
const steps = Number(values.steps);
const first = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
const schedules = Number(values.schedules ?? (values.seed === undefined ? 10_000 : 1));
console.log(`${schedules} schedules of ${steps} steps from seed ${first}`);
const started = performance.now();
for (let index = 0; index < schedules; index++) {
  const failure = simulate((first + index) % 2 ** 32, steps);
  if (failure === undefined) continue;
  for (const line of failure.log) console.log(`  ${line}`);
  console.log(`seed ${failure.seed}, step ${failure.step}: ${failure.message}`);
  console.log(`npm run sim -- --seed ${failure.seed} --steps ${steps} repeats it`);
  process.exit(1);
}
const seconds = (performance.now() - started) / 1000;
console.log(`all held, ${seconds.toFixed(1)} s, ${((seconds / schedules) * 1000).toFixed(2)} ms each`);
