// Who would like which units: taken once, what lies side by side as one.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Wanting } from "../../src/pager/fetch/wanting.ts";

test("what one would like side by side is one run, and is taken once", () => {
  const wanting = new Wanting<string>();
  for (const unit of [3, 4, 6]) wanting.add(unit, "a");
  for (const unit of [4, 5, 9]) wanting.add(unit, "b");
  const told = wanting.takeRuns(3, 4).map(({ client, first, until }) => `${client} ${first}-${until}`);
  assert.deepEqual(told.sort(), ["a 3-5", "a 6-7", "b 4-6"]);
  assert.deepEqual(wanting.takeRuns(3, 4), []);
  assert.ok(wanting.has(9, "b"));
});

test("who has gone would like nothing, and the others still do", () => {
  const wanting = new Wanting<string>();
  wanting.add(1, "a");
  wanting.add(1, "b");
  wanting.remove("a");
  assert.deepEqual([...wanting.take(1)], ["b"]);
  wanting.add(2, "a");
  wanting.forget(2);
  assert.equal(wanting.has(2, "a"), false);
});
