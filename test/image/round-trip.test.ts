// What goes into an image comes out of it: random contents, all sizes of chunks, both codecs, every way of reading.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { buildImage, type Image, openImageIn } from "../../src/image/index.ts";
import { MemorySource } from "../../src/source/index.ts";
import { PAGE, seedOf, sparseBytes } from "./content.ts";
import { MemoryStore } from "./memory-store.ts";

const ROUNDS = 40;
const KIB = 1024;

async function checkReads(image: Image, offset: number, bytes: Uint8Array, random: Random): Promise<void> {
  for (let time = 0; time < 10; time++) {
    const start = random.below(bytes.byteLength);
    const target = new Uint8Array(1 + random.below(bytes.byteLength - start));
    await image.read(offset + start, target);
    assert.equal(Buffer.compare(target, bytes.subarray(start, start + target.byteLength)), 0);
  }
}

test("random contents in regions come back byte for byte", async (t) => {
  const seed = seedOf();
  t.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  for (let round = 0; round < ROUNDS; round++) {
    const chunkBytes = 4 * KIB * 2 ** random.below(6);
    const store = new MemoryStore([], random.below(2) === 0);
    const contents = Array.from({ length: 1 + random.below(3) }, () =>
      sparseBytes(random, 1 + random.below(600 * KIB)),
    );
    const regions = contents.map((bytes, index) => ({
      name: `region-${index}`,
      guestAddress: index * 2 ** 32,
      pageSize: random.below(4) === 0 ? (2097152 as const) : (4096 as const),
      source: new MemorySource(bytes),
    }));
    const codec = random.below(2) === 0 ? "none" : "zstd";
    await buildImage(store, "it", { regions, chunkBytes, codec });
    const image = await openImageIn(store, "it");
    for (const [index, bytes] of contents.entries()) {
      const region = image.regions[index];
      assert.ok(region !== undefined);
      assert.equal(region.offset % Math.max(chunkBytes, region.pageSize), 0);
      await checkReads(image, region.offset, bytes, random);
      const rest = new Uint8Array(region.byteLength - bytes.byteLength);
      await image.read(region.offset + bytes.byteLength, rest);
      assert.ok(
        rest.every((byte) => byte === 0),
        "what follows the data is zeros",
      );
    }
    await image.close();
  }
});

test("chunks are read one by one, waiting or not, and holes are known without reading", async () => {
  const bytes = sparseBytes(new Random(7), 4 * 1024 * KIB);
  const local = new MemoryStore();
  await buildImage(local, "it", { regions: [{ name: "ram", source: new MemorySource(bytes) }] });
  for (const store of [local, new MemoryStore(local.objects, true)]) {
    const image = await openImageIn(store, "it");
    const target = new Uint8Array(image.chunkBytes);
    assert.equal(image.isZero(0, image.byteLength), undefined, "not known before the index page is there");
    for (let chunk = 0; chunk < image.byteLength / image.chunkBytes; chunk++) {
      const expected = bytes.subarray(chunk * image.chunkBytes, (chunk + 1) * image.chunkBytes);
      await image.readChunk(chunk, target);
      assert.equal(Buffer.compare(target, expected), 0);
      target.fill(1);
      const isDone = image.readChunkSync(chunk, target);
      const isZero = expected.every((byte) => byte === 0);
      assert.equal(isDone, !store.isRemote || isZero);
      if (isDone) assert.equal(Buffer.compare(target, expected), 0);
      assert.equal(image.isZero(chunk * image.chunkBytes, image.chunkBytes), isZero);
      assert.equal((await image.locate(chunk)) === undefined, isZero);
    }
    await image.close();
  }
});

