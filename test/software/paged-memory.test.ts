// PagedMemory: synchronous and asynchronous handlers, failures, written pages, snapshots, bad input, and a model.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSystem, PagedMemory } from "../../src/uffd/software/index.ts";
import { PAGE, random, seed } from "./machine.ts";

/** Bytes that tell their page. */
function pageOf(page: number): Uint8Array {
  const bytes = new Uint8Array(PAGE);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < PAGE; at += 4) view.setUint32(at, (page * 2654435761 + at) >>> 0, true);
  return bytes;
}

const wordOf = (page: number, at: number): number => (page * 2654435761 + at) >>> 0;

test("a synchronous handler is asked once a page, when it is first touched", () => {
  const asked: number[] = [];
  using memory = new PagedMemory(16 * PAGE, (page) => {
    asked.push(page);
    return page === 3 ? undefined : pageOf(page);
  });
  assert.equal(memory.load32(5 * PAGE + 8), wordOf(5, 8));
  assert.equal(memory.load16(5 * PAGE + 8), wordOf(5, 8) & 0xffff);
  assert.equal(memory.load8(5 * PAGE + 9), (wordOf(5, 8) >>> 8) & 0xff);
  assert.equal(memory.load32(3 * PAGE), 0);
  memory.store8(3 * PAGE, 1);
  assert.equal(memory.load32(3 * PAGE), 1);
  assert.deepEqual(asked, [5, 3]);
  assert.deepEqual([memory.resident(5 * PAGE), memory.resident(6 * PAGE)], [true, false]);
  assert.equal(memory.residentBytes, 2 * PAGE);
});

test("accesses across a border bring both pages, and a store happens as a whole or not at all", () => {
  using memory = new PagedMemory(4 * PAGE, (page) => {
    if (page === 3) throw new Error("not to be had");
    return pageOf(page);
  });
  assert.equal(
    memory.load32(PAGE - 2),
    (wordOf(0, PAGE - 4) >>> 16) | (((wordOf(1, 0) & 0xffff) << 16) >>> 0),
  );
  memory.store32(2 * PAGE - 1, 0x11223344);
  assert.equal(memory.load32(2 * PAGE - 1), 0x11223344);
  assert.equal(memory.load16(2 * PAGE - 1), 0x3344);
  memory.store16(2 * PAGE - 1, 0x5566);
  assert.equal(memory.load32(2 * PAGE - 1), 0x11225566);
  const before = memory.load8(3 * PAGE - 1);
  assert.throws(() => memory.store32(3 * PAGE - 1, -1), { code: "ERR_HANDLER_FAILED" });
  assert.equal(memory.load8(3 * PAGE - 1), before);
});

test("an asynchronous handler: synchronous accesses say so, read and write wait", async () => {
  const asked: number[] = [];
  using memory = new PagedMemory(8 * PAGE, async (page) => {
    asked.push(page);
    await new Promise((resolve) => setImmediate(resolve));
    return pageOf(page);
  });
  assert.throws(() => memory.load8(0), { code: "ERR_FAULT_PENDING" });
  const target = new Uint8Array(3 * PAGE);
  await Promise.all([
    memory.read(0, target),
    memory.read(0, new Uint8Array(PAGE)),
    memory.read(PAGE, new Uint8Array(9)),
  ]);
  assert.deepEqual(asked.sort(), [0, 1, 2]);
  assert.deepEqual(target.subarray(PAGE, 2 * PAGE), pageOf(1));
  assert.equal(memory.load32(2 * PAGE), wordOf(2, 0));
  await memory.write(4 * PAGE - 2, Uint8Array.of(1, 2, 3, 4));
  assert.equal(memory.load32(4 * PAGE - 2), 0x04030201);
  assert.equal(memory.load32(4 * PAGE + 4), wordOf(4, 4));
});

test("what a handler throws reaches everybody who touches the page, until it is discarded", async () => {
  let broken = true;
  const cause = new Error("the wire was cut");
  using memory = new PagedMemory(4 * PAGE, (page) => {
    if (broken && page === 1) throw cause;
    return pageOf(page);
  });
  assert.throws(() => memory.load8(PAGE), { code: "ERR_HANDLER_FAILED", cause });
  await assert.rejects(memory.read(0, new Uint8Array(2 * PAGE)), { code: "ERR_HANDLER_FAILED", cause });
  broken = false;
  assert.throws(() => memory.load8(PAGE), { code: "ERR_HANDLER_FAILED" });
  memory.discard(PAGE, PAGE);
  assert.equal(memory.load32(PAGE), wordOf(1, 0));
});

