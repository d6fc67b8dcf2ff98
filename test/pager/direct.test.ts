// What a serving thread reads of a local source, and that nothing is left of it.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { buildImage } from "../../src/image/index.ts";
import { local } from "../../src/linux/index.ts";
import { DirectUnits } from "../../src/pager/fetch/direct.ts";
import { openUnits } from "../../src/pager/fetch/opened-source.ts";
import { MemorySource, openStore } from "../../src/source/index.ts";

const UNIT_BYTES = 64 * 1024;

function descriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

async function folderFor(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "minorfault-direct-"));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

async function imageIn(folder: string): Promise<string> {
  const store = await openStore(folder);
  const source = new MemorySource(new Uint8Array(4 * UNIT_BYTES).fill(7));
  await buildImage(store, "one", { regions: [{ name: "ram", source }] });
  return `${store.url}/one`;
}

async function rawIn(folder: string): Promise<string> {
  const path = join(folder, "raw");
  await writeFile(path, new Uint8Array(4 * UNIT_BYTES).fill(7));
  return path;
}

for (const [what, make] of [
  ["an image", imageIn],
  ["a raw file", rawIn],
] as const) {
  test(`${what} that is closed is so at once: no descriptor, and its memory is the next one's`, async (t) => {
    const url = await make(await folderFor(t));
    const asked = await openUnits({ url }, 1);
    const { identity, unitBytes } = asked;
    await asked.close();
    const panes = local.share(UNIT_BYTES);
    t.after(() => panes.close());
    const before = descriptors();
    const addresses = new Set<number>();
    // No `await` in here: a thread that serves never comes to what is after one.
    for (let time = 0; time < 10; time++) {
      const direct = new DirectUnits({ source: { url }, unitBytes, identity, paneStaging: panes.address });
      if (time & 1) direct.prepare();
      assert.ok((direct.read(0, 1, 0) ?? 0) > 0, "a unit was read");
      assert.ok(descriptors() > before, "it reads by a descriptor of its own");
      addresses.add(direct.address);
      direct.close();
      direct.close();
      assert.equal(direct.read(0, 1, 0), undefined, "nothing is opened again");
    }
    assert.equal(descriptors(), before);
    assert.equal(addresses.size, 1);
  });
}
