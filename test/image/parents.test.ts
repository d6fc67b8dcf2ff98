// Chains of images: each stores what changed, reads like a whole one, and needs nothing of its parents' names.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../src/base/random.ts";
import { buildImage, diffImages, openImageIn, pruneStore, removeImage } from "../../src/image/index.ts";
import { MemorySource } from "../../src/source/index.ts";
import { PAGE, scribble, seedOf, sparseBytes } from "./content.ts";
import { MemoryStore } from "./memory-store.ts";

const BYTES = 96 * 64 * 1024;

async function whole(store: MemoryStore, name: string): Promise<Uint8Array> {
  const image = await openImageIn(store, name);
  const target = new Uint8Array(image.byteLength);
  await image.read(0, target);
  await image.close();
  return target;
}

test("a chain of diffs reads right at each link, with and without being told what changed", async (t) => {
  const seed = seedOf();
  t.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  const store = new MemoryStore();
  const bytes = sparseBytes(random, BYTES);
  const contents = [bytes.slice()];
  const source = () => new MemorySource(bytes.slice());
  await buildImage(store, "v0", { regions: [{ name: "ram", source: source() }], chunkBytes: PAGE });
  for (let version = 1; version <= 12; version++) {
    const ranges = scribble(random, bytes, 1 + random.below(6));
    contents.push(bytes.slice());
    const changed = random.below(2) === 0 ? { changed: ranges } : {};
    await buildImage(store, `v${version}`, {
      regions: [{ name: "ram", source: source(), ...changed }],
      parent: `v${version - 1}`,
      packBytes: 64 * 1024,
    });
  }
  for (const [version, content] of contents.entries()) {
    assert.equal(Buffer.compare(await whole(store, `v${version}`), content), 0, `v${version}`);
  }
  for (let version = 0; version < 12; version++) await removeImage(store, `v${version}`);
  await pruneStore(store, { graceMs: 0 });
  assert.equal(Buffer.compare(await whole(store, "v12"), contents[12] ?? new Uint8Array()), 0);
});

test("a child that was told what changed reads only that, and stores only that", async () => {
  const bytes = sparseBytes(new Random(1), BYTES).map((byte) => byte | 1);
  const store = new MemoryStore();
  await buildImage(store, "a", { regions: [{ name: "ram", source: new MemorySource(bytes) }] });
  const changed = bytes.slice();
  changed.fill(0, 5 * 65536, 6 * 65536);
  changed[40 * 65536] = 77;
  const inner = new MemorySource(changed);
  let bytesRead = 0;
  const counted = {
    name: "counted",
    byteLength: inner.byteLength,
    read: (offset: number, target: Uint8Array) => {
      bytesRead += target.byteLength;
      return inner.read(offset, target);
    },
    close: async () => {},
  };
  const ranges = [
    { start: 40 * 65536, until: 40 * 65536 + 1 },
    { start: 5 * 65536, until: 6 * 65536 },
  ];
  const report = await buildImage(store, "b", {
    regions: [{ name: "ram", source: counted, changed: ranges }],
    parent: "a",
  });
  assert.equal(bytesRead, 2 * 65536);
  assert.deepEqual(report.chunks, { zero: 1, known: 0, stored: 1 });
  assert.equal(report.manifest.parent?.name, "a");
  const [a, b] = [await openImageIn(store, "a"), await openImageIn(store, "b")];
  assert.deepEqual(await diffImages(a, b), {
    same: false,
    pages: 17,
    changed: 1,
    added: 0,
    removed: 16,
    chunks: 2,
    chunkBytes: 65536,
    ranges: [
      { start: 5 * 65536, until: 6 * 65536 },
      { start: 40 * 65536, until: 40 * 65536 + PAGE },
    ],
    rangeCount: 2,
  });
  assert.equal((await diffImages(a, a)).same, true);
});

