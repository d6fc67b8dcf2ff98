// Many copies in one step, against memory of this process under a userfaultfd of its own.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { local, mapMemory } from "../../src/linux/index.ts";
import { COPIES_MAX, CopyList } from "../../src/pager/copy-list.ts";
import { openUserfaultfd } from "../../src/uffd/open.ts";
import { skipUnlessBareProcess as skip } from "../linux/host.ts";

/** Memory under a userfaultfd, bytes for it, and how to add the copy of one page to a list. */
function stage(pages: number) {
  const uffd = openUserfaultfd("kernel", local);
  const memory = mapMemory(pages * PAGE_SIZE);
  const source = mapMemory(pages * PAGE_SIZE);
  for (let page = 0; page < pages; page++)
    source.bytes.fill(page + 1, page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  uffd.register(memory.address, pages * PAGE_SIZE, { missing: true });
  const list = new CopyList();
  const add = (page: number): void =>
    list.add(uffd.fd, memory.address + page * PAGE_SIZE, source.address + page * PAGE_SIZE, PAGE_SIZE);
  const close = (): void => {
    uffd.close();
    memory.close();
    source.close();
  };
  return { memory, list, add, close };
}

test("all copies of a list are made, and only those of this list", { skip }, (t) => {
  const { memory, list, add, close } = stage(COPIES_MAX + 3);
  t.after(close);
  for (let page = 0; page < COPIES_MAX; page++) {
    assert.equal(list.isFull, false);
    add(COPIES_MAX - 1 - page);
  }
  assert.equal(list.isFull, true);
  assert.equal(list.run(), COPIES_MAX);
  add(COPIES_MAX + 1);
  assert.equal(list.run(), 1);
  assert.equal(list.run(), 0);
  for (let page = 0; page < COPIES_MAX; page++) assert.equal(memory.bytes[page * PAGE_SIZE], page + 1);
  assert.equal(memory.bytes[(COPIES_MAX + 1) * PAGE_SIZE], COPIES_MAX + 2);
});

test("a list ends at the first copy that fails, and says how far it came", { skip }, (t) => {
  const { memory, list, add, close } = stage(4);
  t.after(close);
  add(2);
  assert.equal(list.run(), 1);
  for (const page of [0, 2, 1]) add(page);
  assert.equal(list.run(), 1, "page 2 is there already");
  add(1);
  add(3);
  assert.equal(list.run(), 2, "page 1 was not copied by the list that failed");
  assert.deepEqual(
    [0, 1, 2, 3].map((page) => memory.bytes[page * PAGE_SIZE]),
    [1, 2, 3, 4],
  );
});
