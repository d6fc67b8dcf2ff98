// The stand-in for Firecracker, held to what it claims: its message, its memory, and that it sees every wrong byte. It is
// served here by nothing but the parser of hand-overs and a pager.

import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/abi/memory.ts";
import { Random } from "../../src/base/random.ts";
import { DEFAULT_LIMITS } from "../../src/daemon/config.ts";
import { HandOverMessage, parseHandOver } from "../../src/daemon/hand-over.ts";
import { accept, close, listen, local, peer, receive, send } from "../../src/linux/index.ts";
import { type PagerOptions, startPager } from "../../src/pager/index.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { hugePages } from "./huge-pages.ts";
import { startVmm, type Vmm, type VmmOptions, type VmmVersion } from "./vmm.ts";
import { hashWords } from "./vmm-hasher.ts";
import { handOverMessage } from "./vmm-message.ts";

const skip = skipUnlessUserfaultfd;
const PAGES = 512;

interface Scene {
  readonly image: string;
  vmm(options?: Partial<VmmOptions>): Vmm;
  /** Takes one hand-over and serves it. */
  serve(options?: Partial<PagerOptions>): ReturnType<typeof startPager>;
  /** Takes one connection and refuses it. */
  refuse(text: string): void;
}

function sceneFor(t: TestContext, pages = PAGES): Scene {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-vmm-"));
  const image = join(folder, "memory");
  const words = new Uint32Array((pages * PAGE_SIZE) / 4);
  const random = new Random(7);
  // A page in four is all zero, as in real memory.
  for (const index of words.keys()) words[index] = (index >> 10) % 4 === 3 ? 0 : random.uint32();
  writeFileSync(image, words);
  const socket = join(folder, "socket");
  const listener = listen(local, socket);
  const ends: (() => unknown)[] = [];
  t.after(async () => {
    for (const end of ends.reverse()) await end();
    close(local, listener);
    rmSync(folder, { recursive: true });
  });
  const taken = () => {
    const connection = accept(local, listener)!;
    const received = receive(local, connection)!;
    return { connection, ...received };
  };
  return {
    image,
    vmm(options = {}) {
      const vmm = startVmm({ socket, regions: pages * PAGE_SIZE, image, ...options });
      ends.push(() => vmm.close());
      return vmm;
    },
    async serve(options = {}) {
      const { connection, bytes, descriptors } = taken();
      const message = new HandOverMessage(DEFAULT_LIMITS.messageBytesMax);
      message.push(bytes);
      assert.ok(message.isComplete);
      const regions = parseHandOver(message.text(), pages * PAGE_SIZE, DEFAULT_LIMITS);
      assert.equal(descriptors.length, 1);
      const guest = { pid: peer(local, connection).pid };
      const descriptor = descriptors[0]!;
      const pager = await startPager({ descriptor, regions, image: { path: image }, guest, ...options });
      close(local, descriptor);
      ends.push(() => pager.close());
      ends.push(() => close(local, connection));
      return pager;
    },
    refuse(text) {
      const { connection, descriptors } = taken();
      send(local, connection, new TextEncoder().encode(text));
      for (const fd of [connection, ...descriptors]) close(local, fd);
    },
  };
}

test("each version of Firecracker is spelled as its serde spells it", () => {
  const region = { address: 0x7f0000000000, byteLength: 4096, imageOffset: 8192 };
  const begin = '[{"base_host_virt_addr":139637976727552,"size":4096,"offset":8192';
  assert.equal(handOverMessage([region], "1.1"), `${begin}}]`);
  assert.equal(handOverMessage([region], "1.7"), `${begin},"page_size_kib":4096}]`);
  assert.equal(handOverMessage([region], "1.12"), `${begin},"page_size":4096,"page_size_kib":4096}]`);
});

test("a hash tells one changed bit wherever it is", () => {
  const page = new Uint32Array(1024);
  const plain = hashWords(page);
  for (const index of [0, 511, 1023]) {
    for (const bit of [0, 13, 31]) {
      page[index] = 1 << bit;
      assert.notEqual(hashWords(page), plain);
      page[index] = 0;
    }
  }
});

for (const version of ["1.1", "1.7", "1.12"] as const satisfies readonly VmmVersion[]) {
  test(`a machine of ${version} reads its image in any order, and hashes all of it`, { skip }, async (t) => {
    const scene = sceneFor(t);
    const vmm = scene.vmm({ version });
    t.diagnostic(`cpu: ${vmm.cpu.kind} ${vmm.why ?? ""}`);
    const pager = await scene.serve();
    const { latenciesUs, wrong } = await vmm.touch({ stride: 3, shuffle: 1 });
    assert.deepEqual(wrong, []);
    assert.equal(latenciesUs.length, Math.ceil(PAGES / 3));
    assert.ok(latenciesUs.every((us) => us > 0 && us < 10e6));
    assert.ok(pager.statistics().faults > 0);
    assert.deepEqual(await vmm.verify(), []);
    assert.deepEqual(vmm.heard(), { text: "", isHungUp: false });
  });
}

