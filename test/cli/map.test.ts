// `minorfault map` as a user runs it.

import assert from "node:assert/strict";
import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { numberedFile, numberOf, ownFolder, PAGE } from "../guest/array-buffer/files.ts";
import { skipUnlessUserfaultfd as skip, skipUnlessLinux } from "../linux/host.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const folder = ownFolder();
const file = numberedFile(folder, "numbers", 512);

function script(name: string, text: string): string {
  const path = join(folder, `${name}.mjs`);
  writeFileSync(path, text);
  return path;
}

const nth = script(
  "nth",
  "export default (memory, page) => new Uint32Array(memory.buffer)[Number(page) * 1024];",
);

function map(...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [MAIN, "map", ...args], { encoding: "utf8", timeout: 60_000 });
}

test("a script gets the memory and its arguments, and its result is printed", {
  skip: skipUnlessLinux,
}, () => {
  const { status, stdout, stderr } = map(file, "--script", nth, "77");
  assert.equal(status, 0, stderr);
  assert.equal(stdout.trim(), String(numberOf(77)));
  assert.match(
    stderr,
    /numbers: 2 MiB by mmap \(a plain local file.+\)\nopened in .+, ran .+, .+ in memory\n/,
  );
  assert.equal(map(file, "--quiet", "--script", nth, "77").stderr, "");
});

test("an image with a budget: how it went, as JSON", { skip }, () => {
  const store = join(folder, "images");
  const create = spawnSync(process.execPath, [MAIN, "image", "create", join(store, "numbers"), file], {
    encoding: "utf8",
  });
  assert.equal(create.status, 0, create.stderr);
  const { status, stdout, stderr } = map(
    join(store, "numbers"),
    "--budget",
    "4MiB",
    "--script",
    nth,
    "300",
    "--json",
  );
  assert.equal(status, 0, stderr);
  const report = JSON.parse(stdout);
  assert.deepEqual(
    [report.how, report.mode, report.byteLength, report.result],
    ["userfaultfd", "read", 512 * PAGE, numberOf(300)],
  );
  assert.ok(report.statistics.faults >= 1 && report.resident.pages < 64);
});

test("--record: what the script touches becomes a working set of the image", { skip }, () => {
  const image = join(folder, "images", "recorded");
  const create = spawnSync(process.execPath, [MAIN, "image", "create", image, file], { encoding: "utf8" });
  assert.equal(create.status, 0, create.stderr);
  for (const round of [1, 2]) {
    const recorded = map(image, "--record", "start", "--script", nth, "300", "--json");
    assert.equal(recorded.status, 0, recorded.stderr);
    const { workingSet } = JSON.parse(recorded.stdout);
    assert.deepEqual([workingSet.name, workingSet.pages], ["start", 1], `round ${round}`);
  }
  const inspect = spawnSync(process.execPath, [MAIN, "image", "inspect", image], { encoding: "utf8" });
  assert.match(inspect.stdout, /working set +start: 1 page,/);
  const raw = map(file, "--record", "start", "--script", nth, "1");
  assert.equal(raw.status, 4);
  assert.match(raw.stderr, /ERR_SOURCE_MISSING/);
});

test("write-back: what an asynchronous script writes is in the file afterwards; nothing is when it fails", {
  skip,
}, () => {
  const own = numberedFile(folder, "own", 16);
  const write = script(
    "write",
    `export default async (memory, text, fails) => {
      await memory.prefetch(0, 4096);
      Buffer.from(memory.buffer).write(text, 100);
      if (fails) throw new Error("changed my mind");
    };`,
  );
  const failed = map(own, "--mode", "write-back", "--script", write, "again", "fails");
  assert.equal(failed.status, 1);
  assert.match(failed.stderr, /changed my mind\n +at .*write\.mjs/);
  assert.equal(readFileSync(own)[100], 0);
  assert.equal(map(own, "--mode", "write-back", "--script", write, "hello").status, 0);
  assert.equal(readFileSync(own).toString("latin1", 100, 105), "hello");
});

test("usage: exit code 2 and a hint", { skip: skipUnlessLinux }, () => {
  const none = script("none", "export const x = 1;");
  for (const args of [
    [file],
    [file, "--script", none],
    [file, "--script", join(folder, "nowhere.mjs")],
    [file, "--script", nth, "--budget", "lots"],
    [file, "--script", nth, "--mode", "append"],
  ]) {
    const { status, stderr } = map(...args);
    assert.equal(status, 2, stderr);
  }
  const missing = map(join(folder, "nowhere"), "--script", nth);
  assert.equal(missing.status, 4);
  assert.match(missing.stderr, /hint: .+\ncode: ERR_SOURCE_MISSING/);
});

test("--help has examples", () => {
  const { status, stdout } = map("--help");
  assert.equal(status, 0);
  assert.match(stdout, /Examples:\n {2}\$ cat sum\.mjs/);
});

test("SIGINT ends it with 130, and nothing is written back", { skip }, async () => {
  const own = numberedFile(folder, "interrupted", 16);
  const wait = script(
    "wait",
    `export default async (memory) => {
      new Uint8Array(memory.buffer)[8] = 1;
      console.log("written");
      await new Promise((resolve) => setTimeout(resolve, 600_000));
    };`,
  );
  const child = spawn(process.execPath, [MAIN, "map", own, "--mode", "write-back", "--script", wait], {
    timeout: 60_000,
  });
  const closed = once(child, "close");
  await once(child.stdout, "data");
  child.kill("SIGINT");
  assert.deepEqual(await closed, [130, null]);
  assert.equal(readFileSync(own)[8], 0);
});
