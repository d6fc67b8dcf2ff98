// What is between images: copies from store to store, and taking away what nobody needs.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../src/base/random.ts";
import {
  addWorkingSet,
  buildImage,
  copyImage,
  listImages,
  openImageIn,
  pruneStore,
  removeImage,
  verifyImage,
} from "../../src/image/index.ts";
import { MemorySource } from "../../src/source/index.ts";
import { PAGE, scribble, sparseBytes } from "./content.ts";
import { MemoryStore } from "./memory-store.ts";

const random = new Random(33);
const first = sparseBytes(random, 400 * PAGE);
const second = first.slice();
scribble(random, second, 5);

const options = (bytes: Uint8Array) => ({
  regions: [{ name: "ram", source: new MemorySource(bytes) }],
  chunkBytes: PAGE,
  packBytes: 32 * PAGE,
});

async function contentOf(store: MemoryStore, name: string): Promise<Uint8Array> {
  const image = await openImageIn(store, name);
  const target = new Uint8Array(image.byteLength);
  await image.read(0, target);
  return target;
}

test("a copy is the same image, with attachments and working sets, and moves only what is missing", async () => {
  const from = new MemoryStore();
  const state = new Uint8Array(900).fill(4);
  await buildImage(from, "a", { ...options(first), attachments: [{ name: "state", bytes: state }] });
  await buildImage(from, "b", { ...options(second), parent: "a" });
  await addWorkingSet(from, "a", "boot", [4 * PAGE, 2 * PAGE]);
  const to = new MemoryStore();
  const whole = await copyImage(from, "a", to);
  assert.ok(whole.movedBytes > 0 && whole.chunks.moved > 0);
  assert.equal(Buffer.compare(await contentOf(to, "a"), first), 0);
  assert.equal((await verifyImage(to, "a")).right, true);
  const image = await openImageIn(to, "a");
  assert.deepEqual(new Uint8Array(await image.readAttachment("state")), state);
  assert.deepEqual(image.workingSets(), ["boot"]);
  from.bytesRead.clear();
  const diff = await copyImage(from, "b", to, { as: "b-2" });
  assert.ok(diff.chunks.moved < 40, `${diff.chunks.moved} chunks for five changes`);
  assert.equal(Buffer.compare(await contentOf(to, "b-2"), second), 0);
  assert.deepEqual(
    [...to.objects.keys()].filter((key) => key.startsWith("partial/")),
    [],
  );
});

test("what arrives damaged is not stored", async () => {
  const from = new MemoryStore();
  await buildImage(from, "a", options(first));
  const image = await openImageIn(from, "a");
  const place = await image.locate([...Array(400).keys()].find((chunk) => first[chunk * PAGE] !== 0) ?? 0);
  assert.ok(place !== undefined);
  from.objects.get(`packs/${place.pack}`)![place.offset]! ^= 1;
  const to = new MemoryStore();
  await assert.rejects(copyImage(from, "a", to), { code: "ERR_WRONG_BYTES" });
  for await (const { name } of listImages(to)) assert.fail(`${name} is there`);
});

test("a copy that was aborted goes on with what is missing", async () => {
  const from = new MemoryStore();
  await buildImage(from, "a", options(first));
  const to = new MemoryStore();
  const abort = new AbortController();
  const onProgress = ({ doneBytes, totalBytes }: { doneBytes: number; totalBytes: number }) => {
    if (doneBytes > totalBytes / 2) abort.abort();
  };
  await assert.rejects(copyImage(from, "a", to, { signal: abort.signal, onProgress }), {
    name: "AbortError",
  });
  await pruneStore(to, { graceMs: 0 });
  const rest = await copyImage(from, "a", to);
  assert.ok(rest.resumedPacks > 0);
  assert.ok(rest.chunks.known > 0 && rest.chunks.moved > 0);
  assert.equal(Buffer.compare(await contentOf(to, "a"), first), 0);
});

test("prune keeps what any image needs, condemns first and deletes when the grace is over", async () => {
  const store = new MemoryStore();
  await buildImage(store, "a", options(first));
  await buildImage(store, "b", { ...options(second), parent: "a" });
  await removeImage(store, "a");
  let time = 1_000_000;
  const prune = (graceMs: number) => pruneStore(store, { graceMs, now: () => time });
  const one = await prune(1000);
  assert.equal(one.deletedPacks, 0);
  assert.equal(one.condemnedPacks, 1, "the root of a; its chunks are needed by b");
  time += 999;
  assert.equal((await prune(1000)).deletedPacks, 0);
  time += 1;
  assert.equal((await prune(1000)).deletedPacks, 1);
  assert.equal(Buffer.compare(await contentOf(store, "b"), second), 0);
  await removeImage(store, "b");
  await pruneStore(store, { graceMs: 0 });
  assert.deepEqual([...store.objects.keys()], []);
});

test("a build that goes on while the store is pruned loses nothing", async () => {
  const store = new MemoryStore();
  await buildImage(store, "a", options(first));
  let time = 1_000_000;
  let pruned = 0;
  const prune = () => pruneStore(store, { graceMs: 1000, now: () => time });
  // The image that the build relies on is removed as soon as the build has looked, and the store pruned meanwhile.
  const source = new MemorySource(second);
  const slow = {
    name: "slow",
    byteLength: second.byteLength,
    read: async (offset: number, target: Uint8Array) => {
      await source.read(offset, target);
      if (pruned++ > 0) return;
      await removeImage(store, "a");
      await prune();
      time += 900;
      await prune();
    },
    close: async () => {},
  };
  const report = await buildImage(store, "b", {
    ...options(second),
    regions: [{ name: "ram", source: slow }],
  });
  assert.ok(report.chunks.known > 0, "it relies on chunks of the image that is gone");
  time += 5000;
  await prune();
  assert.equal(Buffer.compare(await contentOf(store, "b"), second), 0);
  assert.equal((await verifyImage(store, "b")).right, true);
});

test("a store with a manifest that can't be read is not pruned, and is listed with the reason", async () => {
  const store = new MemoryStore();
  await buildImage(store, "a", options(first));
  await buildImage(store, "b", options(second));
  store.objects.get("manifests/a.json")![40]! ^= 1;
  await assert.rejects(pruneStore(store, { graceMs: 0 }), { code: "ERR_BAD_IMAGE" });
  const listed = [];
  for await (const each of listImages(store)) listed.push([each.name, each.problem?.code]);
  assert.deepEqual(listed, [
    ["a", "ERR_WRONG_BYTES"],
    ["b", undefined],
  ]);
});
