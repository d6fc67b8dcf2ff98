// A flush into an image changes the memory and nothing else: what goes with the image stays, or is said to be gone; and
// somebody else's image is not mixed with ours.

import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { addWorkingSet, buildImage, openImage, verifyImage } from "../../../src/image/index.ts";
import { open } from "../../../src/index.ts";
import { MemorySource, type ObjectStore, openStore } from "../../../src/source/index.ts";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { ownFolder, PAGE } from "./files.ts";

const folder = ownFolder();
const PAGES = 512;
const CHUNK_PAGES = 16;
const state = Buffer.from("device state");
let store: ObjectStore;

before(async () => {
  store = await openStore(join(folder, "store"));
});

/** Two regions, of which the first does not end with a page. */
async function build(name: string): Promise<string> {
  const low = new Uint8Array(PAGES * PAGE - 1000).map((_, index) => 1 + ((index >> 12) % 250));
  await buildImage(store, name, {
    regions: [
      { name: "low", guestAddress: 0x1000, source: new MemorySource(low) },
      {
        name: "high",
        guestAddress: 2 ** 32,
        pageSize: 2097152,
        source: new MemorySource(low.subarray(0, 5000)),
      },
    ],
    notes: { kernel: "6.18" },
    attachments: [{ name: "state", bytes: state }],
  });
  await addWorkingSet(store, name, "far", [100 * PAGE, 90 * PAGE]);
  await addWorkingSet(store, name, "near", [3 * PAGE, 200 * PAGE, 2 * PAGE]);
  return join(folder, "store", name);
}

async function pagesOf(url: string, set: string): Promise<[number, number][]> {
  const image = await openImage(url);
  const pages: [number, number][] = [];
  for await (const { offset, bytes } of image.readWorkingSet(set)) {
    for (let at = 0; at < bytes.byteLength; at += PAGE) pages.push([(offset + at) / PAGE, bytes[at]!]);
  }
  await image.close();
  return pages;
}

test("notes, attachments, regions and working sets stay; a set whose pages were written holds the new ones", {
  skip,
}, async () => {
  const url = await build("kept");
  const original = await openImage(url);
  const memory = await open(url, { mode: "write-back", fetch: { replay: false } });
  const bytes = new Uint8Array(memory.buffer);
  bytes[3 * PAGE] = 255;
  const report = await memory.flush();
  assert.deepEqual(report, { bytesWritten: PAGE, ranges: 1 });
  const flushed = await openImage(url);
  const { notes, attachments, regions, workingSets } = flushed.manifest;
  assert.deepEqual(notes, { kernel: "6.18" });
  assert.deepEqual(attachments, original.manifest.attachments);
  assert.deepEqual(Buffer.from(await flushed.readAttachment("state")), state);
  assert.deepEqual(regions, original.manifest.regions, "as long as they were");
  const [far, near] = original.manifest.workingSets;
  assert.deepEqual(workingSets[0], far, "the very same pack");
  assert.notEqual(workingSets[1]?.pack, near?.pack);
  assert.deepEqual(await pagesOf(url, "near"), [
    [3, 255],
    [200, 201],
    [2, 3],
  ]);
  assert.ok((await verifyImage(store, "kept")).right);
  await original.close();
  await flushed.close();
  // Once more, with everything in memory that the first flush has made.
  bytes[90 * PAGE] = 254;
  await memory.close();
  assert.deepEqual(await pagesOf(url, "far"), [
    [100, 101],
    [90, 254],
  ]);
  assert.ok((await verifyImage(store, "kept")).right);
  const again = await open(url);
  assert.equal((await again.replayed)?.error, undefined);
  assert.deepEqual([...new Uint8Array(again.buffer, 3 * PAGE, 1)], [255]);
  await again.close();
});

test("a region grows to whole pages when something is written behind its end, and only then", {
  skip,
}, async () => {
  const url = await build("longer");
  const lengths = async (): Promise<number[]> => {
    const image = await openImage(url);
    await image.close();
    return image.manifest.regions.map(({ dataBytes }) => dataBytes);
  };
  const whole = [PAGES * PAGE - 1000, 5000];
  const memory = await open(url, { mode: "write-back" });
  const bytes = new Uint8Array(memory.buffer);
  bytes[PAGES * PAGE - 1001] = 7;
  await memory.flush();
  assert.deepEqual(await lengths(), whole);
  bytes[PAGES * PAGE - 1] = 7;
  await memory.flush();
  assert.deepEqual(await lengths(), [PAGES * PAGE, 5000]);
  await memory.close();
});

test("an image that somebody else has replaced is not mixed with what was written here", {
  skip,
}, async () => {
  const url = await build("theirs");
  const memory = await open(url, { mode: "write-back" });
  const bytes = new Uint8Array(memory.buffer);
  bytes[0] = 99;
  const theirs = new Uint8Array(PAGES * PAGE).fill(77);
  await buildImage(store, "theirs", { regions: [{ name: "low", source: new MemorySource(theirs) }] });
  await assert.rejects(memory.flush(), { code: "ERR_SOURCE_CHANGED" });
  assert.equal(bytes[0], 99, "it is still in memory");
  await assert.rejects(memory.close(), { code: "ERR_SOURCE_CHANGED" });
  const image = await openImage(url);
  const target = new Uint8Array(image.byteLength);
  await image.read(0, target);
  assert.ok(target.every((byte) => byte === 77));
  await image.close();
  // What goes with an image is not its content: a working set that was added meanwhile is kept.
  const other = await build("added");
  const second = await open(other, { mode: "write-back" });
  new Uint8Array(second.buffer)[CHUNK_PAGES * PAGE] = 98;
  await addWorkingSet(store, "added", "new", [5 * PAGE]);
  await second.close();
  assert.deepEqual(await pagesOf(other, "new"), [[5, 6]]);
});

test("a working set that can't be read is dropped, and the report names it", { skip }, async () => {
  const url = await build("hurt");
  const image = await openImage(url);
  const pack = image.manifest.workingSets[1]?.pack ?? "";
  await image.close();
  const packs = join(folder, "store", "packs");
  assert.ok(readdirSync(packs).includes(pack));
  const bytes = readFileSync(join(packs, pack));
  writeFileSync(join(packs, pack), bytes.fill(0, 0, 40));
  const memory = await open(url, { mode: "write-back", fetch: { replay: false } });
  new Uint8Array(memory.buffer)[0] = 1;
  const { dropped } = await memory.flush();
  assert.equal(dropped?.length, 1);
  assert.match(dropped?.[0] ?? "", /^working set near: working set near has the SHA-256/);
  await memory.close();
  const flushed = await openImage(url);
  assert.deepEqual(flushed.workingSets(), ["far"]);
  await flushed.close();
});
