// VMAs: splitting and merging, by hand and against a model of single pages.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MADV, PROT } from "../../src/abi/memory.ts";
import { Machine, PAGE, random, seed } from "./machine.ts";

const RW = PROT.READ | PROT.WRITE;

/** The ranges of [start, start + pages) in pages, with their protection. */
function ranges({ process }: Machine, start: number, pages: number): string {
  return process.space.vmas
    .overlapping(start, start + pages * PAGE)
    .map(
      (vma) =>
        `${(vma.start - start) / PAGE}-${(vma.end - start) / PAGE}:${vma.prot}${vma.modes > 0 ? "r" : ""}`,
    )
    .join(" ");
}

test("protecting a part splits a VMA in three, and undoing it makes it one again", () => {
  const machine = new Machine();
  const start = machine.map(8);
  machine.process.call("mprotect", start + 2 * PAGE, 3 * PAGE, PROT.READ);
  assert.equal(ranges(machine, start, 8), "0-2:3 2-5:1 5-8:3");
  machine.process.call("mprotect", start + 2 * PAGE, 3 * PAGE, RW);
  assert.equal(ranges(machine, start, 8), "0-8:3");
});

test("registering a part splits a VMA, and unregistering it makes it one again", () => {
  const machine = new Machine();
  const start = machine.map(8);
  const uffd = machine.open();
  assert.equal(uffd.register(start + PAGE, 2 * PAGE, 1).errno, 0);
  assert.equal(ranges(machine, start, 8), "0-1:3 1-3:3r 3-8:3");
  assert.equal(uffd.register(start + 3 * PAGE, 5 * PAGE, 1).errno, 0);
  assert.equal(ranges(machine, start, 8), "0-1:3 1-8:3r");
  assert.equal(uffd.unregister(start, 8 * PAGE).errno, 0);
  assert.equal(ranges(machine, start, 8), "0-8:3");
});

test("memory with private pages of different origin stays apart", () => {
  const machine = new Machine();
  const { process } = machine;
  const start = machine.map(8);
  process.call("munmap", start + 4 * PAGE, PAGE);
  machine.store(start, 1);
  machine.store(start + 7 * PAGE, 1);
  assert.equal(process.call("mmap", start + 4 * PAGE, PAGE, RW, 0x32, -1, 0), start + 4 * PAGE);
  // The hole's filling joins one side only: each side has a group of its own.
  assert.equal(ranges(machine, start, 8), "0-5:3 5-8:3");
});

test("random mappings and protections leave what a page by page model says", (t) => {
  const begin = seed();
  t.diagnostic(`seed ${begin}`);
  const next = random(begin);
  const machine = new Machine();
  const { process } = machine;
  const pages = 24;
  const start = machine.map(pages);
  const model: (number | undefined)[] = new Array<number | undefined>(pages).fill(RW);
  for (let step = 0; step < 3000; step++) {
    const from = next(pages);
    const length = 1 + next(pages - from);
    const address = start + from * PAGE;
    const prot = [PROT.NONE, PROT.READ, RW][next(3)]!;
    const mapped = model.slice(from, from + length);
    switch (next(4)) {
      case 0:
        process.call("munmap", address, length * PAGE);
        model.fill(undefined, from, from + length);
        break;
      case 1:
        process.call("mmap", address, length * PAGE, prot, 0x32, -1, 0);
        model.fill(prot, from, from + length);
        break;
      case 2: {
        const hole = mapped.indexOf(undefined);
        const result = process.call("mprotect", address, length * PAGE, prot);
        assert.equal(result, hole < 0 ? 0 : -12, `seed ${begin}, step ${step}`);
        // What comes before the hole has its new protection.
        model.fill(prot, from, from + (hole < 0 ? length : hole));
        break;
      }
      default:
        process.call("madvise", address, length * PAGE, MADV.DONTNEED);
    }
    const found = model.map((_, page) => process.space.vmas.at(start + page * PAGE)?.prot);
    assert.deepEqual(found, model, `seed ${begin}, step ${step}`);
    const vmas = process.space.vmas.overlapping(start, start + pages * PAGE);
    for (const [index, vma] of vmas.slice(1).entries()) {
      assert.ok(vmas[index]!.end <= vma.start, `seed ${begin}, step ${step}: overlap`);
      assert.ok(!vmas[index]!.continuesIn(vma), `seed ${begin}, step ${step}: not merged`);
    }
  }
});

test("mmap without a wish takes the highest gap that is large enough", () => {
  const machine = new Machine();
  const first = machine.map(4);
  const second = machine.map(4);
  assert.equal(second, first - 4 * PAGE);
  machine.process.call("munmap", first + PAGE, 2 * PAGE);
  assert.equal(machine.map(2), first + PAGE);
  assert.equal(machine.map(3), second - 3 * PAGE);
});
