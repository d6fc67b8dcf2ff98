// Control calls at random. `npm run fuzz -- control` makes more of them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fuzzControl } from "../fuzz/control.ts";
import { openScene } from "./scene.ts";

const COUNT = 10_000;

test(`${COUNT} control calls at random are answered or refused, and leave nothing behind`, async (t) => {
  const scene = await openScene(t);
  const seed = Math.floor(Math.random() * 2 ** 32);
  t.diagnostic(`seed ${seed}`);
  const { failures, statuses, descriptors } = await fuzzControl(scene, COUNT, seed);
  t.diagnostic(JSON.stringify(statuses));
  assert.deepEqual(failures.slice(0, 5), []);
  // What was wrong was refused, and what was right was done.
  for (const status of ["200", "201", "400", "403", "404", "413", "415", "bytes"]) {
    assert.ok((statuses[status] ?? 0) > 0, `no ${status}`);
  }
  assert.ok(descriptors.after <= descriptors.before + 2, JSON.stringify(descriptors));
});
