// The page of the format says what is stored, byte for byte, and a reader in another language that knows nothing but
// the page reads what we write.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Random } from "../../src/base/random.ts";
import { buildImage } from "../../src/image/index.ts";
import { FolderStore, MemorySource } from "../../src/source/index.ts";
import { PAGE, scribble, seedOf, sparseBytes } from "./content.ts";
import { exampleBlocks } from "./format-example.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "minorfault-format-"));
after(() => rmSync(folder, { recursive: true, force: true }));

test("docs/image-format.md shows the example as it is stored", async () => {
  const page = readFileSync(join(root, "docs", "image-format.md"), "utf8");
  for (const [title, block] of await exampleBlocks()) {
    assert.ok(page.includes(`\n${block}\n`), `the ${title} of the page is not:\n${block}`);
  }
});

test("the numbers of the page are those of the source", async () => {
  const page = readFileSync(join(root, "docs", "image-format.md"), "utf8");
  const limits = (await import("../../src/image/limits.js")) as Record<string, unknown>;
  const rows = [...page.matchAll(/^\| `([A-Z_]+)` \| ([\d,]+) \|/gm)];
  assert.ok(rows.length >= 10);
  for (const [, name = "", number = ""] of rows) {
    assert.equal(limits[name], Number(number.replaceAll(",", "")), name);
  }
});

test("a reader in Python that knows only the page reads an image and its child", (t) => {
  const program = join(root, "test", "image", "fixtures", "read_image.py");
  if (spawnSync("python3", ["--version"]).error !== undefined) return t.skip("python3 is not here");
  const seed = seedOf();
  t.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  const bytes = sparseBytes(random, 1500 * PAGE);
  const store = new FolderStore(folder);
  const options = (content: Uint8Array) => ({
    regions: [{ name: "ram", source: new MemorySource(content) }],
    chunkBytes: PAGE,
    codec: "none" as const,
  });
  const check = (name: string, expected: Uint8Array) => {
    const run = spawnSync("python3", [program, folder, name], { maxBuffer: 64 * 2 ** 20 });
    assert.equal(run.status, 0, run.stderr.toString());
    assert.equal(Buffer.compare(run.stdout, expected), 0, name);
  };
  return (async () => {
    await buildImage(store, "a", options(bytes));
    check("a", bytes);
    const changed = bytes.slice();
    scribble(random, changed, 5);
    await buildImage(store, "b", { ...options(changed), parent: "a" });
    check("b", changed);
  })();
});
