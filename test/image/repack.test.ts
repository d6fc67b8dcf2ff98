// Packs that are mostly garbage are rewritten: images stay what they are, at every point of it; the store becomes small.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import {
  addWorkingSet,
  buildImage,
  listImages,
  openImageIn,
  pruneStore,
  removeImage,
  repackStore,
  verifyImage,
} from "../../src/image/index.ts";
import { PackReader } from "../../src/image/pack-reader.ts";
import { PackUsage } from "../../src/image/pack-usage.ts";
import { PackWriter } from "../../src/image/pack-writer.ts";
import { MemorySource } from "../../src/source/index.ts";
import { PAGE, scribble, seedOf, sparseBytes } from "./content.ts";
import { MemoryStore } from "./memory-store.ts";

const BYTES = 300 * PAGE;
const OPTIONS = { chunkBytes: PAGE, packBytes: 32 * PAGE } as const;

const regions = (bytes: Uint8Array) => [{ name: "ram", source: new MemorySource(bytes) }];

async function contentOf(store: MemoryStore, name: string): Promise<Uint8Array> {
  const image = await openImageIn(store, name);
  const target = new Uint8Array(image.byteLength);
  await image.read(0, target);
  await image.close();
  return target;
}

async function assertHolds(store: MemoryStore, contents: ReadonlyMap<string, Uint8Array>, when: string) {
  for (const [name, bytes] of contents) {
    assert.equal(Buffer.compare(await contentOf(store, name), bytes), 0, `${name} ${when}`);
    const { right, problems } = await verifyImage(store, name);
    assert.ok(right, `${name} ${when}: ${problems[0]?.message}`);
  }
}

/** What one run rewrites leaves garbage in other packs: their index pages. It comes to an end. */
async function repackWholly(store: MemoryStore): Promise<void> {
  for (let run = 0; run < 6; run++) {
    const { repacked } = await pruneStore(store, { graceMs: 0, repack: true });
    if (repacked?.packs === 0) return;
  }
  assert.fail("it goes on for ever");
}

/** A family of images of which most have been removed; the packs are full of what only those needed. */
async function decayedStore(
  seed: number,
): Promise<{ store: MemoryStore; contents: Map<string, Uint8Array> }> {
  const random = new Random(seed);
  const store = new MemoryStore();
  const contents = new Map<string, Uint8Array>();
  const bytes = sparseBytes(random, BYTES);
  let parent: string | undefined;
  for (let version = 0; version < 10; version++) {
    const name = `v${version}`;
    await buildImage(store, name, {
      regions: regions(bytes.slice()),
      ...OPTIONS,
      ...(parent !== undefined && { parent }),
      notes: { version: String(version) },
      attachments: [{ name: "state", bytes: Uint8Array.from({ length: 9000 }, () => random.below(256)) }],
    });
    contents.set(name, bytes.slice());
    if (random.below(3) !== 0) parent = name;
    scribble(random, bytes, 12);
  }
  await addWorkingSet(store, "v7", "boot", [3 * PAGE, 90 * PAGE, 4 * PAGE]);
  for (const name of [...contents.keys()]) {
    if (name === "v7" || name === "v9") continue;
    await removeImage(store, name);
    contents.delete(name);
  }
  return { store, contents };
}

