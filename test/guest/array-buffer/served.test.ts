// Memories of Node programs that a page server fills: they are right, whoever of the server's processes dies, and the server
// forgets them when they are closed.

import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PAGE_SIZE } from "../../../src/abi/memory.ts";
import { open } from "../../../src/guest/array-buffer/index.ts";
import { Stand } from "../../daemon/stand.ts";
import { skipUnlessUserfaultfd } from "../../linux/host.ts";

const skip = skipUnlessUserfaultfd;
const PAGES = 512;
let stand: Stand;
before(async () => {
  if (skip === false) stand = await Stand.open({ pages: PAGES });
});
after(() => stand?.close());

test("a memory is filled by a server, whose pager dies meanwhile", { skip }, async () => {
  const right = readFileSync(stand.imagePath);
  const memory = await open(stand.imagePath, { server: stand.socket });
  assert.equal(memory.how, "userfaultfd");
  const bytes = Buffer.from(memory.buffer);
  const half = (PAGES / 2) * PAGE_SIZE;
  assert.ok(bytes.subarray(0, half / 2).equals(right.subarray(0, half / 2)));
  await stand.killPager();
  assert.ok(bytes.subarray(half / 2, half).equals(right.subarray(half / 2, half)));
  await memory.prefetch(half, half);
  assert.equal(memory.resident().pages, PAGES);
  assert.ok(bytes.equals(right));
  const ended = stand.count("ended");
  await memory.close();
  await stand.until(() => stand.count("ended") > ended, "the end of the guest");
  assert.equal(stand.last("ended")?.reason, "exited");
  await stand.untilSpare();
});

test("what is written to a private memory stays there", { skip }, async () => {
  await using memory = await open(stand.imagePath, { server: stand.socket, mode: "private" });
  const words = new Uint32Array(memory.buffer);
  const before = words[1024]!;
  words[1025] = 7;
  assert.equal(words[1024], before);
  assert.equal(words[1025], 7);
});

test("a memory outlives the server that drains it", { skip }, async (t) => {
  const other = await Stand.open({ pages: 64 });
  t.after(() => other.close());
  const right = readFileSync(other.imagePath);
  await using memory = await open(other.imagePath, { server: other.socket });
  assert.equal(await other.stop(), 0);
  assert.ok(Buffer.from(memory.buffer).equals(right));
});

test("where no server is, and what it does not serve, is refused", { skip }, async () => {
  const nowhere = join(stand.folder, "nowhere.sock");
  await assert.rejects(open(stand.imagePath, { server: nowhere }), { code: "ERR_NO_SERVER" });
  const { socket: server, imagePath } = stand;
  await assert.rejects(open(imagePath, { server, budget: "8MiB" }), { code: "ERR_BAD_ARGUMENT" });
  await assert.rejects(open(imagePath, { server, mode: "write-back" }), { code: "ERR_BAD_ARGUMENT" });
  const small = await Stand.open({ pages: 16 });
  try {
    await assert.rejects(open(imagePath, { server: small.socket }), { code: "ERR_BAD_HAND_OVER" });
  } finally {
    await small.close();
    rmSync(small.folder, { recursive: true, force: true });
  }
});
