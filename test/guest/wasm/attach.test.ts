// Images under WebAssembly memories: attached, grown, shared, taken, restored.

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { attachMemory, readGlobals, snapshotMemory, writeGlobals } from "../../../src/index.ts";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { countWrong, numberedFile, numberOf, ownFolder, PAGE } from "../array-buffer/files.ts";
import { instantiate, webAssembly } from "./module.ts";

const folder = ownFolder();
const PAGES = 1024;
const path = numberedFile(folder, "numbers", PAGES);
const at = (page: number): number => page * PAGE;

for (const implementation of ["kernel", "mmap"] as const) {
  test(`an instance reads and writes an image that is larger than its memory was: ${implementation}`, {
    skip,
  }, async () => {
    const instance = instantiate();
    assert.equal(Buffer.from(instance.memory.buffer, 16, 6).toString(), "module");
    const lazy = await attachMemory(instance.memory, path, { implementation });
    assert.equal(lazy.how, implementation === "kernel" ? "userfaultfd" : "mmap");
    assert.equal(instance.memory.buffer.byteLength, at(PAGES));
    assert.equal(lazy.resident().pages, 0);
    assert.equal(instance.load(at(700)) >>> 0, numberOf(700));
    // The kernel maps what neighbours the page cache has.
    assert.ok(implementation === "mmap" || lazy.resident().pages <= 32);
    let expected = 0;
    for (let page = 0; page < PAGES; page++) expected = (expected + numberOf(page)) | 0;
    assert.equal(instance.sum(0, at(PAGES), PAGE), expected);
    instance.store(at(3) + 8, 42);
    assert.equal(instance.load(at(3) + 8), 42);
    assert.equal(countWrong(instance.memory.buffer), 0, "what the module had put there is gone");
    if (implementation === "kernel") assert.ok(lazy.statistics().faults > 0);
    await lazy.close();
    await lazy.close();
    assert.deepEqual([instance.load(at(3)), instance.load(at(700))], [0, 0]);
    await assert.rejects(lazy.prefetch(), { code: "ERR_CLOSED" });
  });

  test(`a memory that has grown before, and one that grows after: ${implementation}`, { skip }, async () => {
    const instance = instantiate();
    instance.memory.grow(200);
    const grown = instance.memory.buffer.byteLength;
    instance.store(grown - 4, 5);
    const lazy = await attachMemory(instance.memory, path, { implementation });
    assert.equal(instance.memory.buffer.byteLength, grown);
    assert.equal(instance.load(grown - 4), 0, "behind the image all is zeros");
    instance.memory.grow(100);
    assert.equal(instance.load(grown + 4096), 0);
    instance.store(grown + 4096, 6);
    assert.equal(instance.load(at(999)) >>> 0, numberOf(999), "what was not there yet comes after growing");
    assert.equal(countWrong(instance.memory.buffer.slice(0, at(PAGES))), 0);
    await lazy.finish();
    assert.equal(instance.load(grown + 4096), 6);
    assert.equal(countWrong(instance.memory.buffer.slice(0, at(PAGES))), 0, "an ordinary memory now");
    await assert.rejects(lazy.finish(), { code: "ERR_CLOSED" });
  });

  test(`finish brings what is missing, and the file is not needed any more: ${implementation}`, {
    skip,
  }, async () => {
    const instance = instantiate();
    const own = numberedFile(folder, "finished", PAGES);
    const lazy = await attachMemory(instance.memory, own, { implementation });
    assert.equal(instance.load(at(5)) >>> 0, numberOf(5));
    await lazy.finish();
    truncateSync(own, 0);
    assert.equal(countWrong(instance.memory.buffer), 0);
  });

  test(`writes do not reach the file: ${implementation}`, { skip }, async () => {
    const instance = instantiate();
    const lazy = await attachMemory(instance.memory, path, { implementation });
    for (let page = 0; page < PAGES; page += 5) instance.store(at(page), 1);
    assert.equal(countWrong(new Uint8Array(readFileSync(path)).buffer), 0);
    await lazy.close();
  });
}

test("a memory that can't become as large as the image is refused", { skip }, async () => {
  const memory = new webAssembly.Memory({ initial: 1, maximum: 2 });
  await assert.rejects(attachMemory(memory, path), { code: "ERR_LIMIT" });
  await assert.rejects(attachMemory(memory, join(folder, "nowhere")), { code: "ERR_SOURCE_MISSING" });
});

test("a shared memory is a lazy SharedArrayBuffer, in every thread", { skip }, async () => {
  const memory = new webAssembly.Memory({ initial: 1, maximum: 1024, shared: true });
  const lazy = await attachMemory(memory, path, { implementation: "kernel" });
  assert.ok(memory.buffer instanceof SharedArrayBuffer);
  const program = `
    const { parentPort, workerData } = require("node:worker_threads");
    const words = new Uint32Array(workerData.buffer);
    let sum = 0;
    for (let page = workerData.first; page < ${PAGES}; page += 2) {
      sum += words[page * 1024];
      Atomics.add(words, 8, 1);
    }
    parentPort.postMessage(sum);`;
  const before = new Uint32Array(memory.buffer)[8] ?? 0;
  const sums = await Promise.all(
    [0, 1].map(
      (first) =>
        new Promise<number>((resolve, reject) => {
          const worker = new Worker(program, { eval: true, workerData: { buffer: memory.buffer, first } });
          worker.on("message", resolve);
          worker.on("error", reject);
        }),
    ),
  );
  let expected = 0;
  for (let page = 0; page < PAGES; page++) expected += numberOf(page);
  assert.equal(sums[0]! + sums[1]!, expected);
  assert.equal(new Uint32Array(memory.buffer)[8], before + PAGES);
  await lazy.close();
});

test("a snapshot leaves out zero pages, and is restored in another instance", { skip }, async () => {
  const instance = instantiate();
  instance.memory.grow(2000);
  instance.store(at(3000), 123);
  instance.store(at(20_000) + 4, 456);
  instance.top.value = 1234;
  const file = join(folder, "snapshot");
  const globals = readGlobals(instance as never);
  const report = await snapshotMemory(instance.memory, file);
  assert.deepEqual(report, { byteLength: 2002 * 65536, bytesWritten: 3 * PAGE });
  assert.equal(statSync(file).size, report.byteLength);
  assert.ok(statSync(file).blocks * 512 < 1024 * 1024, "holes take no room");
  const other = instantiate();
  const lazy = await attachMemory(other.memory, file);
  writeGlobals(other as never, globals);
  assert.deepEqual(
    [other.load(at(3000)), other.load(at(20_000) + 4), other.load(at(9)), other.top.value],
    [123, 456, 0, 1234],
  );
  assert.equal(Buffer.from(other.memory.buffer, 16, 6).toString(), "module");
  // A snapshot of a memory that is still lazy has everything.
  const again = join(folder, "again");
  await snapshotMemory(other.memory, again);
  assert.ok(readFileSync(again).equals(readFileSync(file)));
  await lazy.close();
  assert.throws(() => writeGlobals(other as never, { nobody: 1 }), { code: "ERR_BAD_ARGUMENT" });
});

test("a snapshot that can't be written leaves nothing behind", { skip }, async () => {
  const blocked = join(folder, "file");
  writeFileSync(blocked, "");
  await assert.rejects(snapshotMemory(instantiate().memory, join(blocked, "snapshot")));
  assert.ok(existsSync(blocked));
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.endsWith(".tmp")),
    [],
  );
});