test("what is needed of decayed packs moves together, and every image holds what it held", async (t) => {
  const seed = seedOf();
  t.diagnostic(`SEED=${seed}`);
  for (let round = 0; round < 12; round++) {
    const { store, contents } = await decayedStore(seed + round);
    await pruneStore(store, { graceMs: 0 });
    const before = store.byteLength;
    const planned = await pruneStore(store, { graceMs: 0, repack: true, dryRun: true });
    assert.equal(store.byteLength, before, "a dry run changes nothing");
    const state = await (await openImageIn(store, "v7")).readAttachment("state");
    const { repacked, ...report } = await pruneStore(store, { graceMs: 0, repack: true });
    assert.deepEqual(
      {
        packs: repacked?.packs,
        bytes: repacked?.packBytes,
        moved: repacked?.movedBytes,
        images: repacked?.images,
      },
      {
        packs: planned.repacked?.packs,
        bytes: planned.repacked?.packBytes,
        moved: planned.repacked?.movedBytes,
        images: planned.repacked?.images,
      },
      "a dry run has said so",
    );
    assert.deepEqual(repacked?.left, []);
    assert.equal(report.images, 2);
    await assertHolds(store, contents, `round ${round}`);
    const opened = await openImageIn(store, "v7");
    assert.deepEqual(await opened.readAttachment("state"), state);
    assert.deepEqual(opened.manifest.notes, { version: "7" });
    assert.deepEqual(opened.workingSets(), ["boot"]);
    assert.ok(store.byteLength <= before || repacked?.packs === 0, `${store.byteLength} of ${before}`);
    await repackWholly(store);
    await assertHolds(store, contents, `round ${round}, wholly repacked`);
  }
});

test("children go on sharing the index pages of their parent", async () => {
  const store = new MemoryStore();
  const random = new Random(4);
  const bytes = Uint8Array.from({ length: 2048 * PAGE }, () => random.below(256));
  await buildImage(store, "old", {
    regions: regions(bytes),
    chunkBytes: PAGE,
    packBytes: 64 * PAGE,
    codec: "none",
  });
  const kept = bytes.slice();
  // Three pages of four are another image's, so that all packs of this one are mostly garbage when it is gone.
  for (let page = 0; page < 2048; page++) if (page % 4 !== 0) kept.fill(0, page * PAGE, (page + 1) * PAGE);
  await buildImage(store, "parent", { regions: regions(kept), chunkBytes: PAGE, codec: "none" });
  for (let child = 0; child < 5; child++) {
    kept[0] = child;
    const source = new MemorySource(kept.slice());
    const changed = [{ start: 0, until: 1 }];
    await buildImage(store, `child${child}`, {
      regions: [{ name: "ram", source, changed }],
      parent: "parent",
      codec: "none",
    });
  }
  await removeImage(store, "old");
  const { images } = await repackStore(store);
  assert.equal(images, 6);
  await repackWholly(store);
  assert.ok(store.byteLength < 512 * (PAGE + 80) + 14 * 20_608 + 50_000, `${store.byteLength} bytes`);
  // Of 1024 chunks each: one page of each child is its own, and the other one is the parent's.
  const usage = new PackUsage(new PackReader(store));
  for await (const { name } of listImages(store)) await usage.add(await openImageIn(store, name));
  let pages = 0;
  for (const [name, use] of usage.uses) {
    const { entries } = await new PackReader(store).table(name);
    pages += entries.filter(({ kind }, entry) => kind === "index page" && use?.isLive[entry]).length;
  }
  assert.equal(pages, 2 + 5);
});

test("at every point of repacking each image can be read, and whoever comes after goes on", async () => {
  const { store: start, contents } = await decayedStore(77);
  await pruneStore(start, { graceMs: 0 });
  const recorded = new MemoryStore(start.objects);
  const { repacked } = await pruneStore(recorded, { graceMs: 0, repack: true });
  assert.ok((repacked?.packs ?? 0) > 2, `${repacked?.packs} packs were mostly garbage`);
  const { changes } = recorded;
  const recordedWholly = new MemoryStore(recorded.objects);
  await repackWholly(recordedWholly);
  assert.ok(changes.length > 8, `${changes.length} changes`);
  for (let count = 0; count <= changes.length; count++) {
    const store = new MemoryStore(start.objects);
    for (const change of changes.slice(0, count)) store.apply(change);
    await assertHolds(store, contents, `after ${count} changes`);
    await repackWholly(store);
    await assertHolds(store, contents, `after ${count} changes and other runs`);
    assert.ok(store.byteLength < recordedWholly.byteLength * 1.1, "and as small as without the crash");
  }
});

