// What the profile of Linux 4.3 answers otherwise (spec, 3.6), and who may open a userfaultfd.

import assert from "node:assert/strict";
import { test } from "node:test";
import { UFFDIO } from "../../src/abi/userfaultfd.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import { Machine, PAGE, value } from "./machine.ts";

const old = () => new Machine({ profile: "linux-4.3" });
const EINVAL = 22;

test("4.3 knows no features, and a second handshake does not look at its argument", () => {
  const machine = old();
  const uffd = new Ioctls(machine.process, machine.process.call("userfaultfd", 0x800));
  assert.deepEqual(uffd.api(1n), { errno: EINVAL, api: 0n, features: 0n, ioctls: 0n });
  assert.deepEqual(uffd.api(0), { errno: 0, api: 0xaan, features: 0n, ioctls: 0x8000000000000003n });
  assert.deepEqual(uffd.api(5n), { errno: EINVAL, api: 0xaan, features: 5n, ioctls: 0n });
});

test("4.3 registers private anonymous memory for missing pages, and nothing else", () => {
  const machine = old();
  const start = machine.map(4);
  const shared = machine.map(4, true);
  const uffd = machine.open();
  assert.equal(uffd.register(start, PAGE, 2).errno, EINVAL);
  assert.equal(uffd.register(shared, PAGE, 1).errno, EINVAL);
  assert.deepEqual(uffd.register(start, 4 * PAGE, 1), { errno: 0, ioctls: 0x1cn });
  // Nothing mapped at or above: ENOMEM; below something that is mapped: EINVAL.
  assert.equal(uffd.register(0x7ff000000000, PAGE, 1).errno, 12);
  assert.equal(uffd.register(0x10000000, PAGE, 1).errno, EINVAL);
});

test("4.3 answers a fill of unregistered memory with EINVAL, and has no later ioctl", () => {
  const machine = old();
  const start = machine.map(4);
  const uffd = machine.open();
  assert.equal(uffd.copy(start, machine.bytes(1), PAGE, 0).errno, EINVAL);
  uffd.register(start, 4 * PAGE, 1);
  assert.equal(uffd.copy(start, machine.bytes(1), PAGE, 2).errno, EINVAL);
  for (const request of [UFFDIO.WRITEPROTECT, UFFDIO.CONTINUE, UFFDIO.POISON, UFFDIO.MOVE]) {
    assert.equal(machine.process.ioctl(uffd.fd, request, machine.process.scratch.address), -EINVAL);
  }
});

test("4.3 tells the exact address, and UNREGISTER wakes nobody", () => {
  const machine = old();
  const start = machine.map(1);
  const uffd = machine.open();
  uffd.register(start, PAGE, 1);
  const thread = machine.load(start + 0x123);
  const [message] = uffd.read(1).messages;
  assert.deepEqual(message, { event: "pagefault", flags: 0, address: start + 0x123, ptid: 0 });
  uffd.unregister(start, PAGE);
  assert.equal(thread.state, "blocked");
  uffd.wake(start, PAGE);
  assert.equal(value(thread.ending), 0);
});

test("4.3 lets everybody open, and looks at the descriptor table before the flags", () => {
  const machine = new Machine({ profile: "linux-4.3", privileged: false });
  const { process } = machine;
  assert.equal(process.call("userfaultfd", 1), -EINVAL);
  assert.ok(process.call("userfaultfd", 0) >= 0);
  process.descriptors.limit = 4;
  assert.equal(process.call("userfaultfd", 2), -24);
  const today = new Machine({ privileged: false });
  assert.equal(today.process.call("userfaultfd", 0), -1);
  today.process.descriptors.limit = 3;
  assert.equal(today.process.call("userfaultfd", 3), -EINVAL);
});

test("under 4.3 a descriptor keeps the memory of an ended process alive", () => {
  const machine = old();
  const start = machine.map(1);
  const uffd = machine.open();
  uffd.register(start, PAGE, 1);
  const heir = machine.process.fork().child()!;
  machine.process.kill();
  const inherited = new Ioctls(heir, uffd.fd);
  assert.equal(inherited.zeropage(start, PAGE, 0).bytes, PAGE);
  heir.kill();
  assert.equal(machine.system.pool.used, 0);
});

test("without the sysctl only privileged processes may see kernel-mode faults", () => {
  const allowed = new Machine({ privileged: false, unprivilegedUserfaultfd: true });
  assert.ok(allowed.process.call("userfaultfd", 0) >= 0);
  const denied = new Machine({ privileged: false });
  assert.equal(denied.process.call("userfaultfd", 0), -1);
  assert.ok(denied.process.call("userfaultfd", 1) >= 0);
});
