// A machine of 4 MiB whose pages say which they are, and a destination that is none (fake-destination.ts) to restore it into.

import assert from "node:assert/strict";
import { join } from "node:path";
import {
  connectTo,
  machineAttachment,
  type RestoreOptions,
  restoreMachine,
  savedMachine,
} from "../../../src/guest/qemu/index.ts";
import { buildImage, openImage } from "../../../src/image/index.ts";
import type { ObjectStore, PageSource } from "../../../src/source/index.ts";
import { FakeDestination } from "./fake-destination.ts";

export const PAGE = 4096;
export const RAM_PAGES = 1024;
export const ROM_PAGES = 3;
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

export async function buildSmallMachine(store: ObjectStore, name: string): Promise<void> {
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
  await buildImage(store, name, {
    regions: [
      { name: "pc.ram", source: memory(ram()) },
      { name: "rom", source: memory(rom) },
    ],
    attachments: [machineAttachment(machine), { name: "device-state", bytes: Buffer.from("the devices") }],
  });
}

/** Restores an image of it into a destination whose socket lies in `folder`. */
export async function intoFake(
  folder: string,
  url: string,
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

export function assertWhole({ pages, repeated }: FakeDestination): void {
  assert.deepEqual(repeated, []);
  assert.equal(pages.size, RAM_PAGES + ROM_PAGES);
  for (let page = 0; page < RAM_PAGES; page++) assert.equal(pages.get(`pc.ram ${page}`), wordOf(page));
  for (let page = 0; page < ROM_PAGES; page++) assert.equal(pages.get(`/rom@etc ${page}`), 100_000 + page);
}
