// Wrappers: each against the laws of sources, then for its one job, over sources that go wrong by a seed and in a
// time that passes by itself. MINORFAULT_SEED repeats a run.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import {
  CoalescingSource,
  CountingSource,
  HedgedSource,
  harden,
  Lanes,
  LayeredSource,
  LimitedSource,
  MemorySource,
  type PageSource,
  RetryingSource,
} from "../../src/source/index.ts";
import { FaultySource, pageSourceLaws, VirtualTimers } from "../../src/testing/index.ts";
import { TracedSource } from "./fixtures/traced-source.ts";
import { code, contentOf, seedOf } from "./scene.ts";

const seed = seedOf();
const content = contentOf(seed, 300_000);
const memory = () => new MemorySource(content);

const WRAPPERS: Readonly<Record<string, (inner: PageSource) => PageSource>> = {
  retrying: (inner) => new RetryingSource(inner),
  hedged: (inner) => new HedgedSource(inner),
  limited: (inner) => new LimitedSource(inner, { lanes: 2 }),
  coalescing: (inner) => new CoalescingSource(inner, { blockBytes: 4096 }),
  counting: (inner) => new CountingSource(inner),
  hardened: (inner) => harden(inner),
};
for (const [name, wrap] of Object.entries(WRAPPERS)) {
  for (const { law, check } of pageSourceLaws) {
    test(`${name}: ${law}`, () => check({ content, seed, open: async () => wrap(memory()) }));
  }
}

function assertBytes(target: Uint8Array, offset: number): void {
  const wanted = content.subarray(offset, offset + target.byteLength);
  assert.ok(Buffer.compare(target, wanted) === 0, `seed ${seed}: ${target.byteLength} bytes at ${offset}`);
}

interface Outcome {
  readonly offset: number;
  readonly target: Uint8Array;
  readonly reason: unknown;
  readonly error: unknown;
}

/** `count` reads of random ranges, all begun at once; a share of them is aborted at random moments. */
async function readMany(
  source: PageSource,
  timers: VirtualTimers,
  random: Random,
  count: number,
  aborted = 0,
): Promise<Outcome[]> {
  const reads = Array.from({ length: count }, async (): Promise<Outcome> => {
    const offset = random.below(content.byteLength);
    const target = new Uint8Array(random.below(Math.min(40_000, content.byteLength - offset)));
    const reason = new Error("aborted by the test");
    const controller = new AbortController();
    if (random.below(1000) < aborted * 1000) timers.after(random.below(50), () => controller.abort(reason));
    const error = await source.read(offset, target, controller.signal).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    // What a read leaves behind stays: nothing writes afterwards.
    const left = target.slice();
    await new Promise<void>((resolve) => timers.after(100, resolve));
    assert.ok(Buffer.compare(left, target) === 0, `seed ${seed}: written to after it had settled`);
    return { offset, target, reason, error };
  });
  return timers.run(Promise.all(reads));
}

/** Right bytes, or the reason of the abort; nothing else. */
function assertAllRight(outcomes: readonly Outcome[]): void {
  for (const { offset, target, reason, error } of outcomes) {
    if (error === undefined) assertBytes(target, offset);
    else if (error !== reason) throw error;
  }
}

test("retrying: reads that fail half of the time all succeed, in bounded tries", async () => {
  const timers = new VirtualTimers();
  const faulty = new FaultySource(memory(), { seed, fail: 0.25, short: 0.25, delayMsMax: 10, timers });
  const random = new Random(seed);
  const source = new RetryingSource(faulty, {
    attemptsMax: 60,
    deadlineMs: 1e6,
    timers,
    random: () => random.uint32() / 2 ** 32,
  });
  assertAllRight(await readMany(source, timers, random, 200, 0.2));
  assert.ok(faulty.fates.filter((fate) => fate !== "good").length > 50);
  assert.equal(timers.pending, 0);
});

test("retrying: only what may go better is tried again, and not more often than allowed", async () => {
  const timers = new VirtualTimers();
  const refusing = new FaultySource(memory(), { seed, refuse: 1, timers });
  const one = new RetryingSource(refusing, { timers });
  await assert.rejects(timers.run(one.read(0, new Uint8Array(1))), code("ERR_SOURCE_DENIED"));
  assert.equal(refusing.fates.length, 1);

  const failing = new FaultySource(memory(), { seed, fail: 1, timers });
  const seven = new RetryingSource(failing, { attemptsMax: 7, timers });
  await assert.rejects(timers.run(seven.read(0, new Uint8Array(1))), code("ERR_SOURCE_FAILED"));
  assert.equal(failing.fates.length, 7);
});