test("what is not in an image is refused, whichever way it is read, and so is everything after closing", async () => {
  const store = new MemoryStore();
  await buildImage(store, "it", {
    regions: [{ name: "ram", source: new MemorySource(new Uint8Array(PAGE)) }],
  });
  const image = await openImageIn(store, "it");
  const target = new Uint8Array(image.chunkBytes);
  for (const chunk of [1, -1, 0.5, 5000, Number.NaN]) {
    assert.throws(() => image.readChunkSync(chunk, target), { code: "ERR_OUT_OF_RANGE" });
    assert.throws(() => image.locate(chunk), { code: "ERR_OUT_OF_RANGE" });
    await assert.rejects(image.readChunk(chunk, target), { code: "ERR_OUT_OF_RANGE" });
  }
  await assert.rejects(image.readChunk(0, new Uint8Array(5)), { code: "ERR_OUT_OF_RANGE" });
  await assert.rejects(image.read(image.byteLength - 1, new Uint8Array(2)), { code: "ERR_OUT_OF_RANGE" });
  assert.throws(() => image.isZero(0, image.byteLength + 1), { code: "ERR_OUT_OF_RANGE" });
  await image.close();
  await image.close();
  await assert.rejects(image.read(0, target), { code: "ERR_CLOSED" });
  assert.throws(() => image.readChunkSync(0, target), { code: "ERR_CLOSED" });
});

test("an image that is large enough for threads is the same as one that is not", async () => {
  const bytes = sparseBytes(new Random(11), 40 * 1024 * KIB);
  const store = new MemoryStore();
  const report = await buildImage(store, "it", {
    regions: [{ name: "ram", source: new MemorySource(bytes) }],
  });
  assert.equal(report.chunks.zero + report.chunks.known + report.chunks.stored, 640);
  const image = await openImageIn(store, "it");
  const target = new Uint8Array(bytes.byteLength);
  await image.read(0, target);
  assert.equal(Buffer.compare(target, bytes), 0);
  await image.close();
});

test("equal chunks are stored once over all images of a store, and zeros cost nothing", async () => {
  const random = new Random(3);
  const bytes = new Uint8Array(64 * 64 * KIB);
  for (let at = 0; at < bytes.byteLength / 2; at++) bytes[at] = random.uint32();
  const store = new MemoryStore();
  const region = { name: "ram", source: new MemorySource(bytes) };
  const first = await buildImage(store, "a", { regions: [region], codec: "none" });
  assert.deepEqual(first.chunks, { zero: 32, known: 0, stored: 32 });
  assert.ok(first.writtenBytes < 32 * 64 * KIB + 8 * KIB, `${first.writtenBytes} bytes for 32 chunks`);
  const moved = new Uint8Array(bytes.byteLength);
  moved.set(bytes.subarray(0, bytes.byteLength / 2), bytes.byteLength / 2);
  moved.set(bytes.subarray(0, 64 * KIB), 0);
  const second = await buildImage(store, "b", { regions: [{ ...region, source: new MemorySource(moved) }] });
  assert.deepEqual(second.chunks, { zero: 31, known: 33, stored: 0 });
  assert.ok(second.writtenBytes < 8 * KIB, `${second.writtenBytes} bytes for nothing new`);
  const image = await openImageIn(store, "b");
  const target = new Uint8Array(moved.byteLength);
  await image.read(0, target);
  assert.equal(Buffer.compare(target, moved), 0);
});

test("extents and a short source: what is not given is zeros, and is not read", async () => {
  const bytes = new Uint8Array(64 * PAGE).fill(9);
  const reads: number[] = [];
  const inner = new MemorySource(bytes);
  const source = {
    name: "counted",
    byteLength: bytes.byteLength,
    read: (offset: number, target: Uint8Array) => {
      reads.push(offset);
      return inner.read(offset, target);
    },
    close: async () => {},
  };
  const store = new MemoryStore();
  const extents = [{ start: 8 * PAGE, until: 9 * PAGE }];
  await buildImage(store, "it", { regions: [{ name: "ram", source, extents }], chunkBytes: PAGE });
  assert.deepEqual(reads, [8 * PAGE]);
  const image = await openImageIn(store, "it");
  const target = new Uint8Array(bytes.byteLength);
  await image.read(0, target);
  assert.deepEqual(
    [target[8 * PAGE - 1], target[8 * PAGE], target[9 * PAGE - 1], target[9 * PAGE]],
    [0, 9, 9, 0],
  );
});

