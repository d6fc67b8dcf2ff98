// How fast the rest follows beside a guest that asks: little at a time, all of it in the end, and at once when it is calm.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PushPace } from "../../src/guest/qemu/push-pace.ts";

/** Pages that are pushed in so many milliseconds to a destination that takes all; the guest asks every `everyMs`. */
function pushed(ms: number, everyMs: number, isWaiting = false): { pages: number; atOnce: number } {
  const pace = new PushPace();
  let [pages, atOnce] = [0, 0];
  let askedAt = Number.NEGATIVE_INFINITY;
  for (let now = 0; now < ms; ) {
    if (now - askedAt >= everyMs) {
      pace.touched(now);
      askedAt = now;
    }
    if (pace.pause(now, isWaiting) === 0) {
      const portion = pace.portion(now, isWaiting);
      pages += portion;
      atOnce = Math.max(atOnce, portion);
    }
    now += 0.125;
  }
  return { pages, atOnce };
}

test("a guest that asks has little before its pages, and the rest comes all the same", () => {
  const { pages, atOnce } = pushed(1000, 0.25);
  assert.equal(atOnce, 8);
  assert.equal(pages, 8 * 1000);
});

test("a guest that waits for a page is one that asks, however long it waits", () => {
  assert.deepEqual(pushed(1000, Number.POSITIVE_INFINITY, true), { pages: 8 * 1000, atOnce: 8 });
});

test("a guest that is calm gets everything as fast as it can be sent", () => {
  assert.deepEqual(pushed(1000, Number.POSITIVE_INFINITY), { pages: 8 * 3 + 64 * 8 * 997, atOnce: 64 });
});

test("when the guest last asked is known", () => {
  const pace = new PushPace();
  assert.equal(pace.touchedAt, Number.NEGATIVE_INFINITY);
  pace.touched(7);
  assert.equal(pace.touchedAt, 7);
});
