// One captured machine, restored in all the ways there are: recording, replaying, several at once, cut off and resumed,
// and refused.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { connectTo, QmpClient, reconnect, restoreMachine, WORKING_SET } from "../../src/guest/qemu/index.ts";
import { addWorkingSet, buildImage, type ChunkLocation, openImage } from "../../src/image/index.ts";
import { MemorySource, openStore } from "../../src/source/index.ts";
import { ownFolder, skipUnlessQemu, theGuest } from "./harness/here.ts";
import { QemuMachine, type StartOptions } from "./harness/machine.ts";
import type { MachineSpec } from "./harness/machine-spec.ts";
import { captureTo, restoreInto } from "./harness/round-trip.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const skip = skipUnlessQemu();
const folder = skip === false ? ownFolder() : "";
const store = join(folder, "images");
const url = join(store, "vm");
const spec: MachineSpec = { type: "pc-i440fx-7.2", memoryMiB: 128, fillMiB: 32, cpus: 2 };
let machines = 0;

before(async () => {
  if (skip !== false) return;
  const source = await QemuMachine.start({ folder, name: "source", spec, guest: theGuest() });
  try {
    await source.console.ready();
    await captureTo(url, source, "running");
  } finally {
    await source.stop();
  }
});

function destination(options: Partial<StartOptions> = {}): Promise<QemuMachine> {
  const name = `machine${machines++}`;
  return QemuMachine.start({ folder, name, spec, guest: theGuest(), incoming: "post-copy", ...options });
}

/** Whoever waits for an event of a machine is told if its restore fails first. */
async function runsUnless(machine: QemuMachine, restoring: Promise<unknown>): Promise<void> {
  await Promise.race([machine.runs(), restoring]);
}

async function assertWhole(machine: QemuMachine): Promise<void> {
  assert.equal((await machine.console.run("check")).text, "whole");
  assert.equal(machine.errors, "");
}

function cli(...line: string[]): ChildProcess {
  return spawn(process.execPath, [MAIN, "qemu", ...line], { stdio: ["ignore", "pipe", "pipe"] });
}

async function outcome(child: ChildProcess): Promise<{ code: number; stdout: string; stderr: string }> {
  let [stdout, stderr] = ["", ""];
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const [code] = (await once(child, "close")) as [number];
  return { code, stdout, stderr };
}

test("the first run records what the guest needs first, and the second sends that ahead", {
  skip,
}, async () => {
  const first = await destination();
  let touched: readonly number[];
  let asked: number;
  try {
    const report = await restoreInto(first, url);
    assert.ok(report.touched !== undefined && report.touched.length > 100);
    touched = report.touched;
    asked = report.counters.requests;
    await assertWhole(first);
  } finally {
    await first.stop();
  }
  const opened = await openStore(store);
  await addWorkingSet(opened, "vm", WORKING_SET, touched);
  await opened.close();

  const second = await destination();
  try {
    const report = await restoreInto(second, url);
    assert.equal(report.replayed?.name, WORKING_SET);
    assert.equal(report.touched, undefined);
    assert.ok(
      report.counters.requests < asked / 3,
      `${report.counters.requests} requests instead of ${asked}`,
    );
    await assertWhole(second);
  } finally {
    await second.stop();
  }
});

test("several machines from one image at once", { skip }, async () => {
  const all = await Promise.all([destination(), destination(), destination()]);
  try {
    await Promise.all(all.map((machine) => restoreInto(machine, url, { record: false })));
    await Promise.all(all.map(assertWhole));
  } finally {
    await Promise.all(all.map((machine) => machine.stop()));
  }
});

