// A restore against a destination that is none: what is sent in which order, and what becomes of requests that cannot be.
// Runs everywhere, without QEMU.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  type RestoreOptions,
  type ReturnMessage,
  readFirst,
  type restoreMachine,
  WORKING_SET,
} from "../../src/guest/qemu/index.ts";
import { addWorkingSet, openImage, openImageIn } from "../../src/image/index.ts";
import { type ObjectStore, openStore } from "../../src/source/index.ts";
import type { FakeDestination } from "./harness/fake-destination.ts";
import {
  assertWhole,
  buildSmallMachine,
  intoFake,
  PAGE,
  RAM_PAGES,
  ROM_PAGES,
} from "./harness/small-machine.ts";

const folder = mkdtempSync(join(tmpdir(), "mf-session-"));
const url = join(folder, "images", "vm");
let store: ObjectStore;

before(async () => {
  store = await openStore(join(folder, "images"));
  await buildSmallMachine(store, "vm");
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

function withDestination(
  options: Partial<RestoreOptions>,
  run: (destination: FakeDestination, restoring: ReturnType<typeof restoreMachine>) => Promise<void>,
): Promise<void> {
  return intoFake(folder, url, options, run);
}

/** The same store as one that has to be waited for. */
function farAway(near: ObjectStore): ObjectStore {
  return {
    url: near.url,
    open: (key) => near.open(key),
    get: (key, bytesMax) => near.get(key, bytesMax),
    put: (key, bytes) => near.put(key, bytes),
    list: (prefix) => near.list(prefix),
    delete: (key) => near.delete(key),
    close: async () => {},
  };
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

test("of a store that is far away the working set does not wait until the machine runs", async () => {
  await using image = await openImageIn(farAway(store), "vm", { ahead: readFirst() });
  await withDestination({ image }, async (destination, restoring) => {
    destination.needs = "pc.ram 3";
    await restoring;
    assertWhole(destination);
  });
});

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
