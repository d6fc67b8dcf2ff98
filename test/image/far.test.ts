// An image that is far away: how often it is waited for, and that what is opened is closed again.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { addWorkingSet, buildImage, openImageIn } from "../../src/image/index.ts";
import { MemorySource, type ObjectStore, type PageSource } from "../../src/source/index.ts";
import { PAGE, sparseBytes } from "./content.ts";
import { MemoryStore } from "./memory-store.ts";

const content = sparseBytes(new Random(71), 300 * PAGE);
const state = new Uint8Array(900).fill(4);

async function built(): Promise<MemoryStore> {
  const near = new MemoryStore();
  await buildImage(near, "far", {
    regions: [{ name: "ram", source: new MemorySource(content) }],
    attachments: [
      { name: "state", bytes: state },
      { name: "more", bytes: state },
    ],
    chunkBytes: PAGE,
    packBytes: 8 * PAGE,
  });
  await addWorkingSet(near, "far", "boot", [7 * PAGE, 2 * PAGE]);
  return near;
}

/** Answers all requests of a turn together: whoever needs the answer to one for the next is in another round. */
class FarStore {
  readonly store: ObjectStore;
  rounds = 0;
  requests = 0;
  /** Sources that were opened and have not been closed. */
  open = 0;
  #round: Promise<void> | undefined;

  constructor(near: MemoryStore) {
    const opened = async (key: string): Promise<PageSource> => {
      const source = await near.open(key);
      this.open++;
      return {
        name: source.name,
        byteLength: source.byteLength,
        read: async (offset, target) => {
          await this.#request();
          await source.read(offset, target);
        },
        close: async () => {
          this.open--;
        },
      };
    };
    this.store = {
      url: "far:",
      open: async (key) => {
        await this.#request();
        return opened(key);
      },
      openAt: async (key, offset, target) => {
        await this.#request();
        await (await near.open(key)).read(offset, target);
        return opened(key);
      },
      get: async (key, bytesMax) => {
        await this.#request();
        return near.get(key, bytesMax);
      },
      put: (key, bytes) => near.put(key, bytes),
      list: (prefix) => near.list(prefix),
      delete: (key) => near.delete(key),
      close: async () => {},
    };
  }

  /** Rounds and requests since the last call. */
  taken(): { rounds: number; requests: number } {
    const { rounds, requests } = this;
    this.rounds = 0;
    this.requests = 0;
    return { rounds, requests };
  }

  #request(): Promise<void> {
    this.requests++;
    this.#round ??= new Promise((resolve) => {
      setImmediate(() => {
        this.rounds++;
        this.#round = undefined;
        resolve();
      });
    });
    return this.#round;
  }
}

test("an image is open, with what is read first of it, after two round trips", async () => {
  const far = new FarStore(await built());
  const ahead = { attachments: ["state", "more"], workingSet: "boot" };
  const image = await openImageIn(far.store, "far", { ahead });
  // The manifest; then the root, two attachments and the working set.
  assert.deepEqual(far.taken(), { rounds: 2, requests: 5 });
  assert.deepEqual(Buffer.from(await image.readAttachment("state")), Buffer.from(state));
  assert.deepEqual(Buffer.from(await image.readAttachment("more")), Buffer.from(state));
  const pages: number[] = [];
  for await (const { offset, bytes } of image.readWorkingSet("boot")) {
    pages.push(offset / PAGE);
    assert.ok(Buffer.compare(bytes, content.subarray(offset, offset + bytes.byteLength)) === 0);
  }
  assert.deepEqual(pages, [7, 2]);
  assert.deepEqual(far.taken(), { rounds: 0, requests: 0 });
  await image.close();
  assert.equal(far.open, 0);
});

test("a chunk of a pack that is not open costs one round trip beside that of its index page", async () => {
  const far = new FarStore(await built());
  const image = await openImageIn(far.store, "far");
  far.taken();
  const target = new Uint8Array(image.chunkBytes);
  const chunk = await firstChunk(image);
  far.taken();
  await image.readChunk(chunk, target);
  assert.deepEqual(far.taken(), { rounds: 1, requests: 1 });
  const offset = chunk * image.chunkBytes;
  const expected = content.subarray(offset, offset + image.chunkBytes);
  assert.ok(Buffer.compare(target.subarray(0, expected.byteLength), expected) === 0);
  await image.close();
  assert.equal(far.open, 0);
});

/** The first one that is stored, found by the index. */
async function firstChunk(image: Awaited<ReturnType<typeof openImageIn>>): Promise<number> {
  for (let chunk = 0; ; chunk++) if ((await image.locate(chunk)) !== undefined) return chunk;
}

test("chunks of one pack that are read at once wait for none of the others, and one source stays", async () => {
  const near = await built();
  const far = new FarStore(near);
  const image = await openImageIn(far.store, "far");
  await image.locate(0);
  const before = far.open;
  far.taken();
  const chunks: number[] = [];
  for (let chunk = 0; chunks.length < 3; chunk++) {
    if ((await image.locate(chunk)) !== undefined) chunks.push(chunk);
  }
  const { pack } = (await image.locate(chunks[0]!))!;
  for (const chunk of chunks) assert.equal((await image.locate(chunk))?.pack, pack);
  const reading = chunks.map((chunk) => image.readChunk(chunk, new Uint8Array(image.chunkBytes)));
  await Promise.all(reading);
  assert.deepEqual(far.taken(), { rounds: 1, requests: 3 });
  assert.equal(far.open, before + 1);
  // One that is answered when the image has been closed stays open no longer.
  const late = image.readChunk(await ofClosedPack(image, near), new Uint8Array(image.chunkBytes));
  await image.close();
  await late;
  assert.equal(far.open, 0);
});

/** A chunk of a pack that has not been read. */
async function ofClosedPack(
  image: Awaited<ReturnType<typeof openImageIn>>,
  { bytesRead }: MemoryStore,
): Promise<number> {
  for (let chunk = 0; ; chunk++) {
    const found = await image.locate(chunk);
    if (found !== undefined && !bytesRead.has(`packs/${found.pack}`)) return chunk;
  }
}

test("a pack with the root that is longer or shorter than the manifest says is told as from near", async () => {
  for (const change of [
    (bytes: Uint8Array) => bytes.subarray(1),
    (bytes: Uint8Array) => Buffer.concat([Buffer.alloc(1), bytes]),
    (bytes: Uint8Array) => bytes.subarray(0, 100),
  ]) {
    const near = await built();
    const image = await openImageIn(near, "far");
    const key = `packs/${image.manifest.root.pack}`;
    await image.close();
    near.objects.set(key, change(near.objects.get(key)!));
    const failure = (store: ObjectStore) =>
      openImageIn(store, "far").then(
        () => assert.fail("It was opened"),
        ({ code, message }: MinorfaultError) => `${code} ${message}`,
      );
    const far = new FarStore(near);
    assert.equal(await failure(far.store), await failure(near));
    assert.equal(far.open, 0);
  }
});
