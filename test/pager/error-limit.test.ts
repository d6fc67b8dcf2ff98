// Errors that an owner is told of: the first ones, then some, and always how many there were.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { ERRORS_AT_ONCE, ERRORS_PER_SECOND, ErrorLimit } from "../../src/pager/error-limit.ts";
import type { ErrorNote } from "../../src/pager/notes.ts";

test("a million errors at once are a few messages that count them all", () => {
  let now = 1000;
  const told: ErrorNote[] = [];
  const limit = new ErrorLimit(
    (note) => told.push(note),
    () => now,
  );
  const report = (times: number): void => {
    for (let time = 0; time < times; time++) limit.report(new MinorfaultError("ERR_DEADLINE", "too late"));
  };
  report(1_000_000);
  assert.equal(told.length, ERRORS_AT_ONCE);
  assert.ok(told.every(({ code, message }) => code === "ERR_DEADLINE" && message === "too late"));
  now += 1000;
  report(100);
  assert.equal(told.length, ERRORS_AT_ONCE + ERRORS_PER_SECOND);
  assert.equal(
    told[ERRORS_AT_ONCE]?.message,
    `too late (${1_000_000 - ERRORS_AT_ONCE} errors before it were not told)`,
  );
  assert.equal(told[ERRORS_AT_ONCE + 1]?.message, "too late");
  limit.end();
  limit.end();
  assert.equal(told.length, ERRORS_AT_ONCE + ERRORS_PER_SECOND + 1);
  assert.match(told.at(-1)?.message ?? "", /^92 errors at the end/);
  assert.equal(told.at(-1)?.code, "ERR_LIMIT");
});

test("after a quiet while there is room again, and not more than at the beginning", () => {
  let now = 0;
  let told = 0;
  const limit = new ErrorLimit(
    () => told++,
    () => now,
  );
  for (let second = 0; second < 3; second++) {
    for (let time = 0; time < 1000; time++) limit.report(new MinorfaultError("ERR_DEADLINE", "too late"));
    now += 3_600_000;
  }
  assert.equal(told, 3 * ERRORS_AT_ONCE);
});