test("attachments and notes come back, and their limits are refused before anything is written", async () => {
  const store = new MemoryStore();
  const regions = [{ name: "ram", source: new MemorySource(new Uint8Array(PAGE).fill(1)) }];
  const state = Uint8Array.from({ length: 5000 }, (_, index) => index * 31);
  await buildImage(store, "it", {
    regions,
    attachments: [{ name: "state", bytes: state }],
    notes: { kernel: "6.18" },
  });
  const image = await openImageIn(store, "it");
  assert.deepEqual(new Uint8Array(await image.readAttachment("state")), state);
  assert.deepEqual({ ...image.manifest.notes }, { kernel: "6.18" });
  await assert.rejects(image.readAttachment("other"), { code: "ERR_SOURCE_MISSING" });
  const changes = store.changes.length;
  for (const wrong of [
    { attachments: [{ name: "../state", bytes: state }] },
    { attachments: [{ name: "empty", bytes: new Uint8Array(0) }] },
    { notes: { long: "x".repeat(5000) } },
    { chunkBytes: 5000 },
    { chunkBytes: 2 ** 22 },
  ]) {
    await assert.rejects(buildImage(store, "wrong", { regions, ...wrong }), MinorfaultError);
  }
  assert.equal(store.changes.length, changes);
});

test("names that climb out of the store are refused", async () => {
  const store = new MemoryStore();
  const regions = [{ name: "ram", source: new MemorySource(new Uint8Array(PAGE).fill(1)) }];
  for (const name of ["../up", "a/b", ".hidden", "", "a\0b", "-rf", "x".repeat(129)]) {
    await assert.rejects(buildImage(store, name, { regions }), { code: "ERR_BAD_ARGUMENT" }, name);
    await assert.rejects(openImageIn(store, name), { code: "ERR_BAD_ARGUMENT" }, name);
  }
  assert.deepEqual(store.changes, []);
});

for (const mib of [8, 48]) {
  test(`an aborted build of ${mib} MiB ends soon and leaves the store as it was`, async () => {
    const random = new Random(5);
    const bytes = new Uint8Array(Uint32Array.from({ length: mib * 256 * KIB }, () => random.uint32()).buffer);
    const store = new MemoryStore();
    const region = { name: "ram", source: new MemorySource(bytes.subarray(0, 64 * KIB)) };
    await buildImage(store, "old", { regions: [region] });
    const before = [...store.objects.keys()].sort();
    const abort = new AbortController();
    const building = buildImage(store, "new", {
      regions: [{ name: "ram", source: new MemorySource(bytes) }],
      packBytes: 1024 * KIB,
      signal: abort.signal,
      onProgress: ({ doneBytes }) => {
        if (doneBytes > 4 * 1024 * KIB) abort.abort();
      },
    });
    await assert.rejects(building, { name: "AbortError" });
    assert.ok(
      store.changes.some(({ op }) => op === "delete"),
      "it had written packs and took them back",
    );
    assert.deepEqual([...store.objects.keys()].sort(), before);
  });
}

test("a source that fails in the middle of a large build: its error, and the store as it was", async () => {
  const source = {
    name: "failing",
    byteLength: 64 * 1024 * KIB,
    read: async (offset: number, target: Uint8Array) => {
      if (offset > 40 * 1024 * KIB) throw new MinorfaultError("ERR_SOURCE_SHORT", "it ended");
      target.fill(offset / KIB);
    },
    close: async () => {},
  };
  const store = new MemoryStore();
  await assert.rejects(buildImage(store, "it", { regions: [{ name: "ram", source }] }), {
    code: "ERR_SOURCE_SHORT",
  });
  assert.deepEqual([...store.objects.keys()], []);
});
