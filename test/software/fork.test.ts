// Forks: copy on write, what is inherited, EVENT_FORK, and that every family gives all its memory back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MADV } from "../../src/abi/memory.ts";
import { UFFD_FEATURE } from "../../src/abi/userfaultfd.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import type { SoftwareProcess } from "../../src/uffd/software/index.ts";
import { Machine, PAGE, random, seed, value } from "./machine.ts";

function fork({ process }: Machine): Machine {
  const child = process.fork().child();
  assert.ok(child !== undefined);
  return new Machine(undefined, child as SoftwareProcess);
}

const peek = (machine: Machine, address: number): number => value(machine.load(address).ending);

test("parent and child share pages until one of them writes", () => {
  const parent = new Machine();
  const start = parent.map(2);
  parent.store(start, 1);
  parent.store(start + PAGE, 2);
  const used = parent.system.pool.used;
  const child = fork(parent);
  assert.equal(parent.system.pool.used, used);
  child.store(start, 11);
  assert.equal(parent.system.pool.used, used + 1);
  assert.deepEqual([peek(parent, start), peek(child, start)], [1, 11]);
  parent.store(start + PAGE, 22);
  assert.deepEqual([peek(parent, start + PAGE), peek(child, start + PAGE)], [22, 2]);
  child.process.kill();
  // The child's end leaves the parent as the only user: its write needs no copy.
  const after = parent.system.pool.used;
  parent.store(start, 111);
  assert.equal(parent.system.pool.used, after);
});

test("shared memory stays shared, private memory of DONTFORK is not there", () => {
  const parent = new Machine();
  const shared = parent.map(1, true);
  const hidden = parent.map(1);
  parent.process.call("madvise", hidden, PAGE, MADV.DONTFORK);
  const child = fork(parent);
  child.store(shared, 9);
  assert.equal(peek(parent, shared), 9);
  assert.equal(child.load(hidden).ending?.kind, "signal");
});

test("a page shared by a fork can be moved only after it was written, even if the child has gone", () => {
  const parent = new Machine();
  const [target, source] = [parent.map(2), parent.map(2)];
  const uffd = parent.open();
  uffd.register(target, 2 * PAGE, 1);
  parent.store(source, 5);
  fork(parent).process.kill();
  assert.equal(uffd.move(target, source, PAGE, 0).errno, 16);
  parent.store(source, 6);
  assert.equal(uffd.move(target, source, PAGE, 0).bytes, PAGE);
  assert.equal(peek(parent, target), 6);
});

test("EVENT_FORK holds the parent until it is read, and the child's faults come on the new descriptor", () => {
  const parent = new Machine();
  const start = parent.map(2);
  const uffd = parent.open(UFFD_FEATURE.EVENT_FORK);
  uffd.register(start, 2 * PAGE, 1);
  const { thread, child } = parent.process.fork();
  assert.deepEqual([thread.state, child()], ["blocked", undefined]);
  const [message] = uffd.read(4).messages;
  assert.equal(message?.event, "fork");
  const process = child();
  assert.ok(process !== undefined);
  assert.equal(value(thread.ending), process.pid);
  const reader = process.spawnThread();
  reader.start({ kind: "load", address: start, size: 1 });
  assert.equal(reader.state, "blocked");
  assert.equal(uffd.read(4).messages.length, 0);
});

test("a fork that is killed while it waits leaves nothing behind", () => {
  const parent = new Machine();
  const start = parent.map(2);
  const uffd = parent.open(UFFD_FEATURE.EVENT_FORK);
  uffd.register(start, 2 * PAGE, 1);
  uffd.zeropage(start, PAGE, 0);
  parent.store(start, 1);
  const { child } = parent.process.fork();
  parent.process.kill();
  assert.equal(child(), undefined);
  assert.equal(parent.system.pool.used, 0);
});

test("a process serves another's memory with a descriptor that it took by pidfd_getfd", () => {
  const guest = new Machine();
  const start = guest.map(2);
  const uffd = guest.open();
  uffd.register(start, 2 * PAGE, 1);
  const pager = new Machine(undefined, guest.system.spawnProcess());
  const pidfd = pager.process.call("pidfd_open", guest.process.pid, 0);
  const taken = new Ioctls(pager.process, pager.process.call("pidfd_getfd", pidfd, uffd.fd, 0));
  const thread = guest.load(start + PAGE);
  const [message] = taken.read(4).messages;
  assert.deepEqual(message, { event: "pagefault", flags: 0, address: start + PAGE, ptid: 0 });
  assert.equal(taken.copy(start + PAGE, pager.bytes(42), PAGE, 0).bytes, PAGE);
  assert.equal(value(thread.ending), 42);
  guest.process.kill();
  assert.equal(taken.zeropage(start, PAGE, 0).errno, 3);
  assert.equal(pager.process.call("pidfd_getfd", pidfd, uffd.fd, 0), -3);
});

test("a random family of processes sees its own bytes, and gives all memory back", (t) => {
  const begin = seed();
  t.diagnostic(`seed ${begin}`);
  const next = random(begin);
  const first = new Machine();
  const pages = 6;
  const start = first.map(pages);
  const family = [{ machine: first, bytes: new Array<number>(pages).fill(0) }];
  for (let step = 0; step < 2000; step++) {
    const member = family[next(family.length)]!;
    const page = next(pages);
    const address = start + page * PAGE + next(PAGE);
    const kind = next(20);
    if (kind === 0 && family.length < 6) {
      family.push({ machine: fork(member.machine), bytes: [...member.bytes] });
    } else if (kind === 1 && family.length > 1) {
      member.machine.process.kill();
      family.splice(family.indexOf(member), 1);
    } else if (kind < 4) {
      member.machine.process.call("madvise", start + page * PAGE, PAGE, MADV.DONTNEED);
      member.bytes[page] = 0;
    } else if (kind < 12) {
      const byte = next(256);
      for (let at = 0; at < PAGE; at += 512) member.machine.store(start + page * PAGE + at, byte);
      member.bytes[page] = byte;
    } else {
      const at = address - (address % 512);
      assert.equal(peek(member.machine, at), member.bytes[page], `seed ${begin}, step ${step}`);
    }
  }
  for (const { machine } of family) machine.process.kill();
  assert.equal(first.system.pool.used, 0, `seed ${begin}: frames are left`);
});
