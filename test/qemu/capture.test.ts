// `minorfault qemu capture` of real machines: small ones that only run their firmware, and start in no time.

import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { readMachine } from "../../src/guest/qemu/index.ts";
import { openImage } from "../../src/image/index.ts";
import { openStore } from "../../src/source/index.ts";
import { QEMU, QemuMachine } from "./harness/machine.ts";
import type { MachineSpec } from "./harness/machine-spec.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const isThere = spawnSync(QEMU, ["--version"]).status === 0;
const skip = isThere ? false : `${QEMU} is not installed`;

const folder = mkdtempSync(join(tmpdir(), "minorfault-qemu-capture-"));
after(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
async function start(spec: Partial<MachineSpec> = {}, ...options: string[]): Promise<QemuMachine> {
  return QemuMachine.start({
    folder,
    name: `vm${count++}`,
    spec: { type: "pc-i440fx-7.2", memoryMiB: 32, fillMiB: 0, ...spec },
    guest: undefined,
    options,
  });
}

interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(child: ChildProcess): Promise<Ran> {
  const texts = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      texts[name] += text;
    });
  }
  const [code] = (await once(child, "close")) as [number | null];
  return { code, ...texts };
}

function minorfault(...args: readonly string[]): Promise<Ran> {
  return run(
    spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"], timeout: 180_000 }),
  );
}

async function captured(...args: readonly string[]): Promise<Record<string, never> & CaptureJson> {
  const { code, stdout, stderr } = await minorfault("qemu", "capture", "--json", ...args);
  assert.equal(code, 0, stderr + stdout);
  return JSON.parse(stdout) as Record<string, never> & CaptureJson;
}

interface CaptureJson {
  readonly chunks: { readonly stored: number; readonly known: number; readonly zero: number };
  readonly writtenBytes: number;
  readonly byteLength: number;
  readonly streamBytes: number;
}

async function status(machine: QemuMachine): Promise<string> {
  return (await machine.monitor.command<{ status: string }>("query-status")).status;
}

/** Settings that a capture might have left behind. */
async function settings(machine: QemuMachine): Promise<unknown> {
  const capabilities = await machine.monitor.command<{ capability: string; state: boolean }[]>(
    "query-migrate-capabilities",
  );
  const parameters = await machine.monitor.command<{ "max-bandwidth": number }>("query-migrate-parameters");
  return [
    capabilities.filter(({ state }) => state).map(({ capability }) => capability),
    parameters["max-bandwidth"],
  ];
}

for (const [mode, option] of [
  ["running", []],
  ["stopped", ["--stop"]],
  ["background-snapshot", ["--background-snapshot"]],
] as const) {
  test(`a machine is captured (${mode}), goes on running, and a second capture stores next to nothing`, {
    skip,
  }, async () => {
    const machine = await start(mode === "stopped" ? { type: "microvm" } : {});
    try {
      const before = await settings(machine);
      const store = join(folder, `store-${mode}`);
      await captured("--qmp", machine.qmpPath, join(store, "first"), ...option);
      assert.equal(await status(machine), "running");
      assert.deepEqual(await settings(machine), before, "QEMU's settings are what they were");
      const second = await captured("--qmp", machine.qmpPath, join(store, "second"), ...option);
      assert.ok(second.chunks.stored * 65536 < 0.02 * second.byteLength, JSON.stringify(second.chunks));
      const opened = await openImage(join(store, "second"));
      const { machine: saved, devices } = await readMachine(opened);
      assert.equal(saved.saved, mode);
      assert.equal(saved.machine, mode === "stopped" ? "microvm" : "pc-i440fx-7.2");
      assert.match(saved.qemu ?? "", /^\d+\.\d+\.\d+/);
      assert.ok(saved.devices.some(({ name }) => name === "cpu") && devices.byteLength > 1000);
      await opened.close();
    } finally {
      await machine.stop();
    }
  });
}

test("a machine that stood goes on standing; one may be left stopped, or ended", { skip }, async () => {
  const machine = await start();
  try {
    const image = (name: string) => join(folder, "after", name);
    await captured("--qmp", machine.qmpPath, image("a"), "--leave-stopped");
    assert.equal(await status(machine), "postmigrate");
    const { code, stderr } = await minorfault("qemu", "capture", "--qmp", machine.qmpPath, image("b"));
    assert.equal(code, 1);
    assert.match(stderr, /cont/, "it says what to do");
    await machine.monitor.command("cont");
    await machine.monitor.command("stop");
    await captured("--qmp", machine.qmpPath, image("b"), "--stop");
    assert.equal(await status(machine), "postmigrate");
    await machine.monitor.command("cont");
    await captured("--qmp", machine.qmpPath, image("c"), "--quit");
    assert.equal(await machine.ended(), 0);
  } finally {
    await machine.stop();
  }
});

