// Working sets: the right pages in the right order, with one sequential read, alone.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../src/base/random.ts";
import {
  addWorkingSet,
  buildImage,
  openImageIn,
  removeWorkingSet,
  verifyImage,
} from "../../src/image/index.ts";
import { MemorySource } from "../../src/source/index.ts";
import { PAGE, seedOf, sparseBytes } from "./content.ts";
import { MemoryStore } from "./memory-store.ts";

const PAGES = 3000;

async function sceneOf(random: Random, codec: "none" | "zstd" = "zstd") {
  const bytes = sparseBytes(random, PAGES * PAGE);
  const store = new MemoryStore([], random.below(2) === 0);
  await buildImage(store, "it", { regions: [{ name: "ram", source: new MemorySource(bytes) }], codec });
  return { bytes, store };
}

/** Page numbers as a guest touches them: runs, single pages, backwards, repeated. */
function touches(random: Random): number[] {
  const pages: number[] = [];
  while (pages.length < 500) {
    const first = random.below(PAGES - 200);
    const count = random.below(3) === 0 ? 1 + random.below(200) : 1;
    for (let page = 0; page < count; page++) pages.push(first + page);
  }
  return pages;
}

test("a replay gives each page once, in the order of the first touch, with the image's bytes", async (t) => {
  const seed = seedOf();
  t.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  for (let round = 0; round < 10; round++) {
    const { bytes, store } = await sceneOf(random, random.below(2) === 0 ? "none" : "zstd");
    const pages = touches(random);
    const set = await addWorkingSet(
      store,
      "it",
      "boot",
      pages.map((page) => page * PAGE + 5),
    );
    const expected = [...new Set(pages)];
    assert.equal(set.pages, expected.length);
    const image = await openImageIn(store, "it");
    assert.deepEqual(image.workingSets(), ["boot"]);
    const seen: number[] = [];
    for await (const run of image.readWorkingSet("boot")) {
      const { offset, bytes: content, isZero } = run;
      assert.equal(Buffer.compare(content, bytes.subarray(offset, offset + content.byteLength)), 0);
      if (isZero) assert.ok(content.every((byte) => byte === 0));
      for (let at = 0; at < content.byteLength; at += PAGE) seen.push((offset + at) / PAGE);
    }
    assert.deepEqual(seen, expected);
    assert.equal((await verifyImage(store, "it")).right, true);
    await image.close();
  }
});

test("a replay reads its own pack from the beginning, each byte once, and nothing else", async () => {
  const random = new Random(4);
  const { store } = await sceneOf(random);
  const set = await addWorkingSet(
    store,
    "it",
    "boot",
    touches(random).map((page) => page * PAGE),
  );
  const image = await openImageIn(store, "it");
  store.bytesRead.clear();
  for await (const _ of image.readWorkingSet("boot"));
  assert.deepEqual([...store.bytesRead.keys()], [`packs/${set.pack}`]);
  assert.ok((store.bytesRead.get(`packs/${set.pack}`) ?? 0) <= set.packBytes);
});

test("a set that is read in many pieces is right, from a disk and from a network", async () => {
  const random = new Random(12);
  const words = Uint32Array.from({ length: (PAGES * PAGE) / 4 }, () => random.uint32());
  const bytes = new Uint8Array(words.buffer);
  for (const isRemote of [false, true]) {
    const store = new MemoryStore([], isRemote);
    await buildImage(store, "it", {
      regions: [{ name: "ram", source: new MemorySource(bytes) }],
      codec: "none",
    });
    const pages = [...random.sample(PAGES, PAGES)];
    await addWorkingSet(
      store,
      "it",
      "all",
      pages.map((page) => page * PAGE),
    );
    const image = await openImageIn(store, "it");
    const seen: number[] = [];
    for await (const { offset, bytes: content } of image.readWorkingSet("all")) {
      assert.equal(Buffer.compare(content, bytes.subarray(offset, offset + content.byteLength)), 0);
      for (let at = 0; at < content.byteLength; at += PAGE) seen.push((offset + at) / PAGE);
    }
    assert.deepEqual(seen, pages);
    await image.close();
  }
});

test("an image that is replaced while its working set is written does not get the old one's bytes", async () => {
  const { store } = await sceneOf(new Random(3));
  const other = new MemorySource(sparseBytes(new Random(5), PAGES * PAGE));
  const replaced = new MemoryStore(store.objects);
  await buildImage(replaced, "it", { regions: [{ name: "ram", source: other }] });
  store.beforeChange = ({ key }) => {
    if (!key.startsWith("packs/")) return;
    for (const [at, bytes] of replaced.objects) store.objects.set(at, bytes);
  };
  await assert.rejects(addWorkingSet(store, "it", "boot", [0, PAGE]), { code: "ERR_SOURCE_CHANGED" });
  assert.deepEqual((await openImageIn(store, "it")).workingSets(), []);
});

test("working sets are replaced and removed by name, and their names and pages are checked", async () => {
  const { store } = await sceneOf(new Random(9));
  await addWorkingSet(store, "it", "boot", [0, PAGE]);
  await assert.rejects(addWorkingSet(store, "it", "boot", [0]), { code: "ERR_STORE_EXISTS" });
  await addWorkingSet(store, "it", "boot", [PAGE], { replace: true });
  const image = await openImageIn(store, "it");
  assert.equal(image.manifest.workingSets[0]?.pages, 1);
  assert.throws(() => image.readWorkingSet("other"), { code: "ERR_SOURCE_MISSING" });
  await removeWorkingSet(store, "it", "boot");
  assert.deepEqual((await openImageIn(store, "it")).workingSets(), []);
  await assert.rejects(removeWorkingSet(store, "it", "boot"), { code: "ERR_SOURCE_MISSING" });
  for (const [name, offsets, code] of [
    ["../x", [0], "ERR_BAD_ARGUMENT"],
    ["none", [], "ERR_BAD_ARGUMENT"],
    ["far", [2 * PAGES * PAGE], "ERR_OUT_OF_RANGE"],
    ["odd", [-1], "ERR_OUT_OF_RANGE"],
  ] as const) {
    await assert.rejects(addWorkingSet(store, "it", name, offsets), { code });
  }
});
