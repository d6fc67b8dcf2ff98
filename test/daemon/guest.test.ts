// Guests as a successor finds them in the ledger.

import assert from "node:assert/strict";
import { test } from "node:test";
import { byNeed } from "../../src/daemon/guest.ts";
import type { Entry } from "../../src/daemon/link.ts";
import { close, local, send, socketPair } from "../../src/linux/index.ts";

test("who waits is found among more guests than are polled in one go", () => {
  const count = 20_000;
  const [quiet, theirs] = socketPair(local);
  const [ready, peer] = socketPair(local);
  send(local, peer, new Uint8Array(1));
  const isWaiting = (index: number) => index % 3000 === 0 || index === count - 1;
  const entries = Array.from(
    { length: count },
    (_, index): Entry => ({
      id: String(index),
      type: "guest",
      text: "",
      descriptors: [isWaiting(index) ? ready : quiet],
    }),
  );
  const { waiting, others } = byNeed(entries);
  const expected = entries.filter((_, index) => isWaiting(index));
  assert.deepEqual(
    waiting.map(({ id }) => id),
    expected.map(({ id }) => id),
  );
  assert.equal(others.length, count - expected.length);
  for (const fd of [quiet, theirs, ready, peer]) close(local, fd);
});