test("what cannot be captured is refused before the machine is told anything", { skip }, async () => {
  const machine = await start();
  try {
    const image = join(folder, "refused", "vm");
    const refused = async (words: string, ...args: readonly string[]) => {
      const { code, stderr } = await minorfault("qemu", "capture", "--qmp", machine.qmpPath, image, ...args);
      assert.notEqual(code, 0);
      assert.ok(stderr.includes(words), stderr);
      const { status: migration } = await machine.monitor.command<{ status?: string }>("query-migrate");
      assert.equal(migration, undefined, "no migration was begun");
    };
    for (const capability of ["multifd", "xbzrle", "return-path"]) {
      const set = (state: boolean) =>
        machine.monitor.command("migrate-set-capabilities", { capabilities: [{ capability, state }] });
      await set(true);
      await refused(capability);
      await set(false);
    }
    await refused("nowhere", "--qmp", join(folder, "nowhere"));
    await refused("cannot be used with", "--stop", "--background-snapshot");
    await refused("socket failed with ENOENT", "--socket-folder", join(folder, "nowhere"));
    await captured("--qmp", machine.qmpPath, image);
    const { code, stderr } = await minorfault("qemu", "capture", "--qmp", machine.qmpPath, image);
    assert.equal(code, 1);
    assert.match(stderr, /ERR_STORE_EXISTS/);
    assert.equal(await status(machine), "running");
    await captured("--qmp", machine.qmpPath, image, "--replace");
  } finally {
    await machine.stop();
  }
});

test("Ctrl-C cancels the migration: the guest runs on, and the store is as it was", { skip }, async () => {
  const machine = await start({ memoryMiB: 512 });
  try {
    const store = join(folder, "cancelled");
    await captured("--qmp", machine.qmpPath, join(store, "vm"));
    const before = readdirSync(join(store, "packs")).sort();
    const settingsBefore = await settings(machine);
    await machine.monitor.migration("active");
    for (const option of [[], ["--stop"], ["--background-snapshot"]]) {
      // So slow that it cannot have ended: 16 KiB a second.
      const args = ["qemu", "capture", "--qmp", machine.qmpPath, join(store, "vm"), "--replace", ...option];
      const child = spawn(process.execPath, [MAIN, ...args, "--bandwidth", "16KiB"], {
        stdio: ["ignore", "pipe", "pipe"],
      });
      const ended = run(child);
      await machine.monitor.migration("active");
      child.kill("SIGINT");
      const { code, stderr } = await ended;
      assert.equal(code, 130, stderr);
      assert.match(stderr, /ended by SIGINT/);
      assert.equal(await status(machine), "running");
      assert.deepEqual(readdirSync(join(store, "packs")).sort(), before);
      assert.deepEqual(await settings(machine), settingsBefore);
    }
    // QEMU is none the worse for it.
    for (const option of [[], ["--background-snapshot"]]) {
      await captured("--qmp", machine.qmpPath, join(store, "vm"), "--replace", ...option);
    }
  } finally {
    await machine.stop();
  }
});

test("a capture that cannot go on cancels the migration, and the guest runs on", { skip }, async () => {
  const machine = await start();
  try {
    const image = join(folder, "no-room", "vm");
    const nowhere = join(folder, "nowhere");
    const { code, stderr } = await minorfault(
      "qemu",
      "capture",
      "--qmp",
      machine.qmpPath,
      image,
      "--temp",
      nowhere,
    );
    assert.equal(code, 4);
    assert.match(stderr, /the temporary file for RAM failed with ENOENT/);
    assert.equal(await status(machine), "running");
    await captured("--qmp", machine.qmpPath, image);
  } finally {
    await machine.stop();
  }
});

test("a QEMU that dies meanwhile is told as such, and leaves nothing in the store", { skip }, async () => {
  const machine = await start({ memoryMiB: 256 });
  const store = join(folder, "died");
  try {
    const child = spawn(
      process.execPath,
      [MAIN, "qemu", "capture", "--qmp", machine.qmpPath, join(store, "vm"), "--bandwidth", "16KiB"],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    const ended = run(child);
    await machine.monitor.migration("active");
    machine.process.kill("SIGKILL");
    const { code, stderr } = await ended;
    assert.notEqual(code, 0);
    assert.match(stderr, /error: .*(ends at offset|closed)/);
    const opened = await openStore(store);
    const keys: string[] = [];
    for await (const { key } of opened.list("")) keys.push(key);
    await opened.close();
    assert.deepEqual(keys, []);
  } finally {
    await machine.stop();
  }
});

test("a stream that QEMU saves into a file is imported, and is what a capture would have been", {
  skip,
}, async () => {
  // Two that never run an instruction: their memory is the same.
  const [one, two] = await Promise.all([start({}, "-S"), start({}, "-S")]);
  try {
    const file = join(folder, "saved.qemu");
    await one.monitor.command("migrate", { uri: `exec:cat > ${file}` });
    await one.monitor.migration("completed");
    const { code, stdout, stderr } = await minorfault(
      ...["image", "import", join(folder, "imported", "vm"), file, "--from", "qemu-stream", "--json"],
    );
    assert.equal(code, 0, stderr);
    assert.ok((JSON.parse(stdout) as CaptureJson).chunks.stored > 0);
    await captured("--qmp", two.qmpPath, join(folder, "imported", "captured"));
    const [imported, capture] = await Promise.all(
      ["vm", "captured"].map((name) => openImage(join(folder, "imported", name))),
    );
    assert.deepEqual(imported!.regions, capture!.regions);
    for (const { name, offset, byteLength } of imported!.regions) {
      const [a, b] = [new Uint8Array(byteLength), new Uint8Array(byteLength)];
      await imported!.read(offset, a);
      await capture!.read(offset, b);
      assert.ok(Buffer.compare(a, b) === 0, name);
    }
    await Promise.all([imported!.close(), capture!.close()]);
  } finally {
    await Promise.all([one.stop(), two.stop()]);
  }
});
