// Saved streams as images: the memory that the guest had, what goes with it, and a store that a bad file leaves alone.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import {
  blockNameOf,
  importStream,
  readMachine,
  regionNameOf,
  type SavedMachine,
  StreamWriter,
  sourceBlocks,
} from "../../src/guest/qemu/index.ts";
import { type Image, openImageIn } from "../../src/image/index.ts";
import { seedOf } from "../image/content.ts";
import { MemoryStore } from "../image/memory-store.ts";
import {
  concat,
  descriptionOf,
  devicesOf,
  isZero,
  memoryOf,
  PAGE,
  pageOf,
  randomMachine,
  readAll,
  SECTION_ID,
  streamOf,
  type TestMachine,
} from "./streams.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-import-"));
after(() => rmSync(folder, { recursive: true }));
const RECORDED = new URL("../../../test/qemu/fixtures/microvm.qemu.gz", import.meta.url);

function fileOf(stream: Uint8Array, name = "stream.qemu"): string {
  const path = join(folder, name);
  writeFileSync(path, stream);
  return path;
}

async function checkMemory(
  image: Image,
  blocks: SavedMachine["blocks"],
  memory: readonly Uint8Array[],
): Promise<void> {
  for (const [index, { name, region }] of blocks.entries()) {
    const { offset, byteLength } = image.regions.find((each) => each.name === region)!;
    const bytes = new Uint8Array(byteLength);
    await image.read(offset, bytes);
    assert.ok(Buffer.compare(bytes, memory[index]!) === 0, `block ${name}`);
  }
}

async function check(store: MemoryStore, machine: TestMachine): Promise<void> {
  const image = await openImageIn(store, "vm");
  const restorable = await readMachine(image);
  assert.equal(restorable.machine.machine, machine.name);
  assert.equal(restorable.machine.saved, "file");
  assert.deepEqual(Buffer.from(restorable.devices), Buffer.from(devicesOf(machine)));
  const configuration = new StreamWriter().configuration(machine.name).take();
  assert.deepEqual(Buffer.from(restorable.configuration ?? []), Buffer.from(configuration));
  assert.deepEqual(
    restorable.machine.blocks.map(({ name, byteLength }) => ({ name, byteLength })),
    machine.blocks.map(({ name, byteLength }) => ({ name, byteLength })),
  );
  await checkMemory(image, restorable.machine.blocks, machine.memory);
  const description = await image.readAttachment("vmdescription");
  assert.deepEqual(
    JSON.parse(Buffer.from(description).toString()),
    JSON.parse(descriptionOf(machine).toString()),
  );
  await image.close();
}

test("a stream of QEMU 7.2 becomes an image with its memory, its devices and its blocks", async () => {
  const stream = gunzipSync(readFileSync(RECORDED));
  const store = new MemoryStore();
  await importStream(store, "vm", fileOf(stream), { notes: { why: "test" } });
  const image = await openImageIn(store, "vm");
  const { machine, devices } = await readMachine(image);
  assert.equal(machine.machine, "microvm");
  await checkMemory(image, machine.blocks, memoryOf(readAll(stream, () => 65536)));
  const event = readAll(stream, () => 65536).find(({ kind }) => kind === "devices");
  assert.deepEqual(Buffer.from(devices), Buffer.from(event?.kind === "devices" ? event.bytes : []));
  const { "qemu.machine": name, "qemu.saved": saved, why } = image.manifest.notes;
  assert.deepEqual({ name, saved, why }, { name: "microvm", saved: "file", why: "test" });
  const [ram] = sourceBlocks(image, machine, new Map([["microvm.ram", 2 ** 21]]));
  assert.deepEqual(ram, { name: "microvm.ram", byteLength: 2 ** 21, pageSize: 2 ** 21, firstPage: 0 });
  await image.close();
});

test("any machine, however it was saved, is imported with the last copy of each page", async (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  for (let round = 0; round < 40; round++) {
    const machine = randomMachine(random, 200);
    const isLive = random.below(2) === 0;
    const stream = streamOf(machine, random, { isLive, isBackground: random.below(3) === 0 });
    const store = new MemoryStore();
    await importStream(store, "vm", fileOf(stream), { chunkBytes: 4096 << random.below(6) });
    await check(store, machine);
  }
});