test("an asynchronous handler that rejects, or answers nonsense, is an error too", async () => {
  using rejecting = new PagedMemory(PAGE, () => Promise.reject(new Error("no")));
  await assert.rejects(rejecting.read(0, new Uint8Array(1)), { code: "ERR_HANDLER_FAILED" });
  using short = new PagedMemory(PAGE, () => new Uint8Array(100));
  assert.throws(
    () => short.load8(0),
    (error: Error) => (error.cause as { code?: string }).code === "ERR_BAD_ARGUMENT",
  );
});

test("a wait can be given up", async () => {
  const abort = new AbortController();
  using memory = new PagedMemory(PAGE, () => new Promise<Uint8Array>(() => {}));
  const reading = memory.read(0, new Uint8Array(1), abort.signal);
  abort.abort();
  await assert.rejects(reading, { name: "AbortError" });
});

test("a handler may touch other pages of the same memory", () => {
  using memory = new PagedMemory(
    8 * PAGE,
    (page): Uint8Array =>
      page === 0
        ? new Uint8Array(PAGE).fill(1)
        : new Uint8Array(PAGE).fill(memory.load8((page - 1) * PAGE) + 1),
  );
  assert.equal(memory.load8(7 * PAGE), 8);
});

test("written pages are known, can be made clean, and are handed over before they are evicted", () => {
  using memory = new PagedMemory(16 * PAGE, (page) => (page % 2 === 0 ? pageOf(page) : undefined));
  for (let page = 0; page < 16; page++) memory.load8(page * PAGE);
  assert.deepEqual(memory.written(), []);
  for (const page of [2, 3, 4, 9]) memory.store8(page * PAGE + 5, 77);
  const written = [
    { start: 2 * PAGE, until: 5 * PAGE },
    { start: 9 * PAGE, until: 10 * PAGE },
  ];
  assert.deepEqual(memory.written(), written);
  memory.markClean();
  assert.deepEqual(memory.written(), []);
  memory.store8(4 * PAGE, 1);
  const saved: number[] = [];
  memory.evict(0, memory.byteLength, (page, bytes) => {
    saved.push(page, bytes[0]!, bytes[5]!);
  });
  assert.deepEqual(saved, [4, 1, 77]);
  assert.equal(memory.residentBytes, 0);
  assert.equal(memory.load8(2 * PAGE + 5), pageOf(2)[5]);
});

test("a snapshot keeps what was there, whoever writes afterwards", () => {
  using memory = new PagedMemory(4 * PAGE, (page) => pageOf(page));
  memory.store8(0, 10);
  using snapshot = memory.snapshot();
  memory.store8(0, 11);
  snapshot.store8(PAGE, 12);
  assert.deepEqual([memory.load8(0), snapshot.load8(0)], [11, 10]);
  assert.deepEqual([memory.load8(PAGE), snapshot.load8(PAGE)], [pageOf(1)[0], 12]);
  assert.deepEqual([memory.load32(2 * PAGE), snapshot.load32(2 * PAGE)], [wordOf(2, 0), wordOf(2, 0)]);
});

test("bad offsets and lengths are refused, and a closed memory stays closed", async () => {
  const memory = new PagedMemory(PAGE + 100, () => undefined);
  for (const offset of [-1, PAGE + 100, 2 ** 32, 2 ** 40, Number.POSITIVE_INFINITY]) {
    assert.throws(() => memory.load8(offset), /ERR_|offset|Bytes/, `offset ${offset}`);
    assert.throws(() => memory.store8(offset, 1), /offset|Bytes/, `offset ${offset}`);
  }
  assert.throws(() => memory.load8(Number.NaN), { code: "ERR_BAD_ARGUMENT" });
  assert.throws(() => memory.load32(PAGE + 98), { code: "ERR_OUT_OF_RANGE" });
  assert.throws(() => memory.store32(PAGE + 98, 1), { code: "ERR_OUT_OF_RANGE" });
  await assert.rejects(memory.read(PAGE, new Uint8Array(101)), { code: "ERR_OUT_OF_RANGE" });
  for (const length of [0, -5, 1.5, Number.NaN, 2 ** 60]) {
    assert.throws(() => new PagedMemory(length, () => undefined), /ERR_|memory/i, `length ${length}`);
  }
  assert.equal(memory.load8(5), 0);
  memory.close();
  memory.close();
  assert.throws(() => memory.load8(5), { code: "ERR_CLOSED" });
  assert.throws(() => memory.store8(5, 1), { code: "ERR_CLOSED" });
  await assert.rejects(memory.read(0, new Uint8Array(1)), { code: "ERR_CLOSED" });
});

