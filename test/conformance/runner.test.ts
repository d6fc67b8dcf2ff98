// `npm run conformance` as a program: files from anywhere, exit codes, JSON, and the pool of huge pages put back.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";

const RUNNER = fileURLToPath(new URL("../../src/testing/conformance/main.js", import.meta.url));
const POOL = "/proc/sys/vm/nr_hugepages";
const DEADLINE_MS = 60_000;

/** A file of cases in a folder of its own, which is removed after the test. */
function caseFile(t: TestContext, text: string): string {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-cases-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "my-cases.txt");
  writeFileSync(file, text);
  return file;
}

function run(...args: string[]) {
  return spawnSync(process.execPath, [RUNNER, ...args], { encoding: "utf8", timeout: DEADLINE_MS });
}

test("a file from outside the repository runs like the built-in cases", (t) => {
  const file = caseFile(t, "# mine\n\nX01 | std | copy 0; copy 0 -> OK/4096 EEXIST/-17\n");
  const { status, stdout } = run("--cases", file, "--on", "software");
  assert.match(stdout, /^ok {3}X01 {2}software OK\/4096 EEXIST\/-17\nsoftware: 1 ok, 0 failed, 0 skipped/);
  assert.equal(status, 0);
});

test("a case that fails shows both sides, and the exit code is 1", (t) => {
  const file = caseFile(t, "X01 | std | copy 0 -> OK/8192\nX02 | std | copy 0 -> OK/4096\n");
  const { status, stdout } = run("--cases", file, "--on", "software");
  assert.match(stdout, /^FAIL X01 .*my-cases\.txt:1: X01 \| std \| copy 0 -> OK\/8192$/m);
  assert.match(stdout, /expected {2}OK\/8192\n\s+got {7}OK\/4096\n\s+\^/);
  assert.match(stdout, /software: 1 ok, 1 failed, 0 skipped/);
  assert.equal(status, 1);
});

test("a silent step that fails makes the case fail, and says which it was", (t) => {
  const file = caseFile(t, "X01 | std; copy 0 len=1 | copy 0 -> OK/4096\n");
  const { status, stdout } = run("--cases", file, "--on", "software");
  assert.match(stdout, /problem {3}copy 0 len=1: The silent step copy 0 len=1 says EINVAL\/~/);
  assert.equal(status, 1);
});

test("a case that cannot be parsed is an error with file, line and column, and the exit code is 2", (t) => {
  const file = caseFile(t, "X01 | std | copy 0 -> OK/4096\nX02 | std | cpoy 0 -> OK/4096\n");
  const { status, stderr, stdout } = run("--cases", file);
  assert.equal(stdout, "");
  assert.match(stderr, /my-cases\.txt:2:13: expected a verb/);
  assert.match(stderr, /ERR_BAD_CASE/);
  assert.equal(status, 2);
});

test("--json prints one object with counts and results", () => {
  const { status, stdout } = run("--json", "--only", "C09,E0*", "--on", "software");
  const { profile, systems } = JSON.parse(stdout);
  assert.equal(profile, "linux-6.18");
  assert.deepEqual([systems[0].system, systems[0].ok, systems[0].failed], ["software", 10, 0]);
  assert.equal(systems[0].results[0].id, "C09");
  assert.equal(status, 0);
});

test("--list prints the cases and runs none; an id that matches none is an error", () => {
  assert.match(run("--list", "--only", "C01").stdout, /^C01 seed \| std \| read 1; msg; restzero -> blocked/);
  const none = run("--only", "Z99");
  assert.equal(none.status, 2);
  assert.match(none.stderr, /No case is called Z99/);
  assert.match(run("--help").stdout, /--profile <release>/);
  assert.equal(run("--help").status, 0);
});

test("nothing that ran is no success: an empty file, an id that matches none beside one that does", (t) => {
  const empty = run("--cases", caseFile(t, "# nothing yet\n"), "--on", "software");
  assert.deepEqual([empty.status, empty.stdout], [2, ""]);
  assert.match(empty.stderr, /There is no case in .*my-cases\.txt/);
  const half = run("--only", "C09,Z99", "--on", "software");
  assert.deepEqual([half.status, half.stdout], [2, ""]);
  assert.match(half.stderr, /No case is called Z99/);
});

test("bad usage is exit code 2", () => {
  for (const args of [
    ["--frob"],
    ["--on", "mars"],
    ["--only"],
    ["--only", ","],
    ["--profile", "x"],
    ["C09"],
  ]) {
    const { status, stdout } = run(...args);
    assert.deepEqual([args, status, stdout], [args, 2, ""]);
  }
});

test("a reader that has seen enough is no error", async () => {
  const child = spawn(process.execPath, [RUNNER, "--on", "software"], {
    stdio: ["ignore", "pipe", "pipe"],
    timeout: DEADLINE_MS,
  });
  const exit = once(child, "exit");
  let complaints = "";
  child.stderr.on("data", (bytes) => {
    complaints += String(bytes);
  });
  await once(child.stdout, "data");
  child.stdout.destroy();
  assert.deepEqual(await exit, [0, null]);
  assert.equal(complaints, "");
});

/** The size of the pool, or undefined where it can't be changed. */
function pool(): string | undefined {
  try {
    const before = readFileSync(POOL, "utf8");
    writeFileSync(POOL, before.trim());
    return before;
  } catch {
    return undefined;
  }
}

test("the pool of huge pages is put back when the suite ends, and when it is interrupted", async (t) => {
  const before = pool();
  if (before === undefined || run("--only", "A01", "--on", "kernel").status !== 0) {
    t.skip("The pool cannot be changed, or there is no kernel to run on");
    return;
  }
  assert.equal(run("--only", "F10", "--on", "kernel").status, 0);
  assert.equal(readFileSync(POOL, "utf8"), before);

  const line = (index: number) => `X${index} | a = hugetlb 1; std | zeropage 0 -> EINVAL/-22`;
  const many = caseFile(t, Array.from({ length: 5000 }, (_, index) => line(index)).join("\n"));
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGHUP", 129],
  ] as const) {
    const child = spawn(process.execPath, [RUNNER, "--on", "kernel", "--cases", many], {
      stdio: ["ignore", "pipe", "inherit"],
      timeout: DEADLINE_MS,
    });
    const exit = once(child, "exit");
    await once(child.stdout, "data");
    assert.notEqual(readFileSync(POOL, "utf8"), before);
    child.kill(signal);
    child.stdout.resume();
    assert.deepEqual(await exit, [code, null]);
    assert.equal(readFileSync(POOL, "utf8"), before);
  }
});
