// The guide for QEMU users is run line by line, as it stands there, in one shell.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { ownFolder, skipUnlessQemu, theGuest } from "../qemu/harness/here.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const DEADLINE_MS = 150_000;
const skip = skipUnlessQemu();

test("every command of the guide does what it says", { skip }, async () => {
  const guide = readFileSync(join(root, "docs/qemu.md"), "utf8");
  const blocks = [...guide.matchAll(/^```sh run\n(.*?)^```$/gms)].map(([, block = ""]) => block);
  assert.ok(blocks.length >= 6);
  const folder = ownFolder();
  const { kernel, initrd } = theGuest();
  copyFileSync(kernel, join(folder, "kernel"));
  copyFileSync(initrd, join(folder, "initrd"));
  mkdirSync(join(folder, "bin"));
  const program = join(folder, "bin", "minorfault");
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`);
  chmodSync(program, 0o755);
  // Whatever a block has started ends with the shell's process group.
  const script = `set -e\n${blocks.join("\n")}\necho "the guide ends"\n`;
  const shell = spawn("bash", ["-c", script], {
    cwd: folder,
    detached: true,
    env: { ...process.env, PATH: `${join(folder, "bin")}:${process.env.PATH}`, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  for (const stream of [shell.stdout, shell.stderr]) {
    stream.setEncoding("utf8").on("data", (more: string) => {
      text += more;
    });
  }
  const end = (): boolean => process.kill(-shell.pid!, "SIGKILL");
  const timer = setTimeout(end, DEADLINE_MS);
  try {
    await once(shell, "exit");
  } finally {
    clearTimeout(timer);
    try {
      end();
    } catch {
      // Nothing of it is left.
    }
    endDetached(folder);
  }
  assert.match(text, /the guide ends/, text);
  assert.match(text, /captured in/);
  const [, before, after] = /the guest asked for (\d+) pages, then for (\d+)/.exec(text) ?? [];
  assert.ok(Number(after) < Number(before), text);
  assert.match(text, /killed\n/);
  assert.match(text, /served again after .*\n.*\n.*\n {2}resumed {2}1 times/);
  assert.match(text, /nobody ran it for \d+ ms/);
});

/** Machines with sessions of their own, if the guide has not come to their end. */
function endDetached(folder: string): void {
  for (const name of ["first", "second", "moved"]) {
    try {
      const { pid } = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8")) as { pid: number };
      if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("id=minorfault")) process.kill(pid);
    } catch {
      // It has ended, or was never started.
    }
  }
}