test("retrying: pauses are random below a bound that doubles", async () => {
  const timers = new VirtualTimers();
  const moments: number[] = [];
  const traced = new TracedSource(new FaultySource(memory(), { seed, fail: 1 }), () =>
    moments.push(timers.nowMs()),
  );
  const source = new RetryingSource(traced, {
    attemptsMax: 6,
    pauseMs: 10,
    pauseMsMax: 100,
    timers,
    random: () => 0.999,
  });
  await assert.rejects(timers.run(source.read(0, new Uint8Array(1))));
  const pauses = moments.slice(1).map((moment, index) => Math.round(moment - (moments[index] ?? 0)));
  assert.deepEqual(pauses, [10, 20, 40, 80, 100]);
});

test("retrying: the deadline is over all tries, also when one of them hangs", async () => {
  for (const faults of [{ fail: 1 }, { hang: 1 }, { fail: 0.5, hang: 0.5 }]) {
    const timers = new VirtualTimers();
    const faulty = new FaultySource(memory(), { seed, ...faults, timers });
    const source = new RetryingSource(faulty, { attemptsMax: 1e9, deadlineMs: 5000, timers });
    await assert.rejects(timers.run(source.read(0, new Uint8Array(1))), code("ERR_SOURCE_TIMEOUT"));
    assert.equal(timers.nowMs(), 5000);
    assert.equal(timers.pending, 0);
  }
});

test("hedged: a read that hangs is answered by the second request, and the first is aborted", async () => {
  const timers = new VirtualTimers();
  const hanging = new TracedSource(new FaultySource(memory(), { seed, hang: 1, timers }));
  const replica = new TracedSource(new FaultySource(memory(), { seed, delayMsMax: 5, timers }));
  const source = new HedgedSource(hanging, { replica, delayMs: 100, timers });
  const target = new Uint8Array(5000);
  await timers.run(source.read(70, target));
  assertBytes(target, 70);
  assert.ok(timers.nowMs() >= 100 && timers.nowMs() < 106, `${timers.nowMs()} ms`);
  assert.equal(hanging.aborts, 1);
  assert.deepEqual([source.hedges, source.wins], [1, 1]);
});

test("hedged: random delays, failures and aborts: the right bytes, and few second requests", async () => {
  const timers = new VirtualTimers();
  const random = new Random(seed + 1);
  const slow = new FaultySource(memory(), { seed, hang: 0.02, delayMsMax: 20, timers });
  const source = new HedgedSource(slow, { delayMs: 50, timers });
  let reads = 0;
  for (let round = 0; round < 10; round++) {
    const outcomes = await readMany(source, timers, random, 30, 0.1).catch((error: unknown) => {
      // Both requests hung, or there was no credit left: then the caller's own deadline would be next.
      assert.match(String(error), /never happen/);
      return [];
    });
    assertAllRight(outcomes);
    reads += 30;
  }
  assert.ok(source.hedges > 0 && source.hedges <= 10 + reads * 0.1, `${source.hedges} of ${reads}`);
});

test("hedged: when everything is slow, second requests stay within their share", async () => {
  const timers = new VirtualTimers();
  const slow = new TracedSource(memory(), () => {}, 50, timers);
  const source = new HedgedSource(slow, { delayMs: 1, timers });
  // Before twenty latencies are known the delay is 1 ms, so that every read would like a second request.
  for (let count = 0; count < 19; count++) await timers.run(source.read(count, new Uint8Array(10)));
  assert.equal(source.hedges, 11);
  assert.equal(slow.requests.length, 30);
});

test("hedged: what fails before the delay fails at once; when both fail the first failure is told", async () => {
  const timers = new VirtualTimers();
  const failing = new FaultySource(memory(), { seed, fail: 1, timers });
  const source = new HedgedSource(failing, { delayMs: 100, timers });
  await assert.rejects(timers.run(source.read(0, new Uint8Array(1))), code("ERR_SOURCE_FAILED"));
  assert.equal(failing.fates.length, 1);
  assert.equal(timers.pending, 0);

  const late = new FaultySource(memory(), { seed, refuse: 1, delayMsMax: 0.001, timers });
  const slowly = new TracedSource(late, () => {}, 150, timers);
  const both = new HedgedSource(slowly, { replica: failing, delayMs: 100, timers });
  await assert.rejects(timers.run(both.read(0, new Uint8Array(1))), code("ERR_SOURCE_FAILED"));
  assert.equal(both.hedges, 1);
});

