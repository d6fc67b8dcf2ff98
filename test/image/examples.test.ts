// The example of images runs and says what it says.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

test("examples/images.mjs builds, compares, copies and reads", () => {
  const program = fileURLToPath(new URL("../../../examples/images.mjs", import.meta.url));
  const { stdout, stderr, status } = spawnSync(process.execPath, [program], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  assert.equal(
    stdout,
    [
      "base: 1008 chunks are zeros, 1 stored, 15 were equal to one",
      "child: 64 KiB looked at, 1 chunk stored",
      "the copy is right: true",
      "they differ in 1 page, at 8.99609375 MiB",
      "first: 1 pages at 8.99609375 MiB, the last byte is 77",
      "first: 2 pages at 8 MiB, the last byte is 225",
      "",
    ].join("\n"),
  );
});