test("a diff is exact to pages, and reads only chunks whose hashes differ", async (t) => {
  const seed = seedOf();
  t.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  for (let round = 0; round < 8; round++) {
    const store = new MemoryStore();
    const before = sparseBytes(random, BYTES);
    const after = before.slice();
    scribble(random, after, 1 + random.below(40));
    const chunkBytes = PAGE << random.below(5);
    const build = (name: string, bytes: Uint8Array) =>
      buildImage(store, name, { regions: [{ name: "ram", source: new MemorySource(bytes) }], chunkBytes });
    await build("a", before);
    await build("b", after);
    const pages = { changed: 0, added: 0, removed: 0 };
    const differ = new Set<number>();
    for (let at = 0; at < BYTES; at += PAGE) {
      const [left, right] = [before.subarray(at, at + PAGE), after.subarray(at, at + PAGE)];
      if (Buffer.compare(left, right) === 0) continue;
      differ.add(at);
      pages[
        left.every((byte) => byte === 0) ? "added" : right.every((byte) => byte === 0) ? "removed" : "changed"
      ]++;
    }
    const report = await diffImages(await openImageIn(store, "a"), await openImageIn(store, "b"));
    const { changed, added, removed } = report;
    assert.deepEqual({ changed, added, removed }, pages);
    assert.equal(report.pages, differ.size);
    const told = report.ranges.flatMap(({ start, until }) =>
      Array.from({ length: (until - start) / PAGE }, (_, page) => start + page * PAGE),
    );
    assert.deepEqual(told, [...differ]);
    const chunks = new Set([...differ].map((at) => Math.floor(at / chunkBytes)));
    assert.equal(report.chunks, chunks.size, "no other chunk was read");
  }
});

test("an image that is its own parent many times over does not drag all its packs along", async () => {
  const random = new Random(8);
  const store = new MemoryStore();
  const bytes = sparseBytes(random, 1500 * PAGE);
  const options = { chunkBytes: PAGE, codec: "none" } as const;
  await buildImage(store, "it", { ...options, regions: [{ name: "ram", source: new MemorySource(bytes) }] });
  let packs = 0;
  for (let flush = 0; flush < 150; flush++) {
    // Always in the same few pages: what earlier ones have stored is not needed any more.
    const changed = scribble(random, bytes.subarray(0, 16 * PAGE), 1);
    const source = new MemorySource(bytes);
    const { manifest } = await buildImage(store, "it", {
      regions: [{ name: "ram", source, changed }],
      parent: "it",
    });
    assert.equal(manifest.codec, "none", "as its parent");
    const image = await openImageIn(store, "it");
    packs = Math.max(packs, image.index.root.packs.count);
    await image.close();
  }
  assert.ok(packs > 60 && packs < 80, `${packs} packs`);
  assert.equal(Buffer.compare((await whole(store, "it")).subarray(0, bytes.byteLength), bytes), 0);
  await pruneStore(store, { graceMs: 0 });
  assert.equal(Buffer.compare((await whole(store, "it")).subarray(0, bytes.byteLength), bytes), 0);
});

test("a parent with other regions or chunks is refused", async () => {
  const store = new MemoryStore();
  const region = (name: string, byteLength: number) => ({
    name,
    source: new MemorySource(new Uint8Array(byteLength).fill(1)),
  });
  await buildImage(store, "a", { regions: [region("ram", 8 * PAGE)] });
  for (const options of [
    { regions: [region("other", 8 * PAGE)] },
    { regions: [region("ram", 9 * PAGE)] },
    { regions: [region("ram", 8 * PAGE)], chunkBytes: PAGE },
  ]) {
    await assert.rejects(buildImage(store, "b", { ...options, parent: "a" }), { code: "ERR_BAD_ARGUMENT" });
  }
  await assert.rejects(buildImage(store, "b", { regions: [region("ram", 8)], parent: "none" }), {
    code: "ERR_SOURCE_MISSING",
  });
});
