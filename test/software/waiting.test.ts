// Who wakes whom, what signals and death do to those who wait, and calls that would wait for ever.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MADV } from "../../src/abi/memory.ts";
import { UFFD_FEATURE } from "../../src/abi/userfaultfd.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Machine, PAGE, value } from "./machine.ts";

const SIGUSR1 = 10;

function registered(pages: number, features: bigint | number = 0) {
  const machine = new Machine();
  const start = machine.map(pages);
  const uffd = machine.open(features);
  assert.equal(uffd.register(start, pages * PAGE, 1).errno, 0);
  return { machine, start, uffd };
}

test("a fill wakes who waits in it, of its own context, and nobody else", () => {
  const { machine, start, uffd } = registered(4);
  const [inside, beside] = [machine.load(start), machine.load(start + 2 * PAGE)];
  assert.deepEqual([inside.state, beside.state], ["blocked", "blocked"]);
  assert.equal(uffd.copy(start, machine.bytes(7, 2), 2 * PAGE, 0).bytes, 2 * PAGE);
  assert.equal(value(inside.ending), 7);
  assert.equal(beside.state, "blocked");
  // Another context may fill the page, but its wake does not reach the waiters of this one.
  const other = machine.open();
  assert.equal(other.zeropage(start + 2 * PAGE, PAGE, 0).bytes, PAGE);
  assert.equal(beside.state, "blocked");
  assert.equal(uffd.wake(start + 2 * PAGE, PAGE).errno, 0);
  assert.equal(value(beside.ending), 0);
});

test("a fill that does nothing wakes nobody", () => {
  const { machine, start, uffd } = registered(1);
  const thread = machine.load(start);
  assert.equal(uffd.copy(start, machine.bytes(5), PAGE, 1).bytes, PAGE);
  assert.equal(uffd.copy(start, machine.bytes(6), PAGE, 0).errno, 17);
  assert.equal(thread.state, "blocked");
  uffd.wake(start, PAGE);
  assert.equal(value(thread.ending), 5);
});

test("a woken thread whose page is still missing gives a new message, at the end of the queue", () => {
  const { machine, start, uffd } = registered(2);
  machine.load(start);
  machine.load(start + PAGE);
  uffd.wake(start, PAGE);
  const { messages } = uffd.read(8);
  const addresses = messages.map((message) => (message.event === "pagefault" ? message.address - start : -1));
  assert.deepEqual(addresses, [PAGE, 0]);
});

test("the last close wakes faults and releases those who wait for their events", () => {
  const { machine, start, uffd } = registered(2, UFFD_FEATURE.EVENT_REMOVE);
  const copy = machine.process.call("dup", uffd.fd);
  const loader = machine.load(start);
  const advisor = machine.process.spawnThread();
  advisor.start({ kind: "call", name: "madvise", args: [start, PAGE, MADV.DONTNEED] });
  assert.deepEqual([loader.state, advisor.state], ["blocked", "blocked"]);
  machine.process.call("close", uffd.fd);
  assert.deepEqual([loader.state, advisor.state], ["blocked", "blocked"]);
  machine.process.call("close", copy);
  assert.deepEqual([value(loader.ending), value(advisor.ending)], [0, 0]);
});

test("a control call that would wait for ever throws, and leaves the process usable", () => {
  const { machine, start, uffd } = registered(1, UFFD_FEATURE.EVENT_UNMAP);
  assert.throws(
    () => machine.process.call("munmap", start, PAGE),
    (error) => error instanceof MinorfaultError && error.code === "ERR_DEADLINE",
  );
  assert.equal(machine.process.call("getpid"), machine.process.pid);
  const [message] = uffd.read(1).messages;
  assert.deepEqual(message, { event: "unmap", start, end: start + PAGE });
  assert.equal(machine.process.space.vmas.at(start), undefined);
});