test("memories of one system share its physical memory, and say when it is used up", () => {
  const system = createSystem({ memoryBytes: 2 ** 20 });
  using first = new PagedMemory(2 ** 30, pageOf, { system });
  using second = new PagedMemory(2 ** 30, pageOf, { system });
  let pages = 0;
  assert.throws(
    () => {
      for (; ; pages++) (pages % 2 === 0 ? first : second).load8(pages * PAGE);
    },
    { code: "ERR_LIMIT" },
  );
  assert.equal(pages, 254);
  first.discard(0, first.byteLength);
  second.discard(0, second.byteLength);
  assert.equal(second.load32(PAGE), wordOf(1, 0));
});

test("memory far beyond 4 GiB is as good as any other", () => {
  using memory = new PagedMemory(64 * 2 ** 30, (page) => pageOf(page));
  for (const page of [0, 2 ** 19 - 1, 2 ** 19, 2 ** 20 + 5, 2 ** 24 - 1]) {
    assert.equal(memory.load32(page * PAGE + 16), wordOf(page, 16));
    memory.store32(page * PAGE + 16, page);
    assert.equal(memory.load8(page * PAGE + 16), page & 255);
    assert.equal(memory.load8(page * PAGE + 20), wordOf(page, 20) & 255);
  }
  assert.equal(memory.written().length, 4);
  memory.discard(0, memory.byteLength);
  assert.equal(memory.load32((2 ** 24 - 1) * PAGE + 16), wordOf(2 ** 24 - 1, 16));
});

test("a pool that grows moves under the memories that use it without their noticing", () => {
  const system = createSystem();
  using small = new PagedMemory(4 * PAGE, pageOf, { system });
  using large = new PagedMemory(2 ** 26, pageOf, { system });
  small.store8(1, 99);
  for (let page = 0; page < 2 ** 13; page++) {
    large.load8(page * PAGE);
    if (page % 64 === 0) assert.deepEqual([small.load8(1), small.load8(4)], [99, 4]);
  }
});

test("a paged memory behaves like an array, whatever is discarded and written back in between", (t) => {
  const begin = seed();
  t.diagnostic(`seed ${begin}`);
  const next = random(begin);
  const pages = 40;
  const backing = Uint8Array.from({ length: pages * PAGE }, () => next(256));
  const model = backing.slice();
  using memory = new PagedMemory(pages * PAGE, (page) =>
    page % 7 === 0 && backing.subarray(page * PAGE, (page + 1) * PAGE).every((byte) => byte === 0)
      ? undefined
      : backing.slice(page * PAGE, (page + 1) * PAGE),
  );
  const view = new DataView(model.buffer);
  for (let step = 0; step < 20_000; step++) {
    const offset = next(pages * PAGE - 4);
    switch (next(8)) {
      case 0:
        assert.equal(memory.load8(offset), model[offset], `seed ${begin}, step ${step}`);
        break;
      case 1:
        assert.equal(memory.load16(offset), view.getUint16(offset, true), `seed ${begin}, step ${step}`);
        break;
      case 2:
        assert.equal(memory.load32(offset), view.getUint32(offset, true), `seed ${begin}, step ${step}`);
        break;
      case 3:
        memory.store8(offset, step);
        model[offset] = step;
        break;
      case 4:
        memory.store16(offset, step * 77);
        view.setUint16(offset, step * 77, true);
        break;
      case 5:
        memory.store32(offset, step * 777);
        view.setUint32(offset, step * 777, true);
        break;
      default: {
        if (next(20) > 0) break;
        const page = next(pages);
        const length = (1 + next(pages - page)) * PAGE;
        memory.evict(page * PAGE, length, (at, bytes) => backing.set(bytes, at * PAGE));
      }
    }
  }
});
