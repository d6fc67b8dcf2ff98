// Damage and lies: nothing wrong is ever handed out. The long run is `npm run fuzz -- image`.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { buildImage, openImageIn, verifyImage } from "../../src/image/index.ts";
import { decodeManifest, encodeManifest, type Manifest } from "../../src/image/manifest.ts";
import { MemorySource } from "../../src/source/index.ts";
import { fuzzImages } from "../fuzz/image.ts";
import { MUTATIONS } from "../fuzz/mutations.ts";
import { PAGE, seedOf, sparseBytes } from "./content.ts";
import { MemoryStore } from "./memory-store.ts";

const COUNT = 3000;

test(`${COUNT} random corruptions: right bytes or an error, and no target touched by wrong ones`, async (t) => {
  const seed = seedOf();
  t.diagnostic(`SEED=${seed}`);
  const { failures, outcomes } = await fuzzImages(COUNT, seed);
  assert.deepEqual(failures, []);
  // A fuzz that never hits anything proves nothing.
  for (const name of Object.keys(MUTATIONS)) {
    assert.ok((outcomes[name]?.refused ?? 0) > COUNT / 100, `${name}: ${outcomes[name]?.refused} refused`);
  }
});

async function imageOf(bytes: Uint8Array): Promise<MemoryStore> {
  const store = new MemoryStore();
  await buildImage(store, "it", {
    regions: [{ name: "ram", source: new MemorySource(bytes) }],
    chunkBytes: PAGE,
  });
  return store;
}

const KEY = "manifests/it.json";

/** The manifest with other fields, and the hash that belongs to them. */
function rewrite(store: MemoryStore, change: (manifest: Record<string, unknown>) => void): void {
  const manifest = structuredClone(decodeManifest(store.objects.get(KEY)!, "it")) as Record<string, unknown>;
  change(manifest);
  store.objects.set(KEY, encodeManifest(manifest as unknown as Manifest));
}

test("verify finds every byte of an image that is flipped", async () => {
  const start = await imageOf(sparseBytes(new Random(2), 24 * PAGE));
  const whole = await verifyImage(start, "it");
  assert.equal(whole.right, true);
  for (const [key, bytes] of start.objects) {
    for (let at = 0; at < bytes.byteLength; at += 97) {
      const damaged = bytes.slice();
      damaged[at]! ^= 0x10;
      const store = new MemoryStore([...start.objects, [key, damaged]]);
      const isFound = await verifyImage(store, "it").then(
        ({ right }) => !right,
        () => true,
      );
      assert.ok(isFound, `byte ${at} of ${key}`);
    }
  }
});

test("verify goes on behind what is wrong and counts it", async () => {
  const bytes = Uint8Array.from({ length: 8 * PAGE }, (_, index) => (index * 2654435761) >>> 11);
  const store = await imageOf(bytes);
  const image = await openImageIn(store, "it");
  const hurt = [1, 5];
  for (const chunk of hurt) {
    const place = await image.locate(chunk);
    assert.ok(place !== undefined);
    const pack = store.objects.get(`packs/${place.pack}`)!;
    pack[place.offset + 100]! ^= 1;
  }
  const report = await verifyImage(store, "it");
  assert.deepEqual(
    report.problems.map(({ offset, code }) => [offset, code]),
    hurt.map((chunk) => [chunk * PAGE, "ERR_WRONG_BYTES"]),
  );
  assert.equal((await verifyImage(store, "it", { indexOnly: true })).right, true);
});

