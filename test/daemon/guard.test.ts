// A test that is killed leaves no server behind, and no machine.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import { isAlive } from "./stand.ts";

const DEADLINE_MS = 15_000;

test("when a process that started a server for a test is killed, the server ends", { skip }, async () => {
  const program = fileURLToPath(new URL("./abandoned.js", import.meta.url));
  const child = spawn(process.execPath, [program], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  const pids = JSON.parse(line) as number[];
  assert.ok(pids.length >= 4, `${pids.length} processes`);
  assert.deepEqual(pids.filter(isAlive), pids);
  child.kill("SIGKILL");
  const until = performance.now() + DEADLINE_MS;
  while (pids.some(isAlive) && performance.now() < until) await delay(5);
  assert.deepEqual(pids.filter(isAlive), []);
});