test("hedged: a replica of another length is refused", () => {
  const other = new MemorySource(new Uint8Array(1));
  assert.throws(() => new HedgedSource(memory(), { replica: other }), code("ERR_BAD_ARGUMENT"));
});

test("limited: never more at once than lanes, whatever fails or is aborted", async () => {
  const timers = new VirtualTimers();
  const random = new Random(seed + 2);
  const counting = new CountingSource(
    new FaultySource(memory(), { seed, fail: 0.2, delayMsMax: 20, timers }),
  );
  const lanes = new Lanes({ lanes: 3 });
  const source = new LimitedSource(counting, lanes);
  for (const { offset, target, reason, error } of await readMany(source, timers, random, 200, 0.3)) {
    if (error === undefined) assertBytes(target, offset);
    else if (error !== reason) code("ERR_SOURCE_FAILED")(error);
  }
  assert.equal(counting.counters.activeMax, 3);
  assert.equal(counting.counters.active, 0);
  assert.equal(lanes.waiting, 0);
  // No place was lost on the way: three can be in at once again.
  await Promise.all([lanes.enter(), lanes.enter(), lanes.enter()]);
});

test("limited: who waits goes in order; beyond the queue is refused", async () => {
  const lanes = new Lanes({ lanes: 1, waitingMax: 3 });
  await lanes.enter();
  const order: number[] = [];
  const leaving = new AbortController();
  const waiting = [
    lanes.enter().then(() => order.push(0)),
    lanes.enter(leaving.signal).catch(() => order.push(-1)),
    lanes.enter().then(() => order.push(2)),
  ];
  await assert.rejects(lanes.enter(), (error: MinorfaultError) => {
    code("ERR_LIMIT")(error);
    return error.retryable;
  });
  leaving.abort();
  lanes.leave();
  lanes.leave();
  await Promise.all(waiting);
  assert.deepEqual(order, [-1, 0, 2]);
});

test("coalescing: overlapping reads make no overlapping requests, all of whole blocks", async () => {
  const timers = new VirtualTimers();
  const random = new Random(seed + 3);
  const traced = new TracedSource(new FaultySource(memory(), { seed, delayMsMax: 30, timers }));
  const source = new CoalescingSource(traced, { blockBytes: 4096, requestBytesMax: 16_384 });
  for (let round = 0; round < 5; round++) {
    assertAllRight(await readMany(source, timers, random, 100, 0.3));
  }
  assert.equal(traced.overlaps, 0, `seed ${seed}`);
  for (const { offset, byteLength } of traced.requests) {
    assert.equal(offset % 4096, 0);
    assert.ok(byteLength <= 16_384);
    assert.ok(byteLength % 4096 === 0 || offset + byteLength === content.byteLength);
  }
  assert.equal(traced.active, 0);
});

test("coalescing: one request for any number of readers, given up when the last of them leaves", async () => {
  const timers = new VirtualTimers();
  const traced = new TracedSource(new FaultySource(memory(), { seed, delayMsMax: 30, timers }));
  const source = new CoalescingSource(traced, { blockBytes: 65_536 });
  const leaving = Array.from({ length: 4 }, () => new AbortController());
  const reads = leaving.map(({ signal }, index) => source.read(index * 1000, new Uint8Array(1000), signal));
  const staying = new Uint8Array(50);
  const stay = source.read(64_000, staying);
  for (const controller of leaving) controller.abort();
  for (const outcome of await Promise.allSettled(reads)) assert.equal(outcome.status, "rejected");
  assert.equal(traced.aborts, 0);
  await timers.run(stay);
  assertBytes(staying, 64_000);
  assert.equal(traced.requests.length, 1);

  const alone = new AbortController();
  const given = source.read(0, new Uint8Array(10), alone.signal);
  alone.abort(new Error("alone"));
  await assert.rejects(given, /alone/);
  assert.equal(traced.aborts, 1);
  // The next reader doesn't join what was given up.
  const again = new Uint8Array(10);
  await timers.run(source.read(0, again));
  assertBytes(again, 0);
});

test("coalescing: nobody joins a request that is being given up, however long that takes", async () => {
  const timers = new VirtualTimers();
  const stubborn = new StubbornSource(memory());
  const source = new CoalescingSource(stubborn);
  const leaving = new AbortController();
  const given = source.read(0, new Uint8Array(10), leaving.signal);
  leaving.abort(new Error("leaving"));
  await assert.rejects(given, /leaving/);
  const target = new Uint8Array(10);
  const again = source.read(0, target);
  stubborn.giveUp();
  await timers.run(again);
  assertBytes(target, 0);
});

