// A restore against a destination that is none: what is sent in which order, and what becomes of requests that cannot be.
// Runs everywhere, without QEMU.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  connectTo,
  machineAttachment,
  type RestoreOptions,
  type ReturnMessage,
  restoreMachine,
  savedMachine,
  WORKING_SET,
} from "../../src/guest/qemu/index.ts";
import { addWorkingSet, buildImage, openImage } from "../../src/image/index.ts";
import { type ObjectStore, openStore, type PageSource } from "../../src/source/index.ts";
import { FakeDestination } from "./harness/fake-destination.ts";

const PAGE = 4096;
const RAM_PAGES = 1024;
const ROM_PAGES = 3;
const folder = mkdtempSync(join(tmpdir(), "mf-session-"));
const url = join(folder, "images", "vm");
let store: ObjectStore;
let sockets = 0;

/** Page n of RAM begins with n, every fifth is zeros; pages of the ROM begin with 100,000 and more. */
function ram(): Buffer {
  const bytes = Buffer.alloc(RAM_PAGES * PAGE);
  for (let page = 0; page < RAM_PAGES; page++) bytes.writeUInt32LE(wordOf(page), page * PAGE);
  return bytes;
}

function wordOf(page: number): number {
  return page % 5 === 0 ? 0 : page;
}

