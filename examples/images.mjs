// Images: a memory is built, changed, built again as its child, compared, copied to another store, and read page by
// page with the pages that are needed first.
//
//   node examples/images.mjs

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  addWorkingSet,
  buildImage,
  copyImage,
  diffImages,
  openImage,
  openImageIn,
  verifyImage,
} from "minorfault/image";
import { MemorySource, openStore } from "minorfault/source";

const MIB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), "minorfault-example-"));
const store = await openStore(join(folder, "images"));

// A memory of 64 MiB, of which 1 MiB is not zeros.
const memory = new Uint8Array(64 * MIB);
for (let at = 0; at < MIB; at++) memory[8 * MIB + at] = at * 31;
const region = (changed) => ({ name: "ram", guestAddress: 0, source: new MemorySource(memory), ...changed });
const base = await buildImage(store, "base", { regions: [region()], notes: { made: "by an example" } });
console.log(
  `base: ${base.chunks.zero} chunks are zeros, ${base.chunks.stored} stored, ${base.chunks.known} were equal to one`,
);

// Some bytes change. Told where, the child is built without looking at the rest.
memory[9 * MIB - 1] = 77;
const changed = [{ start: 9 * MIB - 1, until: 9 * MIB }];
const child = await buildImage(store, "child", { regions: [region({ changed })], parent: "base" });
console.log(`child: ${child.contentBytes / 1024} KiB looked at, ${child.chunks.stored} chunk stored`);

// What a guest touches first is stored in that order, too.
await addWorkingSet(store, "child", "boot", [9 * MIB - 4096, 8 * MIB, 8 * MIB + 4096]);

// Another store gets the image, verified on the way.
const other = await openStore(join(folder, "other"));
await copyImage(store, "child", other);
console.log(`the copy is right: ${(await verifyImage(other, "child")).right}`);

const [before, after] = [await openImageIn(store, "base"), await openImageIn(other, "child")];
const { pages, ranges } = await diffImages(before, after);
console.log(`they differ in ${pages} page, at ${ranges.map(({ start }) => `${start / MIB} MiB`)}`);
await before.close();
await after.close();

const image = await openImage(join(folder, "other", "child"));
for await (const { offset, bytes } of image.readWorkingSet("boot")) {
  console.log(
    `first: ${bytes.byteLength / 4096} pages at ${offset / MIB} MiB, the last byte is ${bytes.at(-1)}`,
  );
}
await image.close();
await store.close();
await other.close();
rmSync(folder, { recursive: true });
