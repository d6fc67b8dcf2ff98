// Traces: what is recorded, and how several become one working set.

import assert from "node:assert/strict";
import { test } from "node:test";
import { makeTrace, mergeTraces, readTrace, type Trace, Tracer } from "../../src/pager/trace.ts";

function traceOf(...pages: readonly number[]): Trace {
  const memory = makeTrace();
  const tracer = new Tracer(memory, 0);
  for (const [index, page] of pages.entries()) tracer.record(page * 4096, false, index);
  return readTrace(memory);
}

function pagesOf(offsets: readonly number[]): number[] {
  return offsets.map((offset) => offset / 4096);
}

test("offset, time and kind of access come back as they were recorded, each page once", () => {
  const memory = makeTrace(8);
  const tracer = new Tracer(memory, 100);
  tracer.record(2 ** 40, false, 101.5);
  tracer.record(4096, true, 102);
  tracer.record(2 ** 40, true, 103);
  assert.deepEqual(readTrace(memory), {
    touches: [
      { offset: 2 ** 40, ms: 1.5, access: "read" },
      { offset: 4096, ms: 2, access: "write" },
    ],
    dropped: 0,
  });
});

test("what finds no room is counted", () => {
  const memory = makeTrace(3);
  const tracer = new Tracer(memory, 0);
  for (let page = 0; page < 10; page++) tracer.record(page * 4096, false, page);
  const { touches, dropped } = readTrace(memory);
  assert.deepEqual([touches.length, dropped], [3, 7]);
});

test("several runs merge by the earliest place; pages of too few runs can be left out", () => {
  const traces = [traceOf(5, 1, 9), traceOf(1, 5, 7)];
  assert.deepEqual(pagesOf(mergeTraces(traces)), [1, 5, 7, 9]);
  assert.deepEqual(pagesOf(mergeTraces(traces, 2)), [1, 5]);
  assert.deepEqual(mergeTraces([]), []);
});