test("threads find what one thread finds, in the same words", async () => {
  // As much as it takes for threads to pay; mostly zstd, some stored as it is.
  const content = sparseBytes(new Random(3), 1024 * PAGE);
  const bytes = new Uint8Array(10 * content.byteLength).map(
    (_, index) => content[index % content.length]! + (index >> 22),
  );
  const store = new MemoryStore();
  await buildImage(store, "it", {
    regions: [{ name: "ram", source: new MemorySource(bytes) }],
    chunkBytes: 4 * PAGE,
  });
  assert.equal((await verifyImage(store, "it")).right, true);
  const image = await openImageIn(store, "it");
  const expected: { offset: number; code: string; message: string }[] = [];
  for (const chunk of [3, 700, 1601, 2559]) {
    const place = await image.locate(chunk);
    if (place === undefined) continue;
    store.objects.get(`packs/${place.pack}`)![place.offset + place.storedBytes - 1]! ^= 1;
  }
  const target = new Uint8Array(4 * PAGE);
  for (let chunk = 0; chunk < bytes.byteLength / target.byteLength; chunk++) {
    await image.readChunk(chunk, target).catch(({ code, message }: MinorfaultError) => {
      expected.push({ offset: chunk * target.byteLength, code, message });
    });
  }
  assert.ok(expected.length > 0);
  const { problems, problemCount, chunks } = await verifyImage(store, "it");
  assert.ok(chunks * target.byteLength > 24 * 2 ** 20, `${chunks} chunks`);
  assert.deepEqual(problems, expected);
  assert.equal(problemCount, expected.length);
});

test("a newer version, or a feature that is required and not known, is refused as such", async () => {
  for (const [change, code] of [
    [{ version: 2 }, "ERR_IMAGE_VERSION"],
    [{ requires: ["encryption"] }, "ERR_IMAGE_VERSION"],
    [{ format: "something else" }, "ERR_BAD_IMAGE"],
    [{ version: 0 }, "ERR_BAD_IMAGE"],
  ] as const) {
    const store = await imageOf(new Uint8Array(PAGE).fill(1));
    rewrite(store, (manifest) => Object.assign(manifest, change));
    await assert.rejects(openImageIn(store, "it"), { code });
  }
});

test("fields that are not known are ignored, and kept", async () => {
  const store = await imageOf(new Uint8Array(PAGE).fill(1));
  rewrite(store, (manifest) => Object.assign(manifest, { colour: { of: "sky" } }));
  const { manifest } = await openImageIn(store, "it");
  assert.deepEqual((manifest as Record<string, unknown>).colour, { of: "sky" });
});

test("a manifest that lies is refused with the field's name", async () => {
  for (const [change, names] of [
    [{ byteLength: 4097 }, /does not end with a chunk/],
    [{ chunkBytes: 5000 }, /chunkBytes/],
    [{ byteLength: 2 ** 50 }, /byteLength/],
    [{ regions: [] }, /regions/],
    [
      {
        regions: [
          { name: "../x", guestAddress: 0, byteLength: PAGE, dataBytes: 1, offset: 0, pageSize: PAGE },
        ],
      },
      /name/,
    ],
    [{ root: { pack: "../../etc/passwd", packBytes: 1, sha256: "" } }, /root/],
  ] as const) {
    const store = await imageOf(new Uint8Array(PAGE).fill(1));
    rewrite(store, (manifest) => Object.assign(manifest, change));
    await assert.rejects(openImageIn(store, "it"), { code: "ERR_BAD_IMAGE", message: names });
  }
});

test("another image's manifest under this name is refused", async () => {
  const store = await imageOf(new Uint8Array(PAGE).fill(1));
  store.objects.set("manifests/that.json", store.objects.get(KEY)!);
  await assert.rejects(openImageIn(store, "that"), { code: "ERR_BAD_IMAGE", message: /is that of it/ });
});

test("an image that was rolled back is refused by whoever knows its digest", async () => {
  const store = await imageOf(new Uint8Array(PAGE).fill(1));
  const before = store.objects.get(KEY)!;
  const { digest } = await buildImage(store, "it", {
    regions: [{ name: "ram", source: new MemorySource(new Uint8Array(PAGE).fill(2)) }],
    chunkBytes: PAGE,
  });
  await (await openImageIn(store, "it", { digest })).close();
  store.objects.set(KEY, before);
  await assert.rejects(openImageIn(store, "it", { digest }), { code: "ERR_WRONG_BYTES" });
});
