// The command line's manners: help, exit codes, errors in one form.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

function minorfault(...args: string[]): { stdout: string; stderr: string; status: number | null } {
  return spawnSync(process.execPath, [main, ...args], { encoding: "utf8" });
}

test("minorfault --help lists every command on stdout and exits with 0", () => {
  const { stdout, status } = minorfault("--help");
  assert.equal(status, 0);
  for (const command of ["demo", "doctor"]) assert.match(stdout, new RegExp(`^  ${command}`, "m"));
});

test("an unknown command or option is a usage error: exit 2, and stdout stays empty", () => {
  for (const args of [["nonsense"], ["doctor", "--nonsense"]]) {
    const { stdout, stderr, status } = minorfault(...args);
    assert.equal(status, 2, args.join(" "));
    assert.equal(stdout, "");
    assert.match(stderr, /nonsense/);
  }
  assert.match(minorfault("nonsense").stderr, /\(minorfault --help lists the commands\)/);
  assert.match(minorfault("image", "create", "--nonsense").stderr, /\(minorfault image create --help says/);
});

const full = existsSync("/dev/full") ? false : "this system has no /dev/full";
test("output that cannot be written is an error in one line", { skip: full }, () => {
  const out = openSync("/dev/full", "w");
  const { stderr, status } = spawnSync(process.execPath, [main, "doctor", "--json"], {
    encoding: "utf8",
    stdio: ["ignore", out, "pipe"],
  });
  closeSync(out);
  assert.match(stderr, /^error: the result cannot be written: .*ENOSPC.*\n$/);
  assert.equal(status, 1);
});

test("minorfault --version prints the version of the package", () => {
  assert.match(minorfault("--version").stdout, /^\d+\.\d+\.\d+\n$/);
});