test("who has an image open goes on reading the old packs until the grace is over", async () => {
  const { store, contents } = await decayedStore(5);
  let time = 1_000_000;
  const options = { graceMs: 1000, repack: true, now: () => time };
  const opened = await openImageIn(store, "v9");
  const { repacked, condemnedBytes } = await pruneStore(store, options);
  assert.ok(repacked !== undefined && repacked.packs > 0 && condemnedBytes >= repacked.packBytes);
  const target = new Uint8Array(opened.byteLength);
  await opened.read(0, target);
  assert.equal(Buffer.compare(target, contents.get("v9")!), 0);
  time += 2000;
  const { deletedBytes } = await pruneStore(store, options);
  assert.ok(deletedBytes >= repacked.packBytes);
  await assertHolds(store, contents, "at the end");
});

test("a damaged pack stays where it is, and is named; the others move", async () => {
  const { store, contents } = await decayedStore(77);
  await pruneStore(store, { graceMs: 0 });
  const sound = new MemoryStore(store.objects);
  const { packs } = await repackStore(sound);
  // A byte of content of each pack, one after the other: some of them are of no image.
  let left = 0;
  for (const [key, bytes] of [...store.objects].filter(([key]) => key.startsWith("packs/"))) {
    const damaged = new MemoryStore(store.objects);
    const wrong = bytes.slice();
    wrong.set([bytes[0]! ^ 1], 0);
    damaged.objects.set(key, wrong);
    const report = await repackStore(damaged).catch((error: unknown) => {
      // The root or an index page: then what is garbage is not known, and nothing happens.
      assert.ok(error instanceof MinorfaultError && error.kind === "source", String(error));
      return undefined;
    });
    if (report === undefined) continue;
    left += report.left.length;
    assert.equal(report.packs + report.left.length, packs);
    damaged.objects.set(key, bytes);
    await assertHolds(damaged, contents, "when the damage is undone");
  }
  assert.ok(left > 0);
});

test("an image that is replaced or removed meanwhile is left as it is then", async () => {
  for (const what of ["replaced", "removed"]) {
    const { store, contents } = await decayedStore(77);
    const fresh = sparseBytes(new Random(1), BYTES);
    let isDone = false;
    const put = store.put.bind(store);
    store.put = async (key, bytes, options) => {
      await put(key, bytes, options);
      if (isDone || !key.startsWith("packs/")) return;
      isDone = true;
      if (what === "replaced") await buildImage(store, "v9", { regions: regions(fresh), ...OPTIONS });
      else await removeImage(store, "v9");
    };
    const report = await repackStore(store);
    store.put = put;
    assert.deepEqual(report.left, [{ what: "image v9", why: "it was replaced or removed meanwhile" }]);
    if (what === "replaced") contents.set("v9", fresh);
    else contents.delete("v9");
    await pruneStore(store, { graceMs: 0 });
    await assertHolds(store, contents, what);
  }
});

test("a store that fails in the middle is left as it was, but for what prune takes away", async () => {
  const { store: start, contents } = await decayedStore(77);
  await pruneStore(start, { graceMs: 0 });
  let failed = 0;
  for (let failing = 0; ; failing++) {
    const store = new MemoryStore(start.objects);
    let count = 0;
    store.beforeChange = ({ op }) => {
      if (op === "put" && count++ === failing)
        throw new MinorfaultError("ERR_SOURCE_FAILED", "the disk is full");
    };
    const error = await repackStore(store).catch((cause: unknown) => cause);
    if (!(error instanceof MinorfaultError)) break;
    failed++;
    assert.equal(error.code, "ERR_SOURCE_FAILED");
    await assertHolds(store, contents, `failed at ${failing}`);
  }
  assert.ok(failed > 3);
});

test("a pack takes no more entries than it may have", async () => {
  const store = new MemoryStore();
  const writer = new PackWriter(store, { packEntries: 100 });
  const hash = new Uint8Array(32);
  const content = { hash, check: hash, encoding: "raw", contentBytes: 1, kind: "chunk" } as const;
  for (let entry = 0; entry < 201; entry++) await writer.add(new Uint8Array(1), content);
  await writer.finish();
  const reader = new PackReader(store);
  const counts: number[] = [];
  for (const { name } of writer.written) counts.push((await reader.table(name)).entries.length);
  assert.deepEqual(counts, [100, 100, 1]);
});
