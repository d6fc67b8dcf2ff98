// Sizes and times as options have them, and as people read them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { progressText } from "../../src/cli/byte-progress.ts";
import { bytesText, msText, parseBytes, parseMs } from "../../src/cli/bytes.ts";

test("sizes are numbers with binary units", () => {
  for (const [text, byteLength] of [
    ["64KiB", 65536],
    ["1.5 GiB", 1.5 * 2 ** 30],
    ["4096", 4096],
    ["2tib", 2 ** 41],
  ] as const) {
    assert.equal(parseBytes(text), byteLength);
  }
  for (const wrong of ["64KB", "", "-1", "1e9", "KiB", "0.3", "1 MiB 2", "9999999TiB"]) {
    assert.throws(() => parseBytes(wrong), { code: "commander.invalidArgument" }, wrong);
  }
  assert.deepEqual([96, 65536, 1.5 * 2 ** 20, 123.4 * 2 ** 30].map(bytesText), [
    "96 B",
    "64 KiB",
    "1.5 MiB",
    "123 GiB",
  ]);
});

test("times are numbers with units", () => {
  assert.deepEqual(["250ms", "30s", "1h", "2d"].map(parseMs), [250, 30_000, 3_600_000, 172_800_000]);
  for (const wrong of ["5", "1 week", "", "-3s"]) {
    assert.throws(() => parseMs(wrong), { code: "commander.invalidArgument" }, wrong);
  }
  assert.deepEqual([450, 5500, 59_000, 200_000, 3_700_000].map(msText), [
    "450 ms",
    "5.5 s",
    "59 s",
    "3 min 20 s",
    "1 h 1 min",
  ]);
});

test("progress says how much, how fast and how long still", () => {
  assert.equal(progressText(2 ** 20, 2 ** 22, undefined), "1 MiB of 4 MiB");
  assert.equal(progressText(2 ** 20, 2 ** 22, 2 ** 20), "1 MiB of 4 MiB  1 MiB/s  3.0 s left");
});