test("without the push the guest brings what it checks, and nothing else", { skip }, async () => {
  const machine = await destination();
  const controller = new AbortController();
  try {
    const options = {
      push: false,
      replay: false,
      record: false,
      neighbours: false,
      signal: controller.signal,
    } as const;
    const restoring = restoreInto(machine, url, options);
    restoring.catch(() => {});
    await runsUnless(machine, restoring);
    assert.equal((await machine.console.run("check")).text, "whole");
    controller.abort(new Error("enough"));
    await assert.rejects(restoring, /enough/);
    await machine.monitor.migration("postcopy-paused");
  } finally {
    await machine.stop();
  }
});

test("a connection that is cut in the middle is made again, and nothing is lost", { skip }, async () => {
  const machine = await destination();
  const qmp = await QmpClient.connect(machine.qmpPath);
  try {
    let cuts = 0;
    let socket: Socket | undefined;
    const remember = async (connecting: Promise<Socket>): Promise<Socket> => {
      socket = await connecting;
      return socket;
    };
    await using image = await openImage(url);
    const report = await restoreMachine({
      image,
      url,
      record: false,
      replay: false,
      connect: (signal) => remember(connectTo(`unix:${machine.incomingPath}`, signal)),
      reconnect: (signal) => remember(reconnect(qmp, signal)),
      onProgress: ({ pagesSent, pagesTotal }) => {
        if (pagesSent < ((cuts + 1) * pagesTotal) / 8 || cuts === 3) return;
        cuts++;
        socket?.destroy();
      },
      // Slow enough to be cut in the middle, several times.
      pushBytesPerSecond: 80 * 2 ** 20,
    });
    assert.ok(cuts > 0, "it was cut");
    assert.equal(report.counters.recoveries, cuts);
    assert.equal((await machine.console.run("check")).text, "whole");
  } finally {
    qmp.close();
    await machine.stop();
  }
});

test("a restore that is killed leaves a machine that waits, and `qemu resume` goes on", {
  skip,
}, async () => {
  const machine = await destination();
  try {
    const where = ["--incoming", `unix:${machine.incomingPath}`, "--qmp", machine.qmpPath];
    const killed = cli("restore", url, ...where, "--rate", "8MiB", "--no-record");
    await Promise.race([machine.runs(), outcome(killed).then(({ stderr }) => assert.fail(stderr))]);
    killed.kill("SIGKILL");
    await machine.monitor.migration("postcopy-paused");
    const opened = await openStore(store);
    await buildImage(opened, "other", {
      regions: [{ name: "ram", source: new MemorySource(new Uint8Array(4096)) }],
    });
    await opened.close();
    const other = await outcome(cli("resume", join(store, "other"), "--qmp", machine.qmpPath));
    assert.equal(other.code, 4, other.stderr);
    assert.match(other.stderr, /has memory of another image.*ERR_SOURCE_CHANGED/s);
    // The guest has half of its memory: it stands as soon as it needs the other half.
    const checked = machine.console.run("check");
    checked.catch(() => {});
    const { code, stdout, stderr } = await outcome(cli("resume", url, "--qmp", machine.qmpPath, "--json"));
    assert.equal(code, 0, `${stderr}${stdout}${machine.ending}`);
    assert.equal((await checked).text, "whole");
    const report = JSON.parse(stdout) as { recoveredMs: number; counters: { recoveries: number } };
    assert.equal(report.counters.recoveries, 1);
    assert.ok(report.recoveredMs > 0);
    await machine.monitor.migration("completed");
    assert.equal((await machine.console.run("check")).text, "whole");
  } finally {
    await machine.stop();
  }
});

test("another machine is found out before anything is sent, where there is a control socket", {
  skip,
}, async () => {
  const wrong: readonly [MachineSpec, RegExp][] = [
    [{ ...spec, memoryMiB: 256 }, /its block pc\.ram has 134217728 bytes, that of this QEMU 268435456/],
    [{ ...spec, type: "pc-q35-7.2" }, /saved as pc-i440fx-7\.2, this QEMU is pc-q35-7\.2/],
    [{ ...spec, network: true }, /has a block of RAM .*virtio-net-pci\.rom more/],
  ];
  for (const [other, message] of wrong) {
    const machine = await destination({ spec: other });
    try {
      const line = ["restore", url, "--incoming", `unix:${machine.incomingPath}`, "--qmp", machine.qmpPath];
      const { code, stderr } = await outcome(cli(...line));
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
      assert.match(stderr, /ERR_MACHINE_DIFFERS/);
      const { status } = await machine.monitor.command<{ status: string }>("query-status");
      assert.equal(status, "inmigrate", "it waits on");
    } finally {
      await machine.stop();
    }
  }
});

