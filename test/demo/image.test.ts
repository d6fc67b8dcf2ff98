// The image of the demo: real bytes, zeros and repetitions, the same ones for the same seed.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { test } from "node:test";
import { Random } from "../../src/base/random.ts";
import { buildImage, HASH_BYTES, type Image } from "../../src/cli/demo/image.ts";

const PAGE = 4096;
const BYTES = 8 * 2 ** 20;

async function built(seed: number): Promise<{ image: Image; bytes: Buffer }> {
  const bytes = Buffer.alloc(BYTES, 0xff);
  const image = await buildImage({
    byteLength: BYTES,
    seed,
    write: (offset, chunk) => void bytes.set(chunk, offset),
  });
  return { image, bytes };
}

test("every page's hash, zero bit and first word are those of the bytes that were written", async () => {
  const { image, bytes } = await built(1);
  let zeros = 0;
  for (let page = 0; page < image.pageCount; page++) {
    const content = bytes.subarray(page * PAGE, (page + 1) * PAGE);
    const hash = createHash("sha256").update(content).digest();
    assert.ok(hash.equals(image.hashes.subarray(page * HASH_BYTES, (page + 1) * HASH_BYTES)), `page ${page}`);
    const isZero = content.every((byte) => byte === 0);
    zeros += Number(isZero);
    assert.equal((((image.zeroPages[page >> 5] ?? 0) >>> (page & 31)) & 1) === 1, isZero, `page ${page}`);
    assert.equal(image.firstWords[page], content.readUInt32LE(0));
  }
  assert.ok(zeros >= image.composition.zero);
});

test("files, zeros and repeated pages all occur, and the first page is that of the running Node", async () => {
  const { image, bytes } = await built(2);
  const { files, zero, repeated } = image.composition;
  assert.equal(files + zero + repeated, image.pageCount);
  for (const share of [files, zero, repeated]) assert.ok(share > image.pageCount / 20, `${share} pages`);
  assert.equal(image.files[0], process.execPath);
  const first = Buffer.alloc(PAGE);
  const file = openSync(process.execPath, "r");
  readSync(file, first, 0, PAGE, 0);
  closeSync(file);
  assert.ok(bytes.subarray(0, PAGE).equals(first));
  assert.ok(image.distinctPages < image.pageCount - zero - repeated / 2);
});

test("the same seed builds the same image, another seed another one", async () => {
  const [one, again, other] = [await built(3), await built(3), await built(4)];
  assert.ok(one.image.hashes.equals(again.image.hashes));
  assert.ok(!one.image.hashes.equals(other.image.hashes));
});

test("building stops when it is aborted", async () => {
  const controller = new AbortController();
  const building = buildImage({
    byteLength: BYTES,
    seed: 1,
    write: () => controller.abort(),
    signal: controller.signal,
  });
  await assert.rejects(building, { name: "AbortError" });
});

test("Random.sample() gives different numbers below the limit, and all of them when asked for all", () => {
  for (const seed of [0, 1, 2 ** 32 - 1]) {
    const some = new Random(seed).sample(1000, 5000);
    assert.equal(new Set(some).size, 1000);
    assert.ok(some.every((number) => number < 5000));
    assert.deepEqual(
      [...new Random(seed).sample(50, 50)].sort((a, b) => a - b),
      Array.from({ length: 50 }, (_, i) => i),
    );
  }
});
