// Shell completion: made from the commands, and understood by the shells that are here.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

function script(shell: string): string {
  const { stdout, status, stderr } = spawnSync(process.execPath, [main, "completion", shell], {
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  return stdout;
}

const isHere = (shell: string) => spawnSync(shell, ["--version"]).error === undefined;

function completeInBash(...words: string[]): string[] {
  const quoted = words.map((word) => `'${word}'`).join(" ");
  const program = `${script("bash")}\nCOMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _minorfault; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr, status } = spawnSync("bash", ["-c", program], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return stdout.split("\n").filter((word) => word !== "");
}

test("bash completes commands, verbs and options", (t) => {
  if (!isHere("bash")) return t.skip("bash is not here");
  assert.deepEqual(completeInBash("minorfault", "ima"), ["image"]);
  assert.deepEqual(completeInBash("minorfault", "image", "pu"), ["push", "pull"].sort().reverse());
  assert.deepEqual(completeInBash("minorfault", "image", "create", "x", "--par"), ["--parent"]);
  assert.deepEqual(completeInBash("minorfault", "completion", "z"), ["zsh"]);
  assert.deepEqual(completeInBash("minorfault", "image", "create", "nothing-like-it"), []);
});

for (const [shell, check] of [
  ["zsh", ["-n"]],
  ["fish", ["--no-execute"]],
] as const) {
  test(`${shell} understands its script`, (t) => {
    const text = script(shell);
    assert.match(text, /working-set/);
    assert.match(text, /parent/);
    if (!isHere(shell)) return t.skip(`${shell} is not here; only the text was looked at`);
    const folder = mkdtempSync(join(tmpdir(), "minorfault-completion-"));
    t.after(() => rmSync(folder, { recursive: true }));
    const path = join(folder, "script");
    writeFileSync(path, text);
    const { status, stderr } = spawnSync(shell, [...check, path], { encoding: "utf8" });
    assert.equal(status, 0, stderr);
  });
}

test("another shell is a usage error", () => {
  assert.equal(spawnSync(process.execPath, [main, "completion", "tcsh"]).status, 2);
});
