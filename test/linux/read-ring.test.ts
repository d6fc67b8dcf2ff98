// Reads that the system makes beside the caller, against those that the caller makes.

import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ERRNO } from "../../src/abi/errno.ts";
import { local, ReadRing } from "../../src/linux/index.ts";

const PAGE = 4096;
const SLOTS = 8;

const probe = ReadRing.open(1);
probe?.close();
const skip = probe === undefined ? "io_uring is not to be had here" : false;

/** A file whose pages begin with their numbers, memory for a page a slot, and a ring. */
function scene(context: TestContext, pages: number) {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-ring-"));
  const bytes = Buffer.alloc(pages * PAGE);
  for (let page = 0; page < pages; page++) bytes.writeUInt32LE(page + 1, page * PAGE);
  writeFileSync(join(folder, "file"), bytes);
  const fd = openSync(join(folder, "file"), "r");
  const memory = local.share(SLOTS * PAGE);
  const ring = ReadRing.open(SLOTS)!;
  context.after(() => {
    closeSync(fd);
    memory.close();
    rmSync(folder, { recursive: true });
  });
  const begin = (slot: number, page: number): void =>
    ring.begin(slot, fd, memory.address + slot * PAGE, PAGE, page * PAGE);
  return { ring, fd, memory, begin, number: (slot: number) => memory.view.getUint32(slot * PAGE, true) };
}

test("every slot reads its own bytes, many times over, in whatever order they are finished", {
  skip,
}, (t) => {
  const pages = 64 * SLOTS;
  const { ring, begin, number } = scene(t, pages);
  t.after(() => ring.close());
  for (let round = 0; round < pages / SLOTS; round++) {
    for (let slot = 0; slot < SLOTS; slot++) begin(slot, round * SLOTS + slot);
    for (let step = 0; step < SLOTS; step++) {
      const slot = (step * 3 + round) % SLOTS;
      assert.ok(ring.isBegun(slot));
      assert.equal(ring.finish(slot), PAGE);
      assert.ok(!ring.isBegun(slot));
      assert.equal(number(slot), round * SLOTS + slot + 1);
    }
  }
});

test("the end of a file is a short read, and what can't be read answers an errno", { skip }, (t) => {
  const { ring, fd, memory, begin } = scene(t, 3);
  t.after(() => ring.close());
  begin(0, 3);
  assert.equal(ring.finish(0), 0);
  ring.begin(1, fd, memory.address, PAGE, 2 * PAGE + 100);
  assert.equal(ring.finish(1), PAGE - 100);
  ring.begin(2, -1, memory.address, PAGE, 0);
  assert.equal(ring.finish(2), -ERRNO.EBADF);
});

test("closing waits for what is being read", { skip }, (t) => {
  const { ring, begin, number } = scene(t, SLOTS);
  for (let slot = 0; slot < SLOTS; slot++) begin(slot, slot);
  ring.close();
  for (let slot = 0; slot < SLOTS; slot++) assert.equal(number(slot), slot + 1);
});
