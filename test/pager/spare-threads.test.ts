// Threads that are prepared before a pager needs them.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { prepareThreads } from "../../src/pager/index.ts";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import { Guest, imageByte } from "./guest.ts";

const MODULE = new URL("./fixtures/source.js", import.meta.url).href;

describe("prepared threads", { skip, timeout: 300_000 }, () => {
  test("a pager that takes them serves like any other, and so does the one after it, which has none", async (t) => {
    await prepareThreads();
    for (const when of ["prepared", "not prepared"]) {
      const guest = new Guest();
      t.after(() => guest.close());
      const started = performance.now();
      await guest.pager({ source: { module: MODULE, argument: { byteLength: guest.byteLength } } });
      t.diagnostic(`${when}: ${(performance.now() - started).toFixed(1)} ms`);
      assert.equal(guest.load(9), imageByte(9));
    }
  });

  test("threads that nobody has taken do not keep the process alive", async () => {
    await prepareThreads(2);
    // This file would not end.
  });
});
