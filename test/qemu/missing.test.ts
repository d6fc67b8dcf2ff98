// A restore from an image that is damaged, or over connections that break, without QEMU: what is sent, what is told, and when
// it ends.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connectTo, type MissingChunk, type RestoreOptions } from "../../src/guest/qemu/index.ts";
import { openImage } from "../../src/image/index.ts";
import { type ObjectStore, openStore } from "../../src/source/index.ts";
import type { FakeDestination } from "./harness/fake-destination.ts";
import { assertWhole, buildSmallMachine, intoFake, RAM_PAGES, ROM_PAGES } from "./harness/small-machine.ts";

const PAGES = RAM_PAGES + ROM_PAGES;
const CHUNK_PAGES = 16;
/** The chunk that is damaged, and one of its pages. */
const CHUNK = 2;
const PAGE_OF_IT = 36;
const folder = mkdtempSync(join(tmpdir(), "mf-missing-"));
const url = join(folder, "images", "vm");
const damagedUrl = join(folder, "damaged", "vm");
let store: ObjectStore;
let pack: string;

before(async () => {
  store = await openStore(join(folder, "images"));
  await buildSmallMachine(store, "vm");
  const image = await openImage(url);
  const place = await image.locate(CHUNK);
  await image.close();
  pack = place!.pack;
  cpSync(join(folder, "images"), join(folder, "damaged"), { recursive: true });
  const bytes = readFileSync(packOf("images"));
  bytes[place!.offset]! ^= 1;
  writeFileSync(packOf("damaged"), bytes);
});

after(async () => {
  await store.close();
  rmSync(folder, { recursive: true, force: true });
});

function packOf(name: string): string {
  return join(folder, name, "packs", pack);
}

/** Puts the pack of one store into another, as whoever mends an image, or breaks it, does. */
function putPack(from: string, to: string): void {
  cpSync(packOf(from), join(folder, "new"));
  renameSync(join(folder, "new"), packOf(to));
}

function isOfChunk(name: string): boolean {
  const [block, page] = name.split(" ");
  return block === "pc.ram" && Math.floor(Number(page) / CHUNK_PAGES) === CHUNK;
}

test("all but a damaged chunk is sent, and it is told; it comes when the image is mended", async () => {
  cpSync(join(folder, "damaged"), join(folder, "mended"), { recursive: true });
  const told: MissingChunk[] = [];
  const options = { replay: false, onMissing: (chunk: MissingChunk) => told.push(chunk) } as const;
  await intoFake(folder, join(folder, "mended", "vm"), options, async (destination, restoring) => {
    await destination.loads();
    destination.say({ kind: "request", block: "pc.ram", start: PAGE_OF_IT * 4096, byteLength: 4096 });
    await Promise.race([destination.has(PAGES - CHUNK_PAGES), restoring]);
    assert.deepEqual(destination.order.filter(isOfChunk), []);
    assert.deepEqual(
      told.map(({ chunk, error }) => [chunk, error?.code]),
      [[CHUNK, "ERR_WRONG_BYTES"]],
    );
    putPack("images", "mended");
    const { counters } = await restoring;
    assert.equal(counters.recoveries, 0);
    assert.deepEqual([told.length, told[1]?.chunk, told[1]?.error], [2, CHUNK, undefined]);
    assertWhole(destination);
  });
});

test("when nothing else is left and patience is over, the machine is left waiting, and why is said", async () => {
  const reconnect: RestoreOptions["connect"] = () => assert.fail("another connection would not help");
  const options = { replay: false, patienceMs: 100, reconnect } as const;
  await intoFake(folder, damagedUrl, options, async (destination, restoring) => {
    await assert.rejects(restoring, /waits for the rest of its memory: chunk 2 of .*(SHA-256|decompressed)/);
    assert.equal(destination.pages.size, PAGES - CHUNK_PAGES, "everything else has come");
    assert.deepEqual(destination.repeated, []);
  });
});

test("a guest waits for a damaged page no longer than patience lasts, whatever else could be sent", async () => {
  await intoFake(
    folder,
    damagedUrl,
    { replay: false, patienceMs: 100, push: false },
    async (destination, restoring) => {
      await destination.loads();
      destination.say({ kind: "request", block: "pc.ram", start: PAGE_OF_IT * 4096, byteLength: 4096 });
      await assert.rejects(restoring, /waits for the rest of its memory: chunk 2 of/);
      assert.equal(destination.pages.size, 0);
    },
  );
});

test("a machine that is resumed from a damaged image gets everything else, and later the rest", async () => {
  cpSync(join(folder, "damaged"), join(folder, "again"), { recursive: true });
  let destination: FakeDestination | undefined;
  const told: MissingChunk[] = [];
  const options: Partial<RestoreOptions> = {
    replay: false,
    reconnect: (signal) => connectTo(destination!.uri, signal),
    onMissing: (chunk) => told.push(chunk),
  };
  await intoFake(folder, join(folder, "again", "vm"), options, async (made, restoring) => {
    destination = made;
    await Promise.race([destination.has(PAGES - CHUNK_PAGES), restoring]);
    destination.cut();
    await Promise.race([destination.resumes(), restoring]);
    destination.say({ kind: "request", block: "pc.ram", start: PAGE_OF_IT * 4096, byteLength: 4096 });
    putPack("images", "again");
    const { counters } = await restoring;
    assert.equal(counters.recoveries, 1);
    assert.ok(told.some(({ error }) => error === undefined));
    assertWhole(destination);
  });
});

test("connections over which nothing arrives are not made for ever, however much is sent", {
  timeout: 60_000,
}, async () => {
  let destination: FakeDestination | undefined;
  const reconnect: RestoreOptions["connect"] = (signal) => connectTo(destination!.uri, signal);
  await intoFake(folder, url, { replay: false, reconnect }, async (made, restoring) => {
    destination = made;
    destination.isForgetful = true;
    destination.onPage = () => made.cut();
    await assert.rejects(restoring, /waits for the rest of its memory/);
    assert.ok(destination.connections <= 8, `${destination.connections} connections`);
  });
});

test("a connection that is being recovered is not cut: QEMU would end, and its machine be lost", async () => {
  let destination: FakeDestination | undefined;
  const controller = new AbortController();
  const options: Partial<RestoreOptions> = {
    replay: false,
    pushBytesPerSecond: 4 * 2 ** 20,
    signal: controller.signal,
    reconnect: (signal) => connectTo(destination!.uri, signal),
  };
  await intoFake(folder, url, options, async (made, restoring) => {
    destination = made;
    await Promise.race([destination.has(10), restoring]);
    destination.holdAnswers();
    destination.cut();
    await Promise.race([destination.hears("recv-bitmap"), restoring]);
    controller.abort(new Error("enough"));
    destination.giveAnswers();
    await assert.rejects(restoring, /enough/);
    assert.ok(destination.commands.includes("postcopy-resume"), "it was told to resume all the same");
  });
});
