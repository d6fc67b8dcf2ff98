// Pages that could not be brought are poisoned; when their source is well again they are asked for once more.

import assert from "node:assert/strict";
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Worker } from "node:worker_threads";
import { buildImage, openRawFile } from "../../../src/image/index.ts";
import { type MinorfaultError, open } from "../../../src/index.ts";
import { openStore } from "../../../src/source/index.ts";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { countWrong, numberedFile, numberOf, ownFolder, PAGE } from "./files.ts";

const folder = ownFolder();
const PAGES = 2048;
const path = numberedFile(folder, "numbers", PAGES);
let server: Worker;
let url: string;

before(async () => {
  const store = await openStore(join(folder, "store"));
  const { source } = openRawFile(path);
  await buildImage(store, "image", { regions: [{ name: "numbers", source }], codec: "none" });
  await source.close();
  await store.close();
  server = new Worker(new URL("../../pager/fixtures/web-server.js", import.meta.url), {
    workerData: { folder },
  });
  const { port } = await new Promise<AddressInfo>((resolve) => server.once("message", resolve));
  url = `http://127.0.0.1:${port}/store/image`;
});
after(() => server.terminate());

/** Breaks all content of the image; answers how to undo it. */
function spoil(): () => void {
  const packs = readdirSync(join(folder, "store", "packs")).map((name) =>
    join(folder, "store", "packs", name),
  );
  const saved = packs.map((pack) => readFileSync(pack));
  for (const [index, pack] of packs.entries()) {
    const bytes = Buffer.from(saved[index]!);
    for (let at = 40; at < bytes.length; at += 97) bytes[at]! ^= 0x10;
    writeFileSync(pack, bytes);
  }
  return () => {
    for (const [index, pack] of packs.entries()) writeFileSync(pack, saved[index]!);
  };
}

for (const pager of ["thread", "process"] as const) {
  test(`a source that heals: poisoned pages are repaired, and only those are asked for (pager in a ${pager})`, {
    skip,
    timeout: 60_000,
  }, async (t) => {
    const errors: MinorfaultError[] = [];
    const memory = await open(url, { mode: "private", pager, onError: (error) => errors.push(error) });
    if (memory.isUserModeOnly) {
      await memory.close();
      t.skip("system calls on missing pages end at once here");
      return;
    }
    const words = new Uint32Array(memory.buffer);
    assert.equal(words[0], numberOf(0));
    const heal = spoil();
    try {
      const file = openSync(join(folder, `copied-${pager}`), "w");
      for (const page of [1000, 1500]) {
        // A system call is told by EFAULT; a touch of JavaScript would end the process.
        const bytes = new Uint8Array(memory.buffer, page * PAGE, PAGE);
        assert.throws(() => writeSync(file, bytes), { code: "EFAULT" });
      }
      closeSync(file);
      assert.deepEqual(await memory.repair(), { repaired: 0, lost: 2 }, "it is still broken");
      assert.deepEqual(await memory.repair(0, 1000 * PAGE), { repaired: 0, lost: 0 }, "none there");
      assert.ok(errors.length >= 2);
    } finally {
      heal();
    }
    assert.deepEqual(await memory.repair(1000 * PAGE, PAGE), { repaired: 1, lost: 0 });
    assert.equal(words[1000 * 1024], numberOf(1000));
    assert.deepEqual(await memory.repair(), { repaired: 1, lost: 0 });
    assert.equal(words[1500 * 1024], numberOf(1500));
    assert.deepEqual(await memory.repair(), { repaired: 0, lost: 0 });
    assert.equal(countWrong(memory.buffer), 0);
    await assert.rejects(memory.repair(PAGES * PAGE), { code: "ERR_OUT_OF_RANGE" });
    await memory.close();
    await assert.rejects(memory.repair(), { code: "ERR_CLOSED" });
  });
}

test("memories in which nothing can be poisoned have nothing to repair", { skip }, async () => {
  for (const implementation of ["mmap", "software"] as const) {
    const memory = await open(path, { implementation });
    assert.deepEqual(await memory.repair(), { repaired: 0, lost: 0 });
    await assert.rejects(memory.repair(-1, 5), { code: "ERR_OUT_OF_RANGE" });
    await memory.close();
  }
});
