// Objects of a folder that are written by a thread before they have a name.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { Random } from "../../src/base/random.ts";
import { buildImage, openImageIn, verifyImage } from "../../src/image/index.ts";
import { StreamedBody } from "../../src/image/pack-body.ts";
import { FolderStore, MemorySource, type Upload } from "../../src/source/index.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-upload-test-"));
after(() => rmSync(folder, { recursive: true }));

let count = 0;
let root: string;
let store: FolderStore;
beforeEach(() => {
  root = join(folder, String(count++));
  store = new FolderStore(root);
});

function bytesOf(byteLength: number, seed: number): Uint8Array {
  const random = new Random(seed);
  // Enough that chunks differ: words of one long block, turned by their place.
  const words = Uint32Array.from({ length: 65_536 }, () => random.below(2 ** 32));
  const bytes = new Uint8Array(Math.ceil(byteLength / 4) * 4);
  const all = new Uint32Array(bytes.buffer);
  for (let at = 0; at < all.length; at++) all[at] = words[at & 0xffff]! ^ Math.imul(at >>> 16, 0x9e3779b1);
  return bytes.slice(0, byteLength);
}

test("pieces of shared and of own memory come in their order, under a name that is told last", async () => {
  const shared = new Uint8Array(new SharedArrayBuffer(3 * 2 ** 20));
  shared.set(bytesOf(shared.byteLength, 1));
  const own = bytesOf(5000, 2);
  const upload = store.begin("packs/none");
  await upload.write([shared.subarray(7, 2 ** 20), own.subarray(1, 4000)]);
  assert.deepEqual(
    readdirSync(join(root, "packs")).filter((name) => !name.startsWith(".")),
    [],
    "nobody sees it yet",
  );
  const pieces = [shared.subarray(7, 2 ** 20), own.subarray(1, 4000), shared.subarray(2 ** 20), own];
  const expected = Buffer.concat(pieces);
  // Not waited for, but in order.
  const written = upload.write(pieces.slice(2));
  await upload.finish("packs/some");
  await written;
  assert.ok(readFileSync(join(root, "packs", "some")).equals(expected));
  assert.deepEqual(readdirSync(join(root, "packs")), ["some"]);
});

test("what was written may change", async () => {
  const piece = new Uint8Array(new SharedArrayBuffer(2 ** 16)).fill(1);
  const upload = store.begin("a/b");
  await upload.write([piece]);
  piece.fill(2);
  await upload.write([piece]);
  await upload.finish("a/b");
  const found = readFileSync(join(root, "a", "b"));
  assert.ok(found.subarray(0, 2 ** 16).every((byte) => byte === 1));
  assert.ok(found.subarray(2 ** 16).every((byte) => byte === 2));
});

test("one that is given up leaves nothing, nor does one that is refused", async () => {
  const given = store.begin("packs/none");
  await given.write([bytesOf(100, 3)]);
  await given.discard();
  await given.discard();
  await assert.rejects(given.write([bytesOf(1, 1)]), { code: "ERR_CLOSED" });
  assert.deepEqual(readdirSync(join(root, "packs")), []);
  await store.put("packs/there", bytesOf(10, 4));
  const refused = store.begin("packs/none");
  await refused.write([bytesOf(100, 5)]);
  await assert.rejects(refused.finish("packs/there", { ifAbsent: true }), { code: "ERR_STORE_EXISTS" });
  const aborted = store.begin("packs/none");
  const signal = AbortSignal.abort(new Error("enough"));
  await assert.rejects(aborted.finish("packs/other", { signal }), /enough/);
  await assert.rejects(store.begin("packs/none").finish("../out"), { code: "ERR_STORE_PATH" });
  assert.deepEqual(readdirSync(join(root, "packs")), ["there"]);
});

test("what the disk refuses is told", async () => {
  const upload = store.begin("packs/none");
  await upload.write([bytesOf(10, 6)]);
  rmSync(join(root, "packs"), { recursive: true });
  await assert.rejects(upload.finish("packs/some"), { code: "ERR_SOURCE_MISSING" });
});

test("an image that is built by several threads is written so, and is the same as one that is not", async () => {
  const seed = 11;
  const content = bytesOf(40 * 2 ** 20, seed);
  // Chunks that are compressed, and zeros, among those that are not.
  for (let at = 0; at < content.byteLength; at += 2 ** 20) {
    content.fill(at / 2 ** 20, at, at + 70_000);
    content.fill(0, at + 300_000, at + 500_000);
  }
  const regions = [{ name: "memory", source: new MemorySource(content) }];
  const packBytes = 8 * 2 ** 20;
  const { packs, writtenBytes } = await buildImage(store, "threads", { regions, packBytes });
  assert.ok(packs.length >= 4);
  const names = readdirSync(join(root, "packs"));
  assert.deepEqual(new Set(names), new Set(packs.map(({ name }) => name)));
  const lengths = names.map((name) => readFileSync(join(root, "packs", name)).byteLength);
  assert.equal(
    lengths.reduce((sum, length) => sum + length, 0),
    writtenBytes,
  );
  assert.deepEqual((await verifyImage(store, "threads")).problems, []);
  const image = await openImageIn(store, "threads");
  const read = new Uint8Array(content.byteLength);
  await image.read(0, read);
  assert.ok(Buffer.compare(read, content) === 0);
  await image.close();
});

test("what is added may change when all of it is written, whichever pack is written first", async () => {
  const written: (() => void)[] = [];
  const begin = (): Upload => ({
    write: () => new Promise((resolve) => written.push(resolve)),
    finish: async () => undefined,
    discard: async () => undefined,
  });
  const body = new StreamedBody(begin);
  const batch = new Uint8Array(new SharedArrayBuffer(8192));
  body.append(batch.subarray(0, 4096));
  const finished = body.finish("packs/first", new Uint8Array(16), undefined);
  body.append(batch.subarray(4096));
  let mayChange = false;
  const flushed = body.flush().then(() => {
    mayChange = true;
  });
  // The second pack's thread is faster.
  written[1]!();
  await new Promise(setImmediate);
  assert.equal(mayChange, false);
  written[0]!();
  await Promise.all([finished, flushed]);
});

test("a build that fails in the middle leaves no pack", async () => {
  const content = bytesOf(40 * 2 ** 20, 12);
  const memory = new MemorySource(content);
  const source = {
    name: "content",
    byteLength: content.byteLength,
    async read(offset: number, target: Uint8Array): Promise<void> {
      if (offset >= 30 * 2 ** 20) throw new Error("no more");
      await memory.read(offset, target);
    },
    close: async () => {},
  };
  const regions = [{ name: "memory", source }];
  await assert.rejects(buildImage(store, "fails", { regions, packBytes: 4 * 2 ** 20 }), /no more/);
  assert.deepEqual(readdirSync(join(root, "packs")), []);
});
