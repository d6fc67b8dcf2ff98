// What a spare does ahead of its turn must end: one that waits for ever for an image could never take over.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";

/** Far from what it takes; a process that stands in a fault for ever is killed then. */
const DEADLINE_MS = 60_000;

test("a practice goes over an image again and again, and leaves no guest behind", { skip }, () => {
  const program = fileURLToPath(new URL("./practice-process.js", import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [program], {
    encoding: "utf8",
    timeout: DEADLINE_MS,
    killSignal: "SIGKILL",
  });
  assert.equal(status, 0, stderr);
  const { pieces, guests } = JSON.parse(stdout);
  assert.equal(guests, 0);
  // Each round asks after each piece of the file whether it may go on.
  assert.ok(pieces >= 8 * 3, `${pieces} pieces`);
});

test("a rehearsal ends although the image's bytes never come, and leaves no guest behind", { skip }, () => {
  const program = fileURLToPath(new URL("./rehearsal-process.js", import.meta.url));
  const source = new URL("../pager/fixtures/source.js", import.meta.url).href;
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, source], {
    encoding: "utf8",
    timeout: DEADLINE_MS,
    killSignal: "SIGKILL",
  });
  assert.equal(status, 0, stderr);
  assert.deepEqual(JSON.parse(stdout), { looks: 3, guests: 0 });
});
