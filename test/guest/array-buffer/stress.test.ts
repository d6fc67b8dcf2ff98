// Random reads, writes, prefetches and flushes over every way a page can go (fetched, written, swapped, flushed, evicted),
// held to a plain array; and threads that write to the same pages while others flush.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { Random } from "../../../src/base/random.ts";
import { type LazyMemory, type MemoryMode, open } from "../../../src/index.ts";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { numberedFile, ownFolder, PACKAGE, PAGE } from "./files.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.log(`seed ${seed} (SEED=${seed} repeats this run)`);
const folder = ownFolder();
const PAGES = 4096;
const BYTES = PAGES * PAGE + 77;

/** One random thing done to the memory and to the model alike. */
async function act(
  random: Random,
  memory: LazyMemory,
  words: Uint32Array,
  model: Uint32Array,
): Promise<void> {
  const what = random.below(100);
  const page = random.below(PAGES);
  const length = Math.min(1 + random.below(random.below(4) === 0 ? 200 : 3), PAGES - page);
  if (what < 45) {
    for (let at = page; at < page + length; at++) {
      const word = at * 1024 + random.below(1024);
      const value = random.below(2 ** 31);
      words[word] = value;
      model[word] = value;
    }
  } else if (what < 95) {
    for (let at = page; at < page + length; at++) {
      const word = at * 1024 + random.below(1024);
      if (words[word] !== model[word]) assert.fail(`word ${word} is ${words[word]}, not ${model[word]}`);
    }
  } else if (what < 98) {
    await memory.prefetch(page * PAGE, length * PAGE);
  } else if (memory.mode === "write-back") {
    await memory.flush();
  }
}

for (const [mode, budget] of [
  ["private", "4MiB"],
  ["write-back", "4MiB"],
  ["write-back", undefined],
] as const satisfies readonly (readonly [MemoryMode, string | undefined])[]) {
  test(`random work like on a plain array: ${mode}, budget ${budget}`, {
    skip,
    timeout: 120_000,
  }, async () => {
    const path = numberedFile(folder, `random-${mode}-${budget}`, PAGES, 77);
    const original = readFileSync(path);
    const model = new Uint32Array(
      original.buffer.slice(original.byteOffset, original.byteOffset + PAGES * PAGE),
    );
    const random = new Random(seed);
    const memory = await open(path, {
      mode,
      swapFolder: folder,
      ...(budget === undefined ? {} : { budget }),
    });
    assert.equal(memory.byteLength, BYTES);
    const words = new Uint32Array(memory.buffer, 0, PAGES * 1024);
    for (let count = 0; count < 4000; count++) await act(random, memory, words, model);
    assert.ok(Buffer.from(words.buffer, 0, PAGES * PAGE).equals(Buffer.from(model.buffer)), "all of it");
    if (budget !== undefined) assert.ok(memory.resident().bytes <= 4 * 2 ** 20);
    await memory.close();
    const stored = readFileSync(path);
    if (mode === "private") assert.ok(stored.equals(original));
    else assert.ok(stored.subarray(0, PAGES * PAGE).equals(Buffer.from(model.buffer)));
  });
}

test("two threads write words of the same pages under a small budget while the main thread flushes: none is lost", {
  skip,
  timeout: 120_000,
}, async () => {
  const path = numberedFile(folder, "threads", PAGES);
  const memory = await open(path, { mode: "write-back", budget: "4MiB", swapFolder: folder });
  const ROUNDS = 3;
  const program = `
    const { parentPort, workerData } = require("node:worker_threads");
    import(workerData.package).then(({ attach }) => {
      const words = new Uint32Array(attach(workerData.handle).buffer);
      const { first, rounds } = workerData;
      let lost = 0;
      for (let round = 1; round <= rounds; round++) {
        for (let page = 0; page < ${PAGES}; page++) {
          const word = page * 1024 + 10 + first;
          if (words[word] !== (round === 1 ? 0 : page + round - 1)) lost++;
          words[word] = page + round;
        }
      }
      parentPort.postMessage(lost);
    });`;
  const writers = [0, 1].map(
    (first) =>
      new Promise<number>((resolve, reject) => {
        const workerData = { package: PACKAGE, handle: memory.share(), first, rounds: ROUNDS };
        const worker = new Worker(program, { eval: true, execArgv: [], workerData });
        worker.on("message", resolve);
        worker.on("error", reject);
      }),
  );
  let isWriting = true;
  const written = Promise.all(writers).finally(() => {
    isWriting = false;
  });
  let flushes = 0;
  for (; isWriting; flushes++) {
    await memory.flush();
    await new Promise(setImmediate);
  }
  assert.deepEqual(await written, [0, 0]);
  assert.ok(flushes > 0);
  await memory.close();
  const stored = readFileSync(path);
  for (let page = 0; page < PAGES; page++) {
    for (const word of [10, 11]) assert.equal(stored.readUInt32LE(page * PAGE + word * 4), page + ROUNDS);
  }
});
