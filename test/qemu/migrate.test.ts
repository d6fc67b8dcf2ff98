// A running machine moves into another QEMU, and stays where it is if that is refused.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { ownFolder, skipUnlessQemu, theGuest } from "./harness/here.ts";
import { QemuMachine } from "./harness/machine.ts";
import type { MachineSpec } from "./harness/machine-spec.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const skip = skipUnlessQemu();

async function migrate(...line: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, "qemu", "migrate", ...line], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const [code] = (await once(child, "close")) as [number];
  return { code, stdout, stderr };
}

test("a machine moves while it runs; one that is refused goes on where it was", { skip }, async () => {
  const folder = ownFolder();
  const url = join(folder, "images", "moving");
  const spec: MachineSpec = { type: "pc-q35-7.2", memoryMiB: 128, fillMiB: 32, network: true };
  const guest = theGuest();
  const here = await QemuMachine.start({ folder, name: "here", spec, guest });
  const start = (name: string, other: MachineSpec) =>
    QemuMachine.start({ folder, name, spec: other, guest, incoming: "post-copy" });
  try {
    await here.console.ready();
    const small = await start("small", { ...spec, memoryMiB: 64 });
    try {
      const line = [
        "--qmp",
        here.qmpPath,
        "--incoming",
        `unix:${small.incomingPath}`,
        "--to-qmp",
        small.qmpPath,
      ];
      const { code, stderr } = await migrate(url, ...line);
      assert.equal(code, 2, stderr);
      assert.match(stderr, /block pc\.ram has 134217728 bytes, that of this QEMU 67108864/);
      assert.equal((await here.console.run("check")).text, "whole", "it goes on where it was");
    } finally {
      await small.stop();
    }

    const counted = Number((await here.console.run("count")).text);
    const there = await start("there", spec);
    try {
      const line = [
        "--qmp",
        here.qmpPath,
        "--incoming",
        `unix:${there.incomingPath}`,
        "--to-qmp",
        there.qmpPath,
      ];
      const { code, stdout, stderr } = await migrate(url, ...line, "--json");
      assert.equal(code, 0, `${stderr}${stdout}`);
      assert.equal(await here.ended(), 0, "the old one has ended");
      const report = JSON.parse(stdout) as { downtimeMs: number; capture: { writtenBytes: number } };
      assert.ok(report.downtimeMs > 0 && report.downtimeMs < 10_000);
      assert.equal((await there.console.run("check")).text, "whole");
      assert.ok(Number((await there.console.run("count")).text) >= counted);
      assert.equal((await there.console.run("net")).text, "reached");
    } finally {
      await there.stop();
    }
  } finally {
    await here.stop();
  }
});
