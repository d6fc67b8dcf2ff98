// A userfaultfd that travels over a unix socket, and what is refused there.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { kernelRefusal } from "../../src/guest/system.ts";
import { close, local, mapMemory, memfd, send, socketPair } from "../../src/linux/index.ts";
import { receiveUserfaultfd, sendUserfaultfd } from "../../src/uffd/hand-over.ts";
import { openUserfaultfd } from "../../src/uffd/open.ts";

const skip = kernelRefusal() ?? false;
const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

test("a userfaultfd that was handed over acts on the memory of the process that made it", { skip }, () => {
  const [ours, theirs] = socketPair(local);
  const memory = mapMemory(2 * PAGE_SIZE);
  const made = openUserfaultfd("kernel", local);
  made.register(memory.address, 2 * PAGE_SIZE, { missing: true });
  sendUserfaultfd(local, ours, made);
  const taken = receiveUserfaultfd(local, theirs);
  assert.ok(taken !== undefined);
  assert.equal(taken.features, made.features);
  const page = taken.staging(PAGE_SIZE);
  page.bytes.fill(9);
  // The maker's own reference is gone; the one that travelled holds the context.
  made.close();
  assert.equal(taken.copy(memory.address, page.address, PAGE_SIZE).bytes, PAGE_SIZE);
  assert.equal(memory.bytes[5], 9);
  taken.close();
  memory.close();
  for (const fd of [ours, theirs]) close(local, fd);
});

test("what is not one userfaultfd with its message is refused, and no descriptor is left", { skip }, () => {
  const [ours, theirs] = socketPair(local);
  const text = new TextEncoder();
  const good = text.encode('{"features":"0x1ffff"}\n');
  const other = memfd(local, "other", PAGE_SIZE);
  const uffd = openUserfaultfd("kernel", local);
  const before = openDescriptors();
  for (const [bytes, descriptors] of [
    [good, []],
    [good, [other]],
    [good, [uffd.fd, uffd.fd]],
    [text.encode("{}"), [uffd.fd]],
    [text.encode('{"features":"0x11111111111111111"}\n'), [uffd.fd]],
    [text.encode("x".repeat(300)), [uffd.fd]],
  ] as const) {
    send(local, ours, bytes, descriptors);
    assert.throws(() => receiveUserfaultfd(local, theirs), { code: "ERR_BAD_MESSAGE" });
    // What was too long is still in the stream: a real taker hangs up here.
    if (bytes.byteLength > 256) assert.throws(() => receiveUserfaultfd(local, theirs));
    assert.equal(openDescriptors(), before);
  }
  uffd.close();
  for (const fd of [ours, theirs, other]) close(local, fd);
});
