// What was read to be pushed: given bit by bit, and its memory given back when the last bit has left.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Pages } from "../../src/guest/qemu/page-content.ts";
import { PushQueue } from "../../src/guest/qemu/push-queue.ts";

const PAGE = 4096;

function contentOf(first: number, zeros: readonly number[], released: string[]) {
  return {
    first,
    count: zeros.length,
    bytes: new Uint8Array(zeros.length * PAGE),
    stride: PAGE,
    zeros: Uint8Array.from(zeros),
    release: () => {
      released.push(`from ${first}`);
    },
  };
}

test("pages are taken in order, zeros apart, and no more at once than is wanted", () => {
  const queue = new PushQueue();
  const released: string[] = [];
  const taken: [number, number, boolean][] = [];
  queue.add(contentOf(10, [0, 0, 0, 1, 1, 0], released));
  queue.add(contentOf(30, [1], released));
  while (!queue.isEmpty) {
    queue.take(2, ({ first, count, bytes }) => {
      assert.equal(bytes?.byteLength ?? count * PAGE, count * PAGE);
      taken.push([first, count, bytes === undefined]);
    });
  }
  assert.deepEqual(taken, [
    [10, 2, false],
    [12, 1, false],
    [13, 2, true],
    [15, 1, false],
    [30, 1, true],
  ]);
  assert.deepEqual(released, ["from 10", "from 30"]);
});

test("memory that is on its way out is not given back", () => {
  const queue = new PushQueue();
  const released: string[] = [];
  const given: Pages[] = [];
  queue.add(contentOf(0, [0, 0], released));
  const give = (pages: Pages): void => {
    given.push(pages);
    queue.leaving(pages.bytes!);
  };
  queue.take(1, give);
  queue.take(1, give);
  assert.ok(queue.isEmpty);
  queue.left(given[0]!.bytes!);
  assert.deepEqual(released, []);
  queue.left(given[1]!.bytes!);
  assert.deepEqual(released, ["from 0"]);
  // Bytes of somebody else's are nobody's business here.
  queue.leaving(new Uint8Array(8));
  queue.left(new Uint8Array(8));
});
