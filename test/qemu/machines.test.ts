// Real Linux machines of all kinds are captured, and restored lazily: their memory is whole, they count on, and their
// devices work. The guest itself checks every word of its memory.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { CaptureMode } from "../../src/guest/qemu/index.ts";
import { openImage } from "../../src/image/index.ts";
import { ownFolder, skipUnlessQemu, theGuest, withHugePages } from "./harness/here.ts";
import { QemuMachine } from "./harness/machine.ts";
import type { MachineSpec } from "./harness/machine-spec.ts";
import { captureTo, restoreInto } from "./harness/round-trip.ts";

const skip = skipUnlessQemu();
const folder = skip === false ? ownFolder() : "";

/** Boots, captures and restores a machine; answers what the guest said before and after. */
async function roundTrip(name: string, spec: MachineSpec, mode: CaptureMode): Promise<void> {
  const url = join(folder, "images", name);
  const guest = theGuest();
  const source = await QemuMachine.start({ folder, name: `${name}-a`, spec, guest });
  let counted: number;
  let disk: string;
  try {
    await source.console.ready();
    if (spec.disk !== undefined) await source.console.run("echo written | dd of=/dev/vda conv=notrunc; sync");
    counted = Number((await source.console.run("count")).text);
    disk = (await source.console.run("disk")).text;
    await captureTo(url, source, mode);
    assert.equal((await source.console.run("check")).text, "whole", "the source goes on");
  } finally {
    await source.stop();
  }
  const image = await openImage(url);
  assert.equal(image.manifest.notes["qemu.saved"], mode);
  await image.close();

  const restored = await QemuMachine.start({ folder, name: `${name}-b`, spec, guest, incoming: "post-copy" });
  try {
    const restoring = restoreInto(restored, url, { recordMs: 0 });
    // A machine that fails is told by the restore, not by a deadline.
    await Promise.race([restored.runs(), restoring]);
    const { text } = await restored.console.run("count");
    assert.ok(Number(text) >= counted, `it counted on from ${counted}: ${text}`);
    assert.equal((await restored.console.run("check")).text, "whole", "while its memory is still coming");
    const { counters } = await restoring;
    await restored.monitor.migration("completed");
    assert.equal(counters.pagesSent + counters.zerosSent, counters.pagesTotal);
    assert.equal((await restored.console.run("check")).text, "whole", "on its own");
    assert.ok(Number((await restored.console.run("count")).text) >= Number(text));
    assert.equal((await restored.console.run("nproc")).text, String(spec.cpus ?? 1));
    if (spec.network) assert.equal((await restored.console.run("net")).text, "reached");
    if (spec.disk !== undefined) {
      const md5 = createHash("md5").update(readFileSync(spec.disk)).digest("hex");
      assert.equal(disk.split(" ")[0], md5);
      assert.equal((await restored.console.run("disk")).text.split(" ")[0], md5);
    }
    assert.equal(restored.errors, "");
  } finally {
    await restored.stop();
  }
}

function diskFile(name: string): string {
  const path = join(folder, name);
  writeFileSync(path, Buffer.alloc(8 * 2 ** 20, "a disk of the tests, "));
  return path;
}

test("pc with two processors, a disk and a network, captured while it runs", { skip }, () =>
  roundTrip(
    "pc",
    { type: "pc-i440fx-7.2", memoryMiB: 160, fillMiB: 48, cpus: 2, disk: diskFile("pc.disk"), network: true },
    "running",
  ),
);

test("q35 with a network and a disk, captured while it stands", { skip }, () =>
  roundTrip(
    "q35",
    { type: "pc-q35-7.2", memoryMiB: 128, fillMiB: 32, disk: diskFile("q35.disk"), network: true },
    "stopped",
  ),
);

test("microvm with a disk and a network, captured as a background snapshot", { skip }, () =>
  roundTrip(
    "microvm",
    { type: "microvm", memoryMiB: 128, fillMiB: 32, disk: diskFile("microvm.disk"), network: true },
    "background-snapshot",
  ),
);

test("memory of huge pages comes and goes in huge pages", { skip }, async (context) => {
  const spec: MachineSpec = { type: "pc-i440fx-7.2", memoryMiB: 128, fillMiB: 32, hugePages: true };
  const had = await withHugePages(64, () => roundTrip("huge", spec, "running"));
  if (!had) context.skip("the kernel has no 64 huge pages to give");
});

test("firmware alone, under KVM", { skip }, async (context) => {
  const spec: MachineSpec = { type: "pc-i440fx-7.2", memoryMiB: 64, fillMiB: 0, firmwareOnly: true };
  const url = join(folder, "images", "kvm");
  let source: QemuMachine;
  try {
    source = await QemuMachine.start({ folder, name: "kvm-a", spec, guest: undefined });
  } catch (error) {
    context.skip(`no KVM for QEMU here: ${error instanceof Error ? error.message : error}`);
    return;
  }
  const dump = async (machine: QemuMachine, name: string): Promise<Buffer> => {
    const file = join(folder, name);
    await machine.monitor.command("pmemsave", { val: 0, size: spec.memoryMiB * 2 ** 20, filename: file });
    return readFileSync(file);
  };
  let before: Buffer;
  try {
    await source.monitor.command("stop");
    await captureTo(url, source, "stopped");
    before = await dump(source, "kvm-a.memory");
  } finally {
    await source.stop();
  }
  const options = ["-S"];
  const restored = await QemuMachine.start({
    folder,
    name: "kvm-b",
    spec,
    guest: undefined,
    incoming: "post-copy",
    options,
  });
  try {
    await restoreInto(restored, url);
    await restored.monitor.migration("completed");
    assert.ok(before.some((byte) => byte !== 0));
    assert.ok((await dump(restored, "kvm-b.memory")).equals(before), "all of its memory is as it was");
    await restored.monitor.command("cont");
    const status = await restored.monitor.command<{ status: string }>("query-status");
    assert.equal(status.status, "running");
  } finally {
    await restored.stop();
  }
});