test("QEMU's own refusal is shown in its words", { skip }, async () => {
  const line = [
    "-nodefaults",
    "-display",
    "none",
    "-accel",
    "tcg",
    "-cpu",
    "max",
    "-smp",
    "3",
    "-serial",
    "null",
  ];
  const child = cli("restore", url, "--", "qemu-system-x86_64", ...line);
  const { code, stderr } = await outcome(child);
  assert.equal(code, 5, stderr);
  assert.match(stderr, /added to QEMU: -machine pc-i440fx-7\.2/);
  assert.match(stderr, /added to QEMU: -m 128M/);
  assert.match(stderr, /error: QEMU refused the machine: .*qemu-system-x86_64: /s);
});

test("a QEMU that nobody told to wait, and one that is not there", { skip }, async () => {
  const { code, stderr } = await outcome(cli("restore", url, "--incoming", `unix:${join(folder, "nobody")}`));
  assert.equal(code, 5);
  assert.match(stderr, /No QEMU waits at unix:.*nobody/);
  const missing = await outcome(cli("restore", url, "--", "qemu-system-none"));
  assert.equal(missing.code, 5);
  assert.match(missing.stderr, /qemu-system-none cannot be started: .*ENOENT/);
  assert.equal((await outcome(cli("restore", url))).code, 2);
});

/** A copy of the store in which a byte of each place is another one. */
function damagedCopy(
  name: string,
  places: readonly { readonly pack: string; readonly offset: number }[],
): string {
  const copy = join(folder, name);
  cpSync(store, copy, { recursive: true });
  for (const pack of new Set(places.map((place) => place.pack))) {
    const path = join(copy, "packs", pack);
    const bytes = readFileSync(path);
    for (const { offset } of places.filter((place) => place.pack === pack)) bytes[offset]! ^= 1;
    writeFileSync(path, bytes);
  }
  return join(copy, "vm");
}

/** Where chunks of RAM lie, every `step`-th of them. */
async function chunksOfRam(from: number, until: number, step = 1): Promise<ChunkLocation[]> {
  await using image = await openImage(url);
  const ram = image.regions.find(({ name }) => name === "pc.ram")!;
  const places: ChunkLocation[] = [];
  for (let at = from; at < until; at += step) {
    const place = await image.locate((ram.offset + at) / image.chunkBytes);
    if (place !== undefined) places.push(place);
  }
  return places;
}

/** Whoever mends an image puts the right packs in the place of the wrong ones. */
function mend(damagedUrl: string): void {
  const packs = join(store, "packs");
  for (const name of readdirSync(packs)) {
    const path = join(damagedUrl, "..", "packs", name);
    cpSync(join(packs, name), `${path}.right`);
    renameSync(`${path}.right`, path);
  }
}

const MIB = 2 ** 20;

test("bytes that are not the image's are not sent: the machine waits for right ones", { skip }, async () => {
  const damagedUrl = damagedCopy("damaged", await chunksOfRam(32 * MIB, 96 * MIB, MIB / 4));
  const machine = await destination();
  try {
    const where = ["--incoming", `unix:${machine.incomingPath}`, "--qmp", machine.qmpPath];
    const restoring = cli("restore", damagedUrl, ...where, "--no-record", "--patience", "200ms");
    const damaged = await outcome(restoring);
    assert.match(damaged.stderr, /^missing: 64 KiB of pc\.ram at 0x[0-9a-f]+: chunk \d+ of .* instead of/m);
    assert.match(damaged.stderr, /The machine waits for the rest of its memory: .* instead of [0-9a-f]{64}/);
    assert.equal(damaged.code, 5);
    await machine.monitor.migration("postcopy-paused");
    assert.equal(machine.errors.match(/Migration paused/g)?.length, 1, "it was cut once");
    const { code, stderr } = await outcome(cli("resume", url, "--qmp", machine.qmpPath));
    assert.equal(code, 0, `${stderr}${machine.ending}`);
    assert.equal((await machine.console.run("check")).text, "whole");
  } finally {
    await machine.stop();
  }
});

