// Crashes at every point: whatever prefix of the changes to a store has happened, each of its images is the old one,
// the new one, or not there; and the store can be pruned and built in afterwards.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import {
  addWorkingSet,
  buildImage,
  copyImage,
  openImageIn,
  pruneStore,
  removeImage,
  verifyImage,
} from "../../src/image/index.ts";
import { MemorySource } from "../../src/source/index.ts";
import { PAGE, scribble, sparseBytes } from "./content.ts";
import { MemoryStore } from "./memory-store.ts";

const BYTES = 200 * PAGE;
const random = new Random(21);
const old = sparseBytes(random, BYTES);
const fresh = old.slice();
scribble(random, fresh, 8);
const other = sparseBytes(random, BYTES);

const options = (bytes: Uint8Array) => ({
  regions: [{ name: "ram", source: new MemorySource(bytes) }],
  chunkBytes: PAGE,
  packBytes: 16 * PAGE,
});

/** What an image holds, or undefined when it is not there. Anything else than that fails the test. */
async function contentOf(store: MemoryStore, name: string): Promise<Uint8Array | undefined> {
  try {
    const image = await openImageIn(store, name);
    const target = new Uint8Array(BYTES);
    await image.read(0, target);
    for (const set of image.workingSets()) {
      for await (const { offset, bytes } of image.readWorkingSet(set)) {
        assert.equal(Buffer.compare(bytes, target.subarray(offset, offset + bytes.byteLength)), 0);
      }
    }
    return target;
  } catch (error) {
    if (
      error instanceof MinorfaultError &&
      error.code === "ERR_SOURCE_MISSING" &&
      /manifest/.test(error.message)
    ) {
      return undefined;
    }
    throw error;
  }
}

/** Runs `work` on a store, then replays each prefix of its changes. */
async function afterEachPrefix(
  start: MemoryStore,
  work: (store: MemoryStore) => Promise<unknown>,
  check: (store: MemoryStore, changes: number) => Promise<void>,
): Promise<number> {
  const recorded = new MemoryStore(start.objects);
  await work(recorded);
  for (let count = 0; count <= recorded.changes.length; count++) {
    const store = new MemoryStore(start.objects);
    for (const change of recorded.changes.slice(0, count)) store.apply(change);
    await check(store, count);
  }
  return recorded.changes.length;
}

async function startStore(): Promise<MemoryStore> {
  const store = new MemoryStore();
  await buildImage(store, "it", options(old));
  await buildImage(store, "other", options(other));
  return store;
}

const isOneOf = (found: Uint8Array | undefined, allowed: readonly (Uint8Array | undefined)[]): boolean =>
  allowed.some((each) =>
    each === undefined || found === undefined ? each === found : Buffer.compare(each, found) === 0,
  );

test("replacing an image: the old one, then the new one", async () => {
  const start = await startStore();
  const changes = await afterEachPrefix(
    start,
    (store) => buildImage(store, "it", { ...options(fresh), parent: "it" }),
    async (store, count) => {
      assert.ok(isOneOf(await contentOf(store, "it"), [old, fresh]), `after ${count} changes`);
      assert.ok(isOneOf(await contentOf(store, "other"), [other]));
      // Whoever comes after the crash prunes and builds as if nothing had been.
      await pruneStore(store, { graceMs: 0 });
      assert.ok(isOneOf(await contentOf(store, "it"), [old, fresh]), `pruned after ${count} changes`);
      await buildImage(store, "it", options(fresh));
      assert.equal((await verifyImage(store, "it")).right, true);
    },
  );
  assert.ok(changes >= 3, "packs, root and manifest");
});

test("a new image: not there, then there", async () => {
  const changes = await afterEachPrefix(
    new MemoryStore(),
    (store) => buildImage(store, "it", options(old)),
    async (store, count) => {
      assert.ok(isOneOf(await contentOf(store, "it"), [undefined, old]), `after ${count} changes`);
    },
  );
  assert.ok(changes >= 4);
});

