// A Float32Array over an image that is larger than the memory it may use: it loads as it is touched.
//
//   node examples/array-buffer.mjs [image or file or URL]
//
// Without an argument it makes a file of 64 MiB and an image of it first (`minorfault image create` does the same).

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { open } from "minorfault";
import { buildImage, openRawFile } from "minorfault/image";
import { openStore } from "minorfault/source";

const folder = mkdtempSync(join(tmpdir(), "minorfault-example-"));
const [, , target = await makeImage()] = process.argv;
try {
  const memory = await open(target, { budget: "16MiB" });
  console.log(`${memory.byteLength / 2 ** 20} MiB by ${memory.how}: ${memory.why}`);
  const floats = new Float32Array(memory.buffer);

  console.log(
    `floats[1234567] is ${floats[1234567]}, and ${memory.resident().bytes / 1024} KiB are in memory`,
  );
  let sum = 0;
  for (const value of floats) sum += value;
  console.log(`their mean is ${sum / floats.length}`);
  const { bytes } = memory.resident();
  console.log(`after all of them at most 16 MiB are in memory: ${bytes <= 16 * 2 ** 20}`);
  await memory.close();
} finally {
  rmSync(folder, { recursive: true });
}

async function makeImage() {
  const file = join(folder, "floats.bin");
  writeFileSync(
    file,
    Float32Array.from({ length: 2 ** 24 }, (_, index) => index % 1000),
  );
  const store = await openStore(join(folder, "images"));
  const { source } = openRawFile(file);
  await buildImage(store, "floats", { regions: [{ name: "floats", source }], level: 1 });
  await source.close();
  await store.close();
  return join(folder, "images", "floats");
}
