// What a guest is served from, and by which rules, is replaced while it runs, and whoever served it dies: the successor
// finds other bytes under the same name. No guest gets both.

import assert from "node:assert/strict";
import { copyFileSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { type Client, createClient } from "../../src/client/index.ts";
import { controlPath } from "../../src/daemon/folder.ts";
import { imagePath } from "../../src/daemon/sockets.ts";
import { KernelSystem } from "../../src/guest/process/index.ts";
import { addWorkingSet, buildImage } from "../../src/image/index.ts";
import { FileSource, FolderStore } from "../../src/source/index.ts";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import { Stand, tryKill } from "./stand.ts";
import { startVmm, type Vmm } from "./vmm.ts";

const PAGES = 64;

let system: KernelSystem;
before(() => {
  if (skip === false) system = new KernelSystem();
});
after(() => system?.close());

async function stand(t: TestContext): Promise<{ server: Stand; client: Client }> {
  const server = await Stand.open({ pages: PAGES });
  t.after(() => server.close());
  return { server, client: createClient({ socket: controlPath(server.folder) }) };
}

/** A copy of the server's image, beside it. */
function copied({ folder, imagePath: image }: Stand, name: string): string {
  const path = join(folder, "..", name);
  copyFileSync(image, path);
  return path;
}

function offer(server: Stand, image = "a", content = server.imagePath): Vmm {
  const socket = imagePath(server.folder, image);
  return startVmm({ socket, regions: PAGES * PAGE_SIZE, image: content, system });
}

/** A machine at an image's socket, which has touched one page. */
async function machine(...where: Parameters<typeof offer>): Promise<Vmm> {
  const vmm = offer(...where);
  assert.deepEqual((await vmm.touch({ count: 1 })).wrong, []);
  return vmm;
}

/** Another file of the same name and length. */
function replace(path: string): void {
  writeFileSync(
    `${path}.new`,
    readFileSync(path).map((byte) => byte ^ 0xff),
  );
  renameSync(`${path}.new`, path);
}

/** Whoever serves next was born after this. */
async function killAll(stand: Stand): Promise<void> {
  const served = stand.count("serving");
  for (const pid of [stand.sparePid, stand.server.pid]) tryKill(pid);
  await stand.until(() => stand.count("serving") > served, "a takeover");
}

async function checkEnded(stand: Stand, vmm: Vmm): Promise<void> {
  assert.equal(await vmm.died(), 9);
  await stand.until(() => stand.last("ended")?.reason === "failed", "the end of the guest");
  assert.match(readFileSync(join(stand.folder, "endings.jsonl"), "utf8"), /was replaced/);
}

async function checkAll(vmm: Vmm): Promise<void> {
  assert.deepEqual((await vmm.touch({ shuffle: 5 })).wrong, []);
  vmm.close();
}

async function build(store: FolderStore, path: string, replaces: boolean): Promise<void> {
  const source = FileSource.open(path);
  await buildImage(store, "vm", { regions: [{ name: "ram", source }], ifAbsent: !replaces });
  await source.close();
}

test("a raw file that was replaced: its guest is ended, with the reason", { skip }, async (t) => {
  const { server } = await stand(t);
  const vmm = await machine(server);
  replace(server.imagePath);
  await killAll(server);
  await checkEnded(server, vmm);
});

test("an image that was given a working set is the same; one with other bytes is not", {
  skip,
}, async (t) => {
  const { server, client } = await stand(t);
  const store = new FolderStore(join(server.folder, "..", "images"));
  const before = copied(server, "before");
  await build(store, before, false);
  await client.addImage({ name: "vm", url: `${store.url}/vm` });
  const vmm = await machine(server, "vm", before);
  await addWorkingSet(store, "vm", "start", [0, PAGE_SIZE]);
  await killAll(server);
  await server.untilSpare();
  assert.deepEqual((await vmm.touch({ count: PAGES / 2 })).wrong, []);
  replace(server.imagePath);
  await build(store, server.imagePath, true);
  await killAll(server);
  await checkEnded(server, vmm);
});

test("an image that is served no more, or anew: its guests go on, and new ones have what is there now", {
  skip,
}, async (t) => {
  const { server, client } = await stand(t);
  const before = copied(server, "before");
  await client.addImage({ name: "b", url: before });
  const [old, gone] = [await machine(server), await machine(server, "b", before)];
  replace(server.imagePath);
  for (const name of ["a", "b"]) await client.removeImage({ name });
  await client.addImage({ name: "a", url: server.imagePath });
  await checkAll(await machine(server));
  await checkAll(old);
  await killAll(server);
  await checkAll(gone);
});

test("images, policy and limits that changed when the spare was warm hold when it serves", {
  skip,
}, async (t) => {
  const { server, client } = await stand(t);
  const [gone, added, again] = [copied(server, "gone"), copied(server, "added"), copied(server, "again")];
  await client.addImage({ name: "gone", url: gone });
  await client.addImage({ name: "changed", url: gone });
  // One that is born now, and knows only these.
  await server.killPager();
  await server.untilSpare();
  replace(again);
  for (const name of ["gone", "changed"]) await client.removeImage({ name });
  await client.addImage({ name: "added", url: added });
  await client.addImage({ name: "changed", url: again });
  await client.setLimits({ guestsMax: 2 });
  const rule = { uid: 0, images: [server.imagePath, again] };
  await client.setPolicy({ rules: [rule, { ...rule, images: [added], guestsMax: 1 }] });
  const spare = server.sparePid;
  await server.killPager();
  assert.equal(server.last("serving")?.pid, spare);

  const first = await machine(server, "added", added);
  assert.match(await offer(server, "added").refusal(), /The policy lets uid 0 have 1 guests/);
  const second = await machine(server, "changed", again);
  assert.match(await offer(server).refusal(), /has 2 guests already/);
  const names = (await client.listImages()).images.map(({ name }) => name);
  assert.deepEqual(names.toSorted(), ["a", "added", "changed"]);
  assert.equal((await client.getLimits()).guestsMax, 2);
  for (const vmm of [first, second]) await checkAll(vmm);
});

test("of many who come at once, a policy lets in as many as it says", { skip }, async (t) => {
  const { server, client } = await stand(t);
  await client.setPolicy({ rules: [{ uid: 0, images: [server.imagePath], guestsMax: 2 }] });
  const options = { socket: server.socket, regions: PAGES * PAGE_SIZE, image: server.imagePath, system };
  const vmms = Array.from({ length: 12 }, () => startVmm({ ...options, handOver: false }));
  for (const vmm of vmms) vmm.handOver();
  const isAnswered = () => server.count("guest") + server.count("refused") === vmms.length;
  await server.until(isAnswered, "twelve answers");
  assert.equal(server.count("guest"), 2);
  for (const vmm of vmms) vmm.close();
});
