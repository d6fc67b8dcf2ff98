// Memory of this process that is gone through in order: huge pages are moved ahead of it, with the right bytes.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { open } from "../../src/index.ts";

const PAGE = 4096;
const HUGE = 512 * PAGE;
/** The last huge page is not whole. */
const BYTES = 40 * HUGE + 3 * PAGE + 100;

/** A file whose pages tell their numbers. */
function numberedFile(folder: string): string {
  const bytes = Buffer.alloc(BYTES);
  for (let at = 0; at + 4 <= BYTES; at += PAGE) bytes.writeUInt32LE(at / PAGE + 1, at);
  const path = join(folder, "file");
  writeFileSync(path, bytes);
  return path;
}

test("a walk in order faults seldom, and finds every page's own bytes; what it writes stays", async () => {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-huge-"));
  try {
    const memory = await open(numberedFile(folder), { mode: "private" });
    const words = new DataView(memory.buffer);
    // A page in the way of the walk, and one that is written to before.
    words.setUint32(38 * HUGE + 5 * PAGE, 77, true);
    for (let at = 0; at + 4 <= BYTES; at += PAGE) {
      const isWritten = at === 38 * HUGE + 5 * PAGE;
      assert.equal(words.getUint32(at, true), isWritten ? 77 : at / PAGE + 1);
      words.setUint32(at, 5, true);
    }
    for (let at = 0; at + 4 <= BYTES; at += PAGE) assert.equal(words.getUint32(at, true), 5);
    // In windows of 2 MiB alone it would be one for each, and some until they are as wide.
    assert.ok(memory.statistics().faults < 40, `${memory.statistics().faults} faults`);
    assert.equal(memory.resident().pages, Math.ceil(BYTES / PAGE));
    await memory.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a walk backwards and pages at random are brought as before", async () => {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-huge-"));
  try {
    const memory = await open(numberedFile(folder), { mode: "private" });
    const words = new DataView(memory.buffer);
    const pages = Math.floor(BYTES / PAGE);
    for (let step = 0; step < 500; step++) {
      const page = (step * 7919) % pages;
      assert.equal(words.getUint32(page * PAGE, true), page + 1);
    }
    for (let page = pages - 1; page >= 0; page--) assert.equal(words.getUint32(page * PAGE, true), page + 1);
    await memory.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
