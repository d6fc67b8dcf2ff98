// The pager's decisions in ten thousand worlds: see world.ts for what is checked after each step.

import assert from "node:assert/strict";
import { test } from "node:test";
import { simulate } from "./simulate.ts";

const SCHEDULES = 10_000;
const STEPS = 40;

test("10,000 schedules: failing, hanging, lying sources, events during copies, deaths: no wrong byte, no silent zero, no fault left", (t) => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  t.diagnostic(`seed ${seed} (SEED=${seed} repeats this run)`);
  for (let index = 0; index < SCHEDULES; index++) {
    const failure = simulate((seed + index) % 2 ** 32, STEPS);
    if (failure === undefined) continue;
    assert.fail(
      `${failure.message}\n${failure.log.join("\n")}\nnpm run sim -- --seed ${failure.seed} --steps ${STEPS} repeats it`,
    );
  }
});