test("a signal repeats a fault of the thread's own access with a new message", () => {
  const { machine, start, uffd } = registered(1);
  machine.process.catchUserSignal({ restart: true });
  const thread = machine.load(start);
  assert.equal(uffd.read(8).messages.length, 1);
  machine.process.call("tgkill", machine.process.pid, thread.tid, SIGUSR1);
  assert.equal(thread.signalsHandled, 1);
  assert.equal(uffd.read(8).messages.length, 1);
  assert.equal(uffd.zeropage(start, PAGE, 0).errno, 0);
  assert.equal(value(thread.ending), 0);
});

test("a system call in a fault keeps its signal until it is done", () => {
  const { machine, start, uffd } = registered(1);
  machine.process.catchUserSignal({ restart: true });
  const zero = machine.process.call("memfd_create", machine.bytes(0), 0);
  const thread = machine.process.spawnThread();
  thread.start({ kind: "call", name: "write", args: [zero, start, 16] });
  machine.process.call("tgkill", machine.process.pid, thread.tid, SIGUSR1);
  assert.deepEqual([thread.state, thread.signalsHandled], ["blocked", 0]);
  // It cannot sleep with a signal pending: every read finds another message.
  for (let round = 0; round < 3; round++) assert.equal(uffd.read(1).messages.length, 1);
  uffd.zeropage(start, PAGE, 0);
  assert.equal(value(thread.ending), 16);
  assert.equal(thread.signalsHandled, 1);
});

test("a reader on a blocking descriptor wakes with the first message, and EINTR without SA_RESTART", () => {
  const machine = new Machine();
  const start = machine.map(1);
  const uffd = machine.open(0, 0);
  uffd.register(start, PAGE, 1);
  const read = { kind: "call", name: "read", args: [uffd.fd, machine.bytes(0), 64] } as const;
  machine.process.catchUserSignal({ restart: false });
  const interrupted = machine.process.spawnThread();
  interrupted.start(read);
  machine.process.call("tgkill", machine.process.pid, interrupted.tid, SIGUSR1);
  assert.equal(value(interrupted.ending), -4);
  const reader = machine.process.spawnThread();
  reader.start(read);
  assert.equal(reader.state, "blocked");
  machine.load(start);
  assert.equal(value(reader.ending), 32);
});

test("SIGKILL ends threads in faults, calls and events, and gives all memory back", () => {
  const { machine, start, uffd } = registered(8, UFFD_FEATURE.EVENT_REMOVE);
  const { process, system } = machine;
  const waiting = [machine.load(start), process.spawnThread(), process.spawnThread()];
  const sink = process.call("memfd_create", machine.bytes(0), 0);
  waiting[1]!.start({ kind: "call", name: "write", args: [sink, start + PAGE, 16] });
  waiting[2]!.start({ kind: "call", name: "madvise", args: [start, PAGE, MADV.DONTNEED] });
  assert.deepEqual(
    waiting.map(({ state }) => state),
    ["blocked", "blocked", "blocked"],
  );
  process.kill();
  assert.deepEqual(
    waiting.map(({ ending }) => ending?.kind),
    ["gone", "gone", "gone"],
  );
  assert.equal(process.exited, 9);
  assert.equal(system.pool.used, 0);
  assert.throws(() => uffd.wake(start, PAGE), { code: "ERR_CLOSED" });
  assert.throws(() => waiting[0]!.start({ kind: "load", address: start, size: 1 }), { code: "ERR_CLOSED" });
});

test("a timeout passes when nothing else can happen", () => {
  const { machine, uffd } = registered(1);
  const { process } = machine;
  process.scratch.view.setInt32(0, uffd.fd, true);
  process.scratch.view.setInt16(4, 1, true);
  process.scratch.view.setBigInt64(64, 5n, true);
  process.scratch.view.setBigInt64(72, 0n, true);
  assert.equal(process.call("ppoll", process.scratch.address, 1, process.scratch.address + 64, 0, 8), 0);
});