/** A file as QEMU 9 writes it with mapped-ram: a bitmap and a place for each page of each block. */
function mappedStream(
  machine: TestMachine,
  random: Random,
  options: { isCut?: boolean; multifd?: boolean } = {},
) {
  const head = new StreamWriter().header().configuration(machine.name);
  head.verbatim(
    Buffer.from("\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\0\x01\x0amapped-ram", "latin1"),
  );
  const total = machine.blocks.reduce((sum, { byteLength }) => sum + byteLength, 0);
  head.sectionStart(SECTION_ID, "ram", 0, 4);
  const sizes = Buffer.alloc(8);
  sizes.writeBigUInt64BE(BigInt(total + 4));
  let file = concat(head.take(), sizes);
  for (const [index, { name, byteLength }] of machine.blocks.entries()) {
    const pages = byteLength / PAGE;
    const bitmap = new Uint8Array(Math.ceil(pages / 64) * 8);
    const memory = Uint8Array.from(machine.memory[index]!);
    for (let page = 0; page < pages; page++) {
      if (!isZero(pageOf(memory, page))) bitmap[page >> 3]! |= 1 << (page & 7);
      // What was there before it became zeros is in the file still.
      else if (random.below(2) === 0) memory.fill(0xee, page * PAGE, (page + 1) * PAGE);
    }
    const entry = Buffer.alloc(8 + 28);
    entry.writeBigUInt64BE(BigInt(byteLength), 0);
    const bitmapOffset = file.byteLength + 1 + name.length + entry.byteLength;
    const pagesOffset = Math.ceil((bitmapOffset + bitmap.byteLength) / 2 ** 20) * 2 ** 20;
    entry.writeUInt32BE(1, 8);
    entry.writeBigUInt64BE(4096n, 12);
    entry.writeBigUInt64BE(BigInt(bitmapOffset), 20);
    entry.writeBigUInt64BE(BigInt(pagesOffset), 28);
    const gap = Buffer.alloc(pagesOffset - bitmapOffset - bitmap.byteLength);
    file = concat(file, Buffer.from([name.length]), Buffer.from(name), entry, bitmap, gap, memory);
  }
  const flush = Buffer.from([0, 0, 0, 0, 0, 0, 2, 0]);
  const tail = new StreamWriter().endOfRecords().footer(SECTION_ID).sectionPart(SECTION_ID);
  if (options.multifd) tail.verbatim(flush);
  tail.endOfRecords().footer(SECTION_ID).sectionFinish(SECTION_ID).endOfRecords().footer(SECTION_ID);
  tail.verbatim(devicesOf(machine)).end().description(descriptionOf(machine));
  return concat(file, tail.take());
}

test("a file with mapped-ram is read by its bitmaps, written by one channel or several", async (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  for (const multifd of [false, true]) {
    const machine = randomMachine(random, 300);
    const store = new MemoryStore();
    await importStream(store, "vm", fileOf(mappedStream(machine, random, { multifd })));
    await check(store, machine);
  }
});

test("a file that is cut anywhere is refused, and the store stays as it was", async () => {
  const random = new Random(31);
  const machine = randomMachine(random, 20);
  const store = new MemoryStore();
  await importStream(store, "vm", fileOf(streamOf(machine, random)));
  const before = new Map(store.objects);
  for (const stream of [streamOf(machine, random, { isLive: true }), mappedStream(machine, random)]) {
    const path = fileOf(stream, "cut.qemu");
    for (let cuts = 0; cuts < 60; cuts++) {
      // From the end backwards: each is a little shorter, in steps that meet every part.
      const length = stream.byteLength - 1 - Math.floor((stream.byteLength - 1) * (cuts / 60) ** 2);
      truncateSync(path, length);
      await assert.rejects(
        importStream(store, "vm", path),
        (thrown: unknown) =>
          thrown instanceof MinorfaultError &&
          thrown.code === "ERR_SOURCE_SHORT" &&
          thrown.message.includes(`offset ${length} `),
        `cut at ${length}`,
      );
    }
  }
  assert.deepEqual(store.objects, before);
  await check(store, machine);
});

test("a file that is damaged anywhere gives an image or an error of the catalogue, never anything else", async (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  const machine = randomMachine(random, 4);
  const stream = streamOf(machine, random, { isLive: true });
  for (let round = 0; round < 150; round++) {
    const damaged = Uint8Array.from(stream);
    for (let times = 0; times <= random.below(3); times++)
      damaged[random.below(stream.byteLength)] = random.uint32();
    const store = new MemoryStore();
    try {
      await importStream(store, "vm", fileOf(damaged));
    } catch (thrown) {
      assert.ok(thrown instanceof MinorfaultError && thrown.kind !== "bug", String(thrown));
      assert.equal(store.objects.size, 0, "nothing is left in the store");
    }
  }
});

test("names of blocks become names of regions and lead back", () => {
  for (const name of [
    "pc.ram",
    "/rom@etc/acpi/tables",
    "0000:00:02.0/virtio-net-pci.rom",
    "_5f",
    "-m",
    ".x",
    "grün",
  ]) {
    assert.match(regionNameOf(name), /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/);
    assert.equal(blockNameOf(regionNameOf(name)), name);
  }
  assert.throws(() => regionNameOf("/".repeat(60)), /no region can have/);
});

test("an image of something else is not a machine", async () => {
  const random = new Random(1);
  const machine = randomMachine(random, 5);
  const store = new MemoryStore();
  await importStream(store, "vm", fileOf(streamOf(machine, random)));
  const image = await openImageIn(store, "vm");
  const other = Object.create(image, {
    manifest: { value: { ...image.manifest, attachments: [] } },
  }) as Image;
  await assert.rejects(readMachine(other), /not an image of a QEMU machine/);
  await image.close();
});