test("coalescing: a failure is told to all who wait, and forgotten", async () => {
  const timers = new VirtualTimers();
  let isBroken = true;
  const switching = new TracedSource(memory(), () => {
    if (isBroken) throw new MinorfaultError("ERR_SOURCE_FAILED", "It is broken");
  });
  const source = new CoalescingSource(switching);
  const outcomes = await Promise.allSettled([1, 2, 3].map((at) => source.read(at, new Uint8Array(1))));
  for (const outcome of outcomes) {
    if (outcome.status === "rejected") code("ERR_SOURCE_FAILED")(outcome.reason);
    else assert.fail("a read of a broken source succeeded");
  }
  assert.equal(switching.requests.length, 1);
  isBroken = false;
  const target = new Uint8Array(10);
  await timers.run(source.read(5, target));
  assertBytes(target, 5);
});

test("counting: the sums are those of the reads", async () => {
  const timers = new VirtualTimers();
  const random = new Random(seed + 4);
  const source = new CountingSource(new FaultySource(memory(), { seed, fail: 0.3, delayMsMax: 60, timers }));
  const outcomes = await readMany(source, timers, random, 200, 0.3);
  const good = outcomes.filter(({ error }) => error === undefined);
  const { counters } = source;
  assert.equal(counters.reads, 200);
  assert.equal(
    counters.bytes,
    good.reduce((sum, { target }) => sum + target.byteLength, 0),
  );
  assert.equal(counters.aborts, outcomes.filter(({ error, reason }) => error === reason).length);
  assert.equal(counters.failures, 200 - good.length - counters.aborts);
  assert.equal(counters.active, 0);
});

test("hardened: over a source that fails, comes short, dawdles and hangs, every read is right", async () => {
  const timers = new VirtualTimers();
  const random = new Random(seed + 5);
  const faults = { seed, fail: 0.2, short: 0.1, hang: 0.03, delayMsMax: 20, timers };
  const traced = new TracedSource(new FaultySource(memory(), faults));
  // What HTTP's own time limit does: a hanging request becomes a failure that is worth another try.
  const limited = new TimeLimited(traced, 500, timers);
  const source = harden(limited, {
    retry: { attemptsMax: 50, deadlineMs: 1e6, timers },
    hedge: { timers },
    limit: { lanes: 4 },
    coalesce: { blockBytes: 8192 },
  });
  for (let round = 0; round < 3; round++) assertAllRight(await readMany(source, timers, random, 100, 0.2));
  assert.equal(traced.active, 0);
});

/** Takes its time to give up its first read. */
class StubbornSource extends LayeredSource {
  #isFirst = true;
  giveUp: () => void = () => {};

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (!this.#isFirst) return this.inner.read(offset, target, signal);
    this.#isFirst = false;
    await new Promise<void>((resolve) => {
      this.giveUp = resolve;
    });
    throw signal?.reason;
  }
}

/** Gives each read a time limit, as HTTP sources have of their own. */
class TimeLimited extends CountingSource {
  readonly #ms: number;
  readonly #timers: VirtualTimers;

  constructor(inner: PageSource, ms: number, timers: VirtualTimers) {
    super(inner);
    this.#ms = ms;
    this.#timers = timers;
  }

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const controller = new AbortController();
    const cancel = this.#timers.after(this.#ms, () =>
      controller.abort(new MinorfaultError("ERR_SOURCE_TIMEOUT", "Too slow", { retryable: true })),
    );
    const onAbort = () => controller.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort);
    try {
      await super.read(offset, target, controller.signal);
    } finally {
      cancel();
      signal?.removeEventListener("abort", onAbort);
    }
  }
}

test("a faulty source does what its seed says, the same each time", async () => {
  const draw = async () => {
    const faulty = new FaultySource(memory(), { seed: 7, fail: 0.2, short: 0.2, lie: 0.2, refuse: 0.1 });
    for (let count = 0; count < 100; count++) await faulty.read(0, new Uint8Array(16)).catch(() => {});
    return faulty.fates;
  };
  const fates = await draw();
  assert.deepEqual(await draw(), fates);
  assert.deepEqual([...new Set(fates)].sort(), ["fail", "good", "lie", "refuse", "short"]);
});
