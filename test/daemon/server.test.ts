// The page server as a guest sees it: machines that hand over by Firecracker's protocol are served, whoever of the server's
// processes dies meanwhile, and every page's hash is right.

import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/abi/memory.ts";
import { createClient } from "../../src/client/index.ts";
import { controlPath } from "../../src/daemon/folder.ts";
import { startServer } from "../../src/daemon/start.ts";
import { KernelSystem } from "../../src/guest/process/index.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { hugePages } from "./huge-pages.ts";
import { flood, MALICES, MaliciousClient } from "./malicious.ts";
import { descriptorsOf, isAlive, Stand, tryKill } from "./stand.ts";
import { startVmm, type Vmm, type VmmOptions } from "./vmm.ts";

const skip = skipUnlessUserfaultfd;
const PAGES = 1024;

let stand: Stand;
let system: KernelSystem;
before(async () => {
  if (skip !== false) return;
  system = new KernelSystem();
  stand = await Stand.open({ pages: PAGES });
});
after(async () => {
  system?.close();
  await stand?.close();
});

function machine(options: Partial<VmmOptions> = {}): Vmm {
  const { socket, imagePath } = stand;
  return startVmm({ socket, image: imagePath, regions: PAGES * PAGE_SIZE, system, ...options });
}

/** All that it has and had is right, whatever was done to it. */
async function checkAll(vmm: Vmm): Promise<void> {
  assert.deepEqual((await vmm.touch({ shuffle: 5 })).wrong, []);
  assert.deepEqual(await vmm.verify(), []);
  vmm.close();
}

for (const version of ["1.1", "1.7", "1.12"] as const) {
  test(`a machine of Firecracker ${version} with two regions is restored`, { skip }, async () => {
    const half = { byteLength: (PAGES / 2) * PAGE_SIZE };
    await checkAll(machine({ version, regions: [half, half] }));
  });
}

test("2 MiB pages are served whole", { skip: hugePages(2) }, async () => {
  await checkAll(machine({ regions: [{ byteLength: 2 * HUGE_PAGE_SIZE, pageSize: HUGE_PAGE_SIZE }] }));
});

test("what the balloon takes is zeros from then on, also while it is being copied", { skip }, async () => {
  const vmm = machine();
  const walking = vmm.begin({ shuffle: 3 });
  for (let from = 0; from < PAGES; from += 100) await vmm.balloon(from, 24);
  assert.deepEqual((await walking.ended()).wrong, []);
  await stand.killPager();
  await checkAll(vmm);
  await stand.untilSpare();
});

test("the pager dies, the keeper dies, the spare dies, both die: the guest goes on", { skip }, async () => {
  const vmm = machine();
  const pages = (part: number) => ({ from: part * 200, count: 200, shuffle: part });
  const step = async (part: number, kill: () => Promise<void>): Promise<void> => {
    const walking = vmm.begin(pages(part));
    await kill();
    assert.deepEqual((await walking.ended()).wrong, []);
    await stand.untilSpare();
  };
  await step(0, () => stand.killPager());
  await step(1, async () => {
    const keepers = stand.count("keeper");
    tryKill(stand.keeperPid);
    await stand.until(() => stand.count("keeper") > keepers, "a new keeper");
  });
  await step(2, async () => {
    const { sparePid } = stand;
    tryKill(sparePid);
    await stand.until(() => stand.sparePid !== sparePid, "a new spare");
  });
  await step(3, async () => {
    const served = stand.count("serving");
    for (const pid of [stand.keeperPid, stand.server.pid]) tryKill(pid);
    await stand.until(() => stand.count("serving") > served, "a takeover");
  });
  await checkAll(vmm);
});

test("whoever founds a keeper dies over it, and so does who comes next: the keeper goes on", {
  skip,
}, async (t) => {
  const other = await Stand.open({ pages: PAGES, canDie: true });
  t.after(() => other.close());
  const { socket, imagePath } = other;
  for (const step of ["keeper-spawned", "keeper-told"] as const) {
    const vmm = startVmm({ socket, image: imagePath, regions: PAGES * PAGE_SIZE, system });
    assert.deepEqual((await vmm.touch({ count: 10 })).wrong, []);
    await other.untilSpare();
    const served = other.count("serving");
    other.dieAt(step);
    tryKill(other.keeperPid);
    await other.until(() => other.count("serving") > served, `a takeover after ${step}`);
    tryKill(other.server.pid);
    await other.until(() => other.count("serving") > served + 1, `the one whom the keeper of ${step} starts`);
    await checkAll(vmm);
  }
  await other.untilSpare();
  await other.until(() => other.processes.length === 4, "keeper, pager, spare and reserve, and nobody else");
});

test("a keeper dies when it has told only the spare of a machine: that one is served all the same", {
  skip,
}, async (t) => {
  const other = await Stand.open({ pages: PAGES, canDie: true });
  t.after(() => other.close());
  const keepers = other.count("keeper");
  other.dieAt("told");
  // Nobody else comes, and nobody takes over: nothing but the founding of the next keeper makes it known.
  const vmm = startVmm({ socket: other.socket, image: other.imagePath, regions: PAGES * PAGE_SIZE, system });
  await other.until(() => other.count("keeper") > keepers, "a new keeper");
  await checkAll(vmm);
  await checkAll(
    startVmm({ socket: other.socket, image: other.imagePath, regions: PAGES * PAGE_SIZE, system }),
  );
  assert.equal(other.count("serving"), 1);
});