test("two regions with a gap are one image, and what is stored stays", { skip }, async (t) => {
  const scene = sceneFor(t);
  const half = (PAGES / 2) * PAGE_SIZE;
  const vmm = scene.vmm({ regions: [{ byteLength: half }, { byteLength: half }] });
  await scene.serve();
  const store = await vmm.touch({ from: PAGES / 2 - 4, count: 8 }, "store");
  assert.equal(store.latenciesUs.length, 8);
  assert.deepEqual((await vmm.touch({ shuffle: 2 })).wrong, []);
  assert.deepEqual(await vmm.verify(), []);
});

test("what is given away is zero from then on, also while the CPU walks over it", { skip }, async (t) => {
  const scene = sceneFor(t);
  const vmm = scene.vmm();
  await scene.serve({ plan: { faultAroundPages: 1 } });
  const walking = vmm.begin({ shuffle: 3 });
  await vmm.balloon(64, 128);
  await vmm.balloon(300, 20);
  assert.deepEqual((await walking.ended()).wrong, []);
  await vmm.touch({ from: 100, count: 10 }, "store");
  assert.deepEqual((await vmm.touch({ shuffle: 4 })).wrong, []);
  assert.deepEqual(await vmm.verify(), []);
});

test("a wrong byte is seen, and so is a page that came back after it was given away", { skip }, async (t) => {
  const scene = sceneFor(t);
  const bytes = readFileSync(scene.image);
  const vmm = scene.vmm();
  // The server serves another file than the one we compare with.
  const lie = `${scene.image}.lie`;
  bytes[5 * PAGE_SIZE]! ^= 1;
  bytes[9 * PAGE_SIZE + 4095]! ^= 0x80;
  writeFileSync(lie, bytes);
  await scene.serve({ image: { path: lie } });
  const { wrong } = await vmm.touch({});
  const told = await vmm.verify();
  assert.equal(told.length, 2);
  assert.match(told[0]!, /^page 5 has /);
  assert.match(told[1]!, /^page 9 has /);
  if (vmm.cpu.kind === "kvm") assert.match(wrong.join(), /^page 5 has [0-9a-f]+, not [0-9a-f]+ \(image\)$/);
  await vmm.balloon(20, 1);
  assert.deepEqual(await vmm.verify({ from: 20, count: 1 }), []);
  const memory = openSync(`/proc/${vmm.pid}/mem`, "r+");
  writeSync(memory, bytes, 20 * PAGE_SIZE, PAGE_SIZE, vmm.addressOf(20));
  closeSync(memory);
  assert.match(
    (await vmm.verify({ from: 20, count: 1 })).join(),
    /^page 20 has [0-9a-f]+, not [0-9a-f]+ \(zero\)$/,
  );
});

test("without KVM a thread touches the same pages, stores included, and is checked by the hash", {
  skip,
}, async (t) => {
  const scene = sceneFor(t);
  const half = (PAGES / 2) * PAGE_SIZE;
  const vmm = scene.vmm({ cpu: "thread", regions: [{ byteLength: half }, { byteLength: half }] });
  assert.equal(vmm.why, "asked for");
  await scene.serve({ plan: { faultAroundPages: 1 } });
  const walking = vmm.begin({ shuffle: 8 });
  await vmm.balloon(PAGES / 2, 16);
  assert.equal((await walking.ended()).latenciesUs.length, PAGES);
  await vmm.touch({ from: 10, count: 4 }, "store");
  await vmm.touch({ from: PAGES / 2, count: 4 }, "store");
  assert.deepEqual(await vmm.verify(), []);
});

test("2 MiB pages come whole and are given away whole", { skip: hugePages(4) }, async (t) => {
  const scene = sceneFor(t, 4 * 512);
  const pageSize = HUGE_PAGE_SIZE;
  const vmm = scene.vmm({ regions: [{ byteLength: 4 * pageSize, pageSize }] });
  const pager = await scene.serve();
  assert.deepEqual((await vmm.touch({ stride: 512 })).wrong, []);
  assert.equal(pager.statistics().faults, 4);
  await vmm.balloon(512, 512);
  assert.deepEqual(await vmm.verify(), []);
});

test("one that is killed in mid-fault is gone at once", { skip }, async (t) => {
  const scene = sceneFor(t);
  const vmm = scene.vmm();
  const walking = vmm.begin({});
  assert.equal(vmm.isAlive, true);
  vmm.kill();
  await assert.rejects(walking.ended(), { code: "ERR_CLOSED" });
  assert.equal(await vmm.died(), 9);
});

test("a walk that nobody serves ends at its deadline, and a refusal is heard", { skip }, async (t) => {
  const scene = sceneFor(t);
  const vmm = scene.vmm({ deadlineMs: 200 });
  await assert.rejects(vmm.touch({ count: 1 }), {
    code: "ERR_DEADLINE",
    message: /^The walk \(0 of 1 pages\)/,
  });
  scene.refuse("not today\n");
  assert.equal(await vmm.refusal(), "not today\n");
});
