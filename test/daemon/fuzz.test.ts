// Hand-overs at random (test/fuzz/server.ts), fewer of them than `npm run fuzz -- server` sends.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fuzzServer } from "../fuzz/server.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";

const COUNT = 20_000;

test(`${COUNT} hand-overs at random: what is right is taken, all else is refused, nothing leaks`, async (t) => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  t.diagnostic(`seed ${seed}`);
  const { taken, refused, failures, served } = await fuzzServer(COUNT, seed, {
    server: skipUnlessUserfaultfd === false,
  });
  assert.deepEqual(failures, []);
  assert.ok(taken > COUNT / 20, `only ${taken} were taken`);
  assert.ok(Object.keys(refused).length > 20, "there are more reasons to refuse");
  t.diagnostic(`${served} of them to a server`);
});
