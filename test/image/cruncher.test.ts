// What is worth compressing: content that looks like noise is stored as it is without a try, everything else is tried.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { smallerOf } from "../../src/image/cruncher.ts";
import { decompress } from "../../src/source/codec.ts";

const CHUNK = 65536;

test("noise stays as it is, and so does the rest of it where a try would not help", () => {
  const noise = new Uint8Array(randomBytes(CHUNK));
  assert.equal(smallerOf(noise, 3), noise);
  assert.equal(smallerOf(noise, 19), noise);
  assert.equal(smallerOf(noise, undefined), noise);
});

test("what has a page of zeros among noise, or a byte that is more frequent, is compressed", () => {
  const mixed = new Uint8Array(randomBytes(CHUNK)).fill(0, 4096, 8192);
  // Six bits a byte, which no two bytes in a row give away.
  const skewed = new Uint8Array(randomBytes(CHUNK)).map((byte) => byte & 0x3f);
  for (const content of [mixed, skewed]) {
    const stored = smallerOf(content, 3);
    assert.ok(stored.byteLength < content.byteLength, `${stored.byteLength}`);
    assert.deepEqual(decompress(stored, CHUNK), content);
  }
});

test("noise that repeats itself is found out by who asks for a high level", () => {
  const half = randomBytes(CHUNK / 2);
  const twice = new Uint8Array(Buffer.concat([half, half]));
  assert.equal(smallerOf(twice, 3), twice);
  assert.ok(smallerOf(twice, 4).byteLength < CHUNK * 0.6);
});
