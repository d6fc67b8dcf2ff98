// Content that turns out to be wrong or gone while a memory is open: the reader is told, and never gets wrong bytes.

import assert from "node:assert/strict";
import { readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { buildImage, openRawFile } from "../../../src/image/index.ts";
import { type MinorfaultError, open } from "../../../src/index.ts";
import { openStore } from "../../../src/source/index.ts";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { numberedFile, numberOf, ownFolder, PAGE, runChild } from "./files.ts";

const folder = ownFolder();
const PAGES = 2048;
const path = numberedFile(folder, "numbers", PAGES);

/** A store with one image, whose packs are broken by `spoil`; undone by what it answers. */
async function imageIn(name: string): Promise<{ url: string; packs: string[] }> {
  const place = join(folder, name);
  const store = await openStore(place);
  const { source } = openRawFile(path);
  await buildImage(store, "image", { regions: [{ name: "numbers", source }], codec: "none" });
  await source.close();
  await store.close();
  const packs = readdirSync(join(place, "packs")).map((pack) => join(place, "packs", pack));
  return { url: join(place, "image"), packs };
}

function flipBytes(pack: string): void {
  const bytes = readFileSync(pack);
  for (let at = 40; at < bytes.length; at += 97) bytes[at]! ^= 0x10;
  writeFileSync(pack, bytes);
}

test("prefetch and read reject with what is wrong, and onError hears of it", { skip }, async () => {
  const { url, packs } = await imageIn("prefetched");
  const errors: MinorfaultError[] = [];
  const memory = await open(url, { mode: "private", onError: (error) => errors.push(error) });
  for (const pack of packs) flipBytes(pack);
  await assert.rejects(memory.read(100 * PAGE, 4), (error: MinorfaultError) => {
    assert.ok(
      ["ERR_HANDLER_FAILED", "ERR_WRONG_BYTES", "ERR_SOURCE_CHANGED"].includes(error.code),
      error.code,
    );
    return error.cause !== undefined;
  });
  await assert.rejects(memory.prefetch(0, 200 * PAGE));
  assert.ok(errors.length >= 2);
  assert.equal(memory.resident().pages, 0, "nothing was installed");
  await memory.close();
});

test("a source that fails everywhere does not fill memory with its errors", { skip }, async () => {
  const place = join(folder, "flood");
  const store = await openStore(place);
  const { source } = openRawFile(path);
  await buildImage(store, "image", {
    regions: [{ name: "numbers", source }],
    codec: "none",
    chunkBytes: PAGE,
  });
  await source.close();
  await store.close();
  let errors = 0;
  const memory = await open(join(place, "image"), { mode: "private", onError: () => errors++ });
  for (const pack of readdirSync(join(place, "packs"))) flipBytes(join(place, "packs", pack));
  const began = performance.now();
  let failed = 0;
  for (let page = 0; page < 300; page++) await memory.prefetch(page * PAGE, PAGE).catch(() => failed++);
  const seconds = (performance.now() - began) / 1000;
  assert.equal(failed, 300);
  assert.ok(errors >= 64 && errors <= 65 + 8 * seconds, `${errors} errors in ${seconds} s`);
  await memory.close();
});

test("a touch of a page that can't be brought is SIGBUS, not bytes", { skip }, async () => {
  const { url, packs } = await imageIn("touched");
  const program = `
    const memory = await open(path, { mode: "private" });
    for (const pack of args) {
      const bytes = fs.readFileSync(pack);
      for (let at = 40; at < bytes.length; at += 97) bytes[at] ^= 0x10;
      fs.writeFileSync(pack, bytes);
    }
    say(new Uint8Array(memory.buffer)[1000 * 4096]);
  `;
  const { signal, stdout, stderr } = runChild(program, { args: [url, ...packs] });
  assert.deepEqual([signal, stdout], ["SIGBUS", ""]);
  // It was this thread that died: nothing that it does itself could have said why.
  assert.match(stderr, /^minorfault: The page at 0x[0-9a-f]+ could not be brought: .+ \(ERR_[A-Z_]+\)$/m);
});

test("a source that comes back serves what was missing; pages that were there stay", { skip }, async () => {
  const { url, packs } = await imageIn("back");
  const memory = await open(url, { mode: "private", onError: () => undefined });
  const words = new Uint32Array(memory.buffer);
  assert.equal(words[0], numberOf(0));
  const saved = packs.map((pack) => readFileSync(pack));
  for (const pack of packs) flipBytes(pack);
  await assert.rejects(memory.prefetch(1000 * PAGE, PAGE));
  assert.equal(words[1], 0, "page 0 is as it was");
  // In place: the file that is open has the right bytes again.
  for (const [index, pack] of packs.entries()) writeFileSync(pack, saved[index]!);
  const outcome = await memory.prefetch(1000 * PAGE, PAGE).then(
    () => "served",
    (error: MinorfaultError) => (error.cause as MinorfaultError).code,
  );
  // Whoever pins files by their time refuses one that was written to, and says so.
  assert.ok(["served", "ERR_SOURCE_CHANGED"].includes(outcome), outcome);
  if (outcome === "served") assert.equal(words[1000 * 1024], numberOf(1000));
  await memory.close();
});

test("a plain file that is replaced by another one: the memory goes on with the one that it has opened", {
  skip,
}, async () => {
  const own = numberedFile(folder, "replaced", 64);
  const memory = await open(own, { mode: "private" });
  const other = join(folder, "other");
  writeFileSync(other, Buffer.alloc(64 * PAGE, 9));
  renameSync(other, own);
  assert.equal(new Uint32Array(memory.buffer)[33 * 1024], numberOf(33));
  await memory.close();
});