test("what is in reserve stays when the keeper dies, and serves when pager and spare do", {
  skip,
}, async (t) => {
  const other = await Stand.open({ pages: PAGES });
  t.after(() => other.close());
  await other.until(() => other.processes.length === 4, "one in reserve");
  const { reservePid } = other;
  const vmm = startVmm({ socket: other.socket, image: other.imagePath, regions: PAGES * PAGE_SIZE, system });
  assert.deepEqual((await vmm.touch({ count: 10 })).wrong, []);
  for (const round of [1, 2]) {
    const keepers = other.count("keeper");
    tryKill(other.keeperPid);
    await other.until(() => other.count("keeper") > keepers, `keeper ${round}`);
  }
  const served = other.count("serving");
  // The spare first: it would be faster than the second kill.
  for (const pid of [other.sparePid, other.server.pid]) tryKill(pid);
  await other.until(() => other.count("serving") > served, "a takeover");
  assert.equal(other.server.pid, reservePid);
  await checkAll(vmm);
  await other.untilSpare();
  await other.until(() => other.processes.length === 4, "keeper, pager, spare and reserve, and nobody else");
});

test("a planned takeover keeps every guest, and the sockets", { skip }, async () => {
  const vmm = machine();
  assert.deepEqual((await vmm.touch({ count: 100 })).wrong, []);
  await vmm.balloon(10, 5);
  const processes = stand.processes;
  await stand.takeOver();
  await stand.untilSpare();
  assert.deepEqual(processes.filter(isAlive), []);
  await checkAll(vmm);
  await checkAll(machine());
});

test("whoever is killed in mid-fault is forgotten, with all descriptors", { skip }, async () => {
  await checkAll(machine());
  await stand.until(() => stand.last("ended")?.reason === "exited", "the end of the last guest");
  const [pid, ended] = [stand.server.pid, stand.count("ended")];
  const holds = descriptorsOf(pid);
  for (let turn = 0; turn < 10; turn++) {
    const vmm = machine();
    vmm.begin({ shuffle: turn });
    vmm.close();
  }
  await stand.until(() => stand.count("ended") + stand.count("refused") >= ended + 10, "their ends");
  // A spare and its line may have come meanwhile; of ten guests more than that would be left.
  await stand.until(() => descriptorsOf(pid) <= holds + 4, `descriptors of ${pid} as before, ${holds}`);
});

test("whatever is wrong with a hand-over is refused with the reason, and nobody else minds", {
  skip,
}, async (t) => {
  const pages = 64;
  const small = await Stand.open({ pages });
  t.after(() => small.close());
  const { socket, imagePath, server } = small;
  const vmm = startVmm({ socket, image: imagePath, regions: pages * PAGE_SIZE, system });
  const client = new MaliciousClient(socket, system);
  // What the server holds of a guest, and of its control API, it has now.
  assert.deepEqual((await vmm.touch({ count: 1 })).wrong, []);
  await createClient({ socket: controlPath(small.folder) }).health();
  const holds = descriptorsOf(server.pid);
  for (const malice of MALICES) {
    const { text, isHungUp } = await client.attempt(malice);
    assert.ok(isHungUp, `${malice.what}: nobody hung up, said was ${text}`);
    const { error } = JSON.parse(text || "{}") as { error?: { code: string; message: string } };
    assert.match(error?.message ?? "", malice.refusal, malice.what);
    if (malice.code !== "any") assert.equal(error?.code, malice.code ?? "ERR_BAD_HAND_OVER", malice.what);
  }
  client.close();
  await checkAll(vmm);
  assert.equal(small.count("refused"), MALICES.length);
  assert.equal(small.count("serving"), 1);
  await small.until(
    () => descriptorsOf(server.pid) <= holds,
    `descriptors of ${server.pid} as before, ${holds}`,
  );
});

test("ten thousand connections that say nothing keep nobody out", { skip }, async () => {
  const crowd = await flood(stand.socket, 10_000, 60_000);
  assert.equal(crowd.connected, 10_000);
  await checkAll(machine());
  crowd.close();
});

test("a folder that others can enter, and one that is served, are refused", { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-open-"));
  chmodSync(folder, 0o755);
  assert.throws(() => startServer({ folder, images: [] }), { code: "ERR_BAD_ARGUMENT" });
  rmSync(folder, { recursive: true });
  assert.throws(() => startServer({ folder: stand.folder, images: [] }), { code: "ERR_BUSY" });
  for (const path of [stand.socket, join(stand.folder, "control.sock")]) {
    assert.equal(statSync(path).mode & 0o777, 0o600);
  }
});

test("a server that ends gives every guest all of its memory first", { skip }, async () => {
  const vmm = machine();
  assert.deepEqual((await vmm.touch({ count: 10 })).wrong, []);
  await vmm.balloon(3, 2);
  assert.equal(await stand.stop(), 0);
  assert.equal(stand.last("ended")?.reason, "installed");
  assert.equal(existsSync(stand.socket), false);
  assert.deepEqual(stand.processes, []);
  await checkAll(vmm);
});

test("a guest that can't be given its memory is ended, and the reason is written down", {
  skip,
}, async (t) => {
  const other = await Stand.open({ pages: 64 });
  t.after(() => other.close());
  const vmm = startVmm({ socket: other.socket, regions: 64 * PAGE_SIZE, image: other.imagePath, system });
  assert.deepEqual((await vmm.touch({ count: 1 })).wrong, []);
  rmSync(other.imagePath);
  // Whoever is born now can't open the image.
  // The spare first: it would be faster than the second kill.
  for (const pid of [other.sparePid, other.server.pid]) tryKill(pid);
  assert.equal(await vmm.died(), 9);
  await other.until(() => other.last("ended")?.reason === "failed", "the end of the guest");
  assert.match(readFileSync(join(other.folder, "endings.jsonl"), "utf8"), /"outcome":"killed"/);
});
