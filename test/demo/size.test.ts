// Sizes as the demo reads and prints them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { exactSize, formatCount, formatSize, parseSize } from "../../src/cli/demo/size.ts";

test("parseSize() takes numbers with KiB, MiB or GiB, in any case, with or without a space", () => {
  assert.equal(parseSize("256MiB"), 256 * 2 ** 20);
  assert.equal(parseSize("1.5 gib"), 1.5 * 2 ** 30);
  assert.equal(parseSize("1024KiB"), 2 ** 20);
});

test("parseSize() refuses what is no size, too small, or not whole pages, and says what is right", () => {
  for (const text of ["", "MiB", "256MB", "-1GiB", "0x10MiB", "1e3MiB", "NaNGiB", "1 2MiB"]) {
    assert.throws(() => parseSize(text), { message: /such as 64KiB/ }, text);
  }
  assert.throws(() => parseSize("256"), { message: /at least 1 MiB, such as 256MiB/ });
  assert.throws(() => parseSize("1020KiB"), { message: /at least 1 MiB, such as 256MiB/ });
  assert.throws(() => parseSize("0GiB"), { message: /at least 1 MiB, such as 256MiB/ });
  assert.throws(() => parseSize("1025KiB"), { message: /whole number of pages/ });
});

test("exactSize() gives what parseSize() takes back", () => {
  for (const byteLength of [2 ** 20, 3 * 2 ** 30, 2 ** 30 + 2 ** 20, 2 ** 20 + 4096]) {
    assert.equal(parseSize(exactSize(byteLength)), byteLength);
  }
});

test("formatSize() and formatCount() are short and grouped", () => {
  assert.equal(formatSize(256 * 2 ** 20), "256 MiB");
  assert.equal(formatSize(1.5 * 2 ** 30), "1.5 GiB");
  assert.equal(formatSize(0), "0 KiB");
  assert.equal(formatCount(65536), "65 536");
  assert.equal(formatCount(1234567), "1 234 567");
  assert.equal(formatCount(7), "7");
});