test("an image that is mended meanwhile is gone on with, over the same connection", { skip }, async () => {
  const damagedUrl = damagedCopy("mended", await chunksOfRam(32 * MIB, 96 * MIB, MIB / 2));
  const machine = await destination();
  try {
    const where = ["--incoming", `unix:${machine.incomingPath}`, "--qmp", machine.qmpPath];
    const restoring = cli("restore", damagedUrl, ...where, "--no-record", "--json");
    const told = new Promise<Record<string, unknown>>((resolve) => {
      restoring.stderr?.once("data", (text: Buffer) => resolve(JSON.parse(text.toString().split("\n")[0]!)));
    });
    const ended = outcome(restoring);
    const event = await Promise.race([told, ended.then(({ stderr }) => assert.fail(stderr))]);
    assert.deepEqual([event.event, event.block, event.code], ["missing", "pc.ram", "ERR_WRONG_BYTES"]);
    mend(damagedUrl);
    const { code, stdout, stderr } = await ended;
    assert.equal(code, 0, `${stderr}${machine.ending}`);
    assert.match(stderr, /"event":"come"/);
    const report = JSON.parse(stdout) as {
      counters: { recoveries: number; pagesThere: number; pagesTotal: number };
    };
    assert.deepEqual(
      [report.counters.recoveries, report.counters.pagesThere],
      [0, report.counters.pagesTotal],
    );
    await assertWhole(machine);
  } finally {
    await machine.stop();
  }
});

test("a machine whose devices are damaged is not begun", { skip }, async () => {
  await using image = await openImage(url);
  const state = image.manifest.attachments.find(({ name }) => name === "device-state")!;
  const machine = await destination();
  try {
    const where = ["--incoming", `unix:${machine.incomingPath}`, "--qmp", machine.qmpPath];
    const { code, stderr } = await outcome(cli("restore", damagedCopy("devices", [state]), ...where));
    assert.equal(code, 4, stderr);
    assert.match(stderr, /error: attachment device-state of .*ERR_WRONG_BYTES/s);
    const { status } = await machine.monitor.command<{ status: string }>("query-status");
    assert.equal(status, "inmigrate", "it waits on, and the right image can be restored into it");
    await restoreInto(machine, url, { record: false, push: true });
    await assertWhole(machine);
  } finally {
    await machine.stop();
  }
});

test("a machine whose devices need a damaged page never runs, and its QEMU ends", { skip }, async () => {
  const damagedUrl = damagedCopy("beginning", await chunksOfRam(0, MIB, MIB / 16));
  const machine = await destination();
  try {
    const where = ["--incoming", `unix:${machine.incomingPath}`, "--qmp", machine.qmpPath];
    const restoring = cli("restore", damagedUrl, ...where, "--no-record", "--patience", "200ms");
    const { code, stderr } = await outcome(restoring);
    assert.equal(code, 4, stderr);
    assert.match(stderr, /^missing: 64 KiB of pc\.ram at 0x[0-9a-f]+: chunk \d+/m);
    assert.match(stderr, /error: chunk \d+ of .* instead of [0-9a-f]{64}/);
    assert.equal(await machine.ended(), 1, machine.ending);
    assert.ok(!machine.monitor.hasSeen("RESUME"), "it has never run");
  } finally {
    await machine.stop();
  }
});