function memory(bytes: Buffer): PageSource {
  return {
    name: "memory of the test",
    byteLength: bytes.byteLength,
    async read(offset, target) {
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
    async close() {},
  };
}

before(async () => {
  store = await openStore(join(folder, "images"));
  const rom = Buffer.alloc(ROM_PAGES * PAGE);
  for (let page = 0; page < ROM_PAGES; page++) rom.writeUInt32LE(100_000 + page, page * PAGE);
  const machine = savedMachine({
    machine: "pc-i440fx-7.2",
    capabilities: [],
    sectionId: 2,
    blocks: [
      { name: "pc.ram", byteLength: RAM_PAGES * PAGE, pageSize: PAGE, region: "pc.ram" },
      { name: "/rom@etc", byteLength: ROM_PAGES * PAGE, pageSize: PAGE, region: "rom" },
    ],
    devices: [],
    saved: "stopped",
  });
  await buildImage(store, "vm", {
    regions: [
      { name: "pc.ram", source: memory(ram()) },
      { name: "rom", source: memory(rom) },
    ],
    attachments: [machineAttachment(machine), { name: "device-state", bytes: Buffer.from("the devices") }],
  });
  await addWorkingSet(
    store,
    "vm",
    WORKING_SET,
    [700, 8, 9, 3].map((page) => page * PAGE),
  );
});

after(async () => {
  await store.close();
  rmSync(folder, { recursive: true, force: true });
});

async function withDestination(
  options: Partial<RestoreOptions>,
  run: (destination: FakeDestination, restoring: ReturnType<typeof restoreMachine>) => Promise<void>,
): Promise<void> {
  const destination = await FakeDestination.listen(join(folder, `socket${sockets++}`));
  const image = await openImage(url);
  try {
    const connect: RestoreOptions["connect"] = (signal) => connectTo(destination.uri, signal);
    const restoring = restoreMachine({ image, url, record: false, connect, ...options });
    restoring.catch(() => {});
    await run(destination, restoring);
  } finally {
    destination.close();
    await image.close();
  }
}

function assertWhole({ pages, repeated }: FakeDestination): void {
  assert.deepEqual(repeated, []);
  assert.equal(pages.size, RAM_PAGES + ROM_PAGES);
  for (let page = 0; page < RAM_PAGES; page++) assert.equal(pages.get(`pc.ram ${page}`), wordOf(page));
  for (let page = 0; page < ROM_PAGES; page++) assert.equal(pages.get(`/rom@etc ${page}`), 100_000 + page);
}

test("every page is sent once: the working set first, and in its order", () =>
  withDestination({}, async (destination, restoring) => {
    const { replayed, counters } = await restoring;
    assert.equal(replayed?.name, WORKING_SET);
    assert.equal(counters.pagesSent + counters.zerosSent, RAM_PAGES + ROM_PAGES);
    assert.deepEqual(
      destination.order.slice(0, 4),
      [700, 8, 9, 3].map((page) => `pc.ram ${page}`),
    );
    assertWhole(destination);
  }));

test("a page that is asked for brings its chunk along, or comes alone", async () => {
  for (const neighbours of [true, false]) {
    const controller = new AbortController();
    const options = { replay: false as const, push: false, neighbours, signal: controller.signal };
    await withDestination(options, async (destination, restoring) => {
      await destination.loads();
      await destination.ask("pc.ram", 36);
      await destination.ask("/rom@etc", 1);
      assert.deepEqual(destination.order[0], "pc.ram 36");
      const around = destination.pages.has("pc.ram 47") && destination.pages.has("pc.ram 32");
      assert.equal(around, neighbours);
      assert.equal(destination.pages.has("pc.ram 48"), false, "the next chunk is another one");
      controller.abort(new Error("enough"));
      await assert.rejects(restoring, /enough/);
    });
  }
});

test("what the guest asks for is recorded in its order, and stops when it rests", () =>
  withDestination({ replay: false, record: true }, async (destination, restoring) => {
    await destination.loads();
    for (const page of [500, 3, 501, 77]) await destination.ask("pc.ram", page);
    const { touched } = await restoring;
    assert.deepEqual(
      touched?.slice(0, 4),
      [500, 3, 501, 77].map((page) => page * PAGE),
    );
    assertWhole(destination);
  }));

test("a request that cannot be ends its own connection with a reason, and no other", async () => {
  const wrong: readonly [ReturnMessage, RegExp][] = [
    [{ kind: "request", block: "pc.ram", start: RAM_PAGES * PAGE, byteLength: PAGE }, /which has 4194304/],
    [
      { kind: "request", block: "vga.vram", start: 0, byteLength: PAGE },
      /"vga\.vram", which the machine does not have/,
    ],
    [{ kind: "request", block: "pc.ram", start: 100, byteLength: PAGE }, /no page of 4096/],
    [{ kind: "request", block: undefined, start: 0, byteLength: PAGE }, /of no block/],
    [{ kind: "pong", value: 77 }, /PING 77, which was not asked/],
  ];
  // A machine that is served all the time, slowly.
  await withDestination({ replay: false, pushBytesPerSecond: 16 * 2 ** 20 }, async (good, restoring) => {
    for (const [message, reason] of wrong) {
      await withDestination({ replay: false, push: false }, async (bad, refused) => {
        await bad.loads();
        bad.say(message);
        await assert.rejects(refused, reason);
      });
    }
    await restoring;
    assertWhole(good);
  });
});

test("a working set that is damaged is told, and everything comes all the same", async () => {
  const { workingSets } = (await openImage(url)).manifest;
  const pack = join(folder, "images", "packs", workingSets[0]!.pack);
  const right = readFileSync(pack);
  const wrong = Buffer.from(right);
  wrong[workingSets[0]!.listBytes + 5]! ^= 1;
  rmSync(pack);
  writeFileSync(pack, wrong);
  try {
    await withDestination({}, async (destination, restoring) => {
      const { replayed } = await restoring;
      assert.match(replayed?.error ?? "", /frame 0 of working set start/);
      assertWhole(destination);
    });
  } finally {
    rmSync(pack);
    writeFileSync(pack, right);
  }
});

test("a working set that the image has not is told before anything is sent", () =>
  withDestination({ replay: "afternoon" }, async (destination, restoring) => {
    await assert.rejects(restoring, /no working set afternoon/);
    assert.equal(destination.order.length, 0);
  }));

test("a destination that ends before the machine runs is an error that says so", () =>
  withDestination({ replay: false }, async (destination, restoring) => {
    void destination.loads().then(() => destination.close());
    await assert.rejects(restoring, /QEMU closed the connection|waits for the rest of its memory/);
  }));