test("pruning: at every point all images are there and right", async () => {
  const start = await startStore();
  await buildImage(start, "gone", options(fresh));
  await removeImage(start, "gone");
  for (const graceMs of [0, 1000]) {
    const changes = await afterEachPrefix(
      start,
      async (store) => {
        let time = 1_000_000;
        await pruneStore(store, { graceMs, now: () => time });
        time += 2000;
        await pruneStore(store, { graceMs, now: () => time });
      },
      async (store) => {
        assert.ok(isOneOf(await contentOf(store, "it"), [old]));
        assert.ok(isOneOf(await contentOf(store, "other"), [other]));
      },
    );
    assert.ok(changes > 0);
  }
});

test("adding a working set: the image is the same before and after", async () => {
  await afterEachPrefix(
    await startStore(),
    (store) => addWorkingSet(store, "it", "boot", [7 * PAGE, 3 * PAGE, 4 * PAGE, 100 * PAGE]),
    async (store) => {
      assert.ok(isOneOf(await contentOf(store, "it"), [old]));
    },
  );
});

test("a copy that is cut off at any point goes on from there, and moves nothing twice", async () => {
  const from = await startStore();
  const start = new MemoryStore();
  const whole = await copyImage(from, "other", new MemoryStore());
  const copy = (store: MemoryStore) => copyImage(from, "other", store);
  await afterEachPrefix(start, copy, async (store, count) => {
    assert.ok(isOneOf(await contentOf(store, "other"), [undefined, other]), `after ${count} changes`);
    await pruneStore(store, { graceMs: 0 });
    const again = await copyImage(from, "other", store);
    assert.ok(isOneOf(await contentOf(store, "other"), [other]));
    assert.equal(again.chunks.known + again.chunks.moved, whole.chunks.known + whole.chunks.moved);
    if (count >= 2) assert.ok(again.movedBytes < whole.movedBytes || whole.movedBytes === 0, `${count}`);
  });
});

test("a store that fails in the middle: the error is told, the store is as it was", async () => {
  const start = await startStore();
  for (let failing = 0; failing < 8; failing++) {
    const store = new MemoryStore(start.objects);
    let count = 0;
    store.beforeChange = ({ op }) => {
      if (op === "put" && count++ === failing)
        throw new MinorfaultError("ERR_SOURCE_FAILED", "the disk is full");
    };
    let failed = false;
    await buildImage(store, "it", { ...options(fresh), dedup: "image" }).catch((error: unknown) => {
      failed = true;
      assert.ok(error instanceof MinorfaultError && error.code === "ERR_SOURCE_FAILED");
    });
    if (!failed) break;
    // When it was the manifest that failed the image may be there all the same, so its packs are left to prune.
    await pruneStore(store, { graceMs: 0 });
    assert.deepEqual([...store.objects.keys()].sort(), [...start.objects.keys()].sort());
    assert.ok(isOneOf(await contentOf(store, "it"), [old]));
    assert.ok(failing < 7, "it ends");
  }
});

test("a store that takes the manifest and then fails to say so: the image is there, and whole", async () => {
  const store = await startStore();
  const put = store.put.bind(store);
  store.put = async (key, bytes, putOptions) => {
    await put(key, bytes, putOptions);
    if (key === "manifests/it.json") throw new MinorfaultError("ERR_SOURCE_TIMEOUT", "no answer came");
  };
  await assert.rejects(buildImage(store, "it", options(fresh)), { code: "ERR_SOURCE_TIMEOUT" });
  assert.ok(isOneOf(await contentOf(store, "it"), [fresh]));
  await assert.rejects(addWorkingSet(store, "it", "boot", [0]), { code: "ERR_SOURCE_TIMEOUT" });
  assert.ok(isOneOf(await contentOf(store, "it"), [fresh]));
  assert.equal((await verifyImage(store, "it")).right, true);
});
