// Twenty deaths of the page server's processes under load, a thousand with `npm run chaos -- kill`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { chaosKill } from "./kill.ts";

test("no page is wrong and no machine waits too long, whoever dies", {
  skip: skipUnlessUserfaultfd,
}, async (t) => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.diagnostic(`seed ${seed}`);
  const { failures, pagesChecked, longestWaitMs, takeovers } = await chaosKill(20, seed);
  assert.deepEqual(failures, []);
  assert.ok(pagesChecked > 0);
  t.diagnostic(`${takeovers} takeovers, ${pagesChecked} pages, longest wait ${longestWaitMs.toFixed(0)} ms`);
});
