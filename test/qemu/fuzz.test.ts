// A short run of `npm run fuzz -- qemu`: the long one is for whoever changes a parser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fuzzQemu } from "../fuzz/qemu.ts";
import { seedOf } from "../image/content.ts";

test("damaged streams and return paths are read or refused, the same way in pieces of any size", (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const { outcomes, failures } = fuzzQemu(6000, seed);
  assert.deepEqual(failures, []);
  for (const [name, { refused, harmless }] of Object.entries(outcomes)) {
    assert.ok(refused > 100 && harmless > 100, `${name}: ${refused} refused, ${harmless} harmless`);
  }
});
