// Chains of system calls against the calls made one by one, and interrupts against a thread that waits for ever.

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { ERRNO } from "../../src/abi/errno.ts";
import { CHAIN_ENTRY, type ChainCall, interrupt, local, makeChain } from "../../src/linux/index.ts";
import { skipUnlessBareProcess as skip } from "./host.ts";

const PAGE = 4096;

/** A chain in fresh memory, and how to read what its calls answered. */
function chain(calls: readonly ChainCall[], at = 0) {
  const memory = local.share(PAGE);
  const word = (entry: number, field: number): bigint =>
    memory.view.getBigInt64(at + entry * CHAIN_ENTRY.SIZE + field, true);
  const run = makeChain(local, memory, at, calls);
  return {
    memory,
    run,
    result: (entry: number): number => Number(word(entry, CHAIN_ENTRY.RESULT)),
    stamp: (entry: number): bigint => word(entry, CHAIN_ENTRY.STAMP),
  };
}

test("a chain answers what its calls answer one by one, in order and with rising stamps", { skip }, (t) => {
  const pair = chain(
    [
      { name: "getpid", args: [] },
      { name: "gettid", args: [] },
    ],
    128,
  );
  t.after(() => pair.memory.close());
  pair.run();
  assert.equal(pair.result(0), process.pid);
  assert.equal(pair.result(1), local.call("gettid"));
  assert.ok(pair.stamp(0) > 0n && pair.stamp(1) > pair.stamp(0));
  const before = pair.stamp(0);
  pair.run();
  assert.ok(pair.stamp(0) > before, "every run stamps anew");
});

test("a chain stops at the first call that fails, and leaves the rest undone", { skip }, (t) => {
  const { memory, run, result } = chain([
    { name: "getpid", args: [] },
    { name: "close", args: [-1] },
    { name: "gettid", args: [] },
  ]);
  t.after(() => memory.close());
  run();
  assert.deepEqual([result(0), result(1), result(2)], [process.pid, -ERRNO.EBADF, 0]);
});

test("a chain passes five arguments on, and takes those that are rewritten between two runs", {
  skip,
}, (t) => {
  const target = local.share(PAGE);
  // ppoll takes five: nothing to wait for, and no time to do it in.
  const { memory, run, result } = chain([{ name: "ppoll", args: [0, 0, target.address, 0, 8] }]);
  t.after(() => {
    memory.close();
    target.close();
  });
  run();
  assert.equal(result(0), 0);
  const sizeOfSignalSet = CHAIN_ENTRY.ARGUMENTS + 4 * 8;
  const mask = CHAIN_ENTRY.ARGUMENTS + 3 * 8;
  memory.view.setBigUint64(mask, BigInt(target.address), true);
  memory.view.setBigUint64(sizeOfSignalSet, 7n, true);
  run();
  assert.equal(result(0), -ERRNO.EINVAL, "the fifth argument arrives: a signal set has 8 bytes");
});

test("a chained call has at most five arguments", { skip }, () => {
  assert.throws(() => chain([{ name: "mmap", args: [0, 1, 2, 3, 4, 5] }]), { code: "ERR_BUG" });
});

test("interrupt() ends a read that would wait for ever, and tells when the thread is gone", {
  skip,
  timeout: 20_000,
}, async (t) => {
  const waits = new Worker(new URL("./fixtures/waiting-worker.js", import.meta.url));
  t.after(() => waits.terminate());
  const [{ tid }] = (await once(waits, "message")) as [{ tid: number }];
  const answered = once(waits, "message") as Promise<[{ result: number }]>;
  assert.ok(interrupt(tid));
  // One that comes before the read has begun is lost: so again, until it shows. By then the thread may be gone.
  const again = setInterval(() => interrupt(tid), 1);
  try {
    const [{ result }] = await answered;
    assert.equal(result, -ERRNO.EINTR);
  } finally {
    clearInterval(again);
  }
  await once(waits, "exit");
  // Who joins a thread is told a moment before the kernel has forgotten it.
  while (interrupt(tid)) await new Promise((resolve) => setImmediate(resolve));
});
