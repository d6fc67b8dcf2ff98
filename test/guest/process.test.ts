// Bare processes of the real kernel: what they are told, what they answer, and that nothing of them is left.

import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { test } from "node:test";
import { ERRNO } from "../../src/abi/errno.ts";
import { BUS, MADV, MAP, PAGE_SIZE, PROT, SEGV, SIGNAL } from "../../src/abi/memory.ts";
import { UFFD_FEATURE } from "../../src/abi/userfaultfd.ts";
import { KernelSystem } from "../../src/guest/process/index.ts";
import { CAPABILITY, dropCapability, local, mapMemory } from "../../src/linux/index.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import { skipUnlessBareProcess as skip, skipUnlessUserfaultfd as skipUffd } from "../linux/host.ts";
import { kernel, mapped, PRIVATE, paged } from "./bare.ts";

/** Of systems that are to run out of it: a thousand times what a call takes, and a test waits for no longer. */
const PATIENCE_MS = 500;

test("a fresh process has an empty address space, three descriptors on /dev/null, and no environment", {
  skip,
}, (t) => {
  const system = kernel();
  const begin = performance.now();
  const process = system.spawnProcess();
  t.diagnostic(`the first start took ${(performance.now() - begin).toFixed(2)} ms`);
  const areas = readFileSync(`/proc/${process.pid}/maps`, "utf8").trim().split("\n");
  const names = areas.map((line) => line.replace(/^(\S+ +){5}/, "").trim());
  const expected =
    /^(\/memfd:minorfault-(guest|control) \(deleted\)|\[(vvar|vvar_vclock|vdso|stack|vsyscall|heap)\])$/;
  for (const name of names) assert.match(name, expected);
  const fds = readdirSync(`/proc/${process.pid}/fd`);
  assert.deepEqual(fds, ["0", "1", "2"]);
  for (const fd of fds) assert.equal(readlinkSync(`/proc/${process.pid}/fd/${fd}`), "/dev/null");
  assert.equal(readFileSync(`/proc/${process.pid}/environ`, "utf8"), "");
  process.kill();
});

test("a process starts in a few milliseconds at most", { skip }, (t) => {
  const system = kernel();
  const times = Array.from({ length: 20 }, () => {
    const begin = performance.now();
    system.spawnProcess();
    return performance.now() - begin;
  }).sort((a, b) => a - b);
  const median = times[10] ?? Number.NaN;
  t.diagnostic(`median start ${median.toFixed(2)} ms, slowest ${times.at(-1)?.toFixed(2)} ms`);
  assert.ok(median < 20, `${median} ms`);
  system.close();
});

test("calls answer a result or -errno, with arguments in scratch memory", { skip }, () => {
  const process = kernel().spawnProcess();
  assert.equal(process.call("getpid"), process.pid);
  assert.equal(process.call("close", 99), -ERRNO.EBADF);
  assert.equal(process.ioctl(99, 0, 0), -ERRNO.EBADF);
  assert.equal(process.read(99, 0, 0), -ERRNO.EBADF);
  const { address, bytes } = process.scratch;
  bytes.set(Buffer.from("/proc/self/comm\0"));
  const fd = process.call("openat", -100, address, 0, 0);
  assert.equal(fd, 3);
  const count = process.read(fd, address + 64, 100);
  assert.equal(Buffer.from(bytes.subarray(64, 64 + count)).toString(), "minorfault-gues\n".slice(0, count));
  assert.equal(process.call("mmap", 0x10000, PAGE_SIZE, 3, PRIVATE | MAP.FIXED_NOREPLACE, -1, 0), 0x10000);
  process.kill();
});

test("threads load, store, add and execute", { skip }, () => {
  const process = kernel().spawnProcess();
  const address = mapped(process, 1, PROT.READ | PROT.WRITE | PROT.EXEC);
  const thread = process.spawnThread();
  assert.equal(thread.state, "idle");
  assert.equal(thread.ending, undefined);
  const run = (operation: Parameters<typeof thread.start>[0]) => {
    thread.start(operation);
    process.settle();
    return thread.ending;
  };
  const value = (number: number) => ({ kind: "value", value: number });
  assert.deepEqual(run({ kind: "load", address, size: 1 }), value(0));
  assert.deepEqual(run({ kind: "store", address, value: 0xab }), value(0));
  assert.deepEqual(run({ kind: "store", address: address + 7, value: 0xff }), value(0));
  assert.deepEqual(run({ kind: "load", address: address + 7, size: 1 }), value(0xff));
  // The low 53 bits of 0xff000000000000ab.
  assert.deepEqual(run({ kind: "load", address, size: 8 }), value(0xab));
  assert.deepEqual(run({ kind: "add", address: address + 8, value: 5 }), value(0));
  assert.deepEqual(run({ kind: "add", address: address + 8, value: -2 }), value(5));
  assert.deepEqual(run({ kind: "load", address: address + 8, size: 8 }), value(3));
  // mov eax, 42; ret
  for (const [offset, byte] of [0xb8, 42, 0, 0, 0, 0xc3].entries()) {
    run({ kind: "store", address: address + 16 + offset, value: byte });
  }
  assert.deepEqual(run({ kind: "execute", address: address + 16 }), value(42));
  assert.deepEqual(run({ kind: "call", name: "gettid", args: [] }), value(thread.tid));
  process.kill();
});

test("an access that cannot be ends in its signal, and the thread goes on", { skip }, () => {
  const process = kernel().spawnProcess();
  const readOnly = mapped(process, 1, PROT.READ);
  const { address: scratch, bytes } = process.scratch;
  bytes.set(Buffer.from("file\0"));
  const file = process.call("memfd_create", scratch, 0);
  const beyond = process.call("mmap", 0, PAGE_SIZE, PROT.READ, MAP.SHARED, file, 0);
  const thread = process.spawnThread();
  const endings = (
    [
      { kind: "load", address: 0x1003, size: 1 },
      { kind: "store", address: readOnly + 5, value: 1 },
      { kind: "load", address: beyond + 9, size: 8 },
      { kind: "execute", address: readOnly + 1 },
      { kind: "execute", address: 0x2000 },
      { kind: "load", address: readOnly, size: 1 },
    ] as const
  ).map((operation) => {
    thread.start(operation);
    process.settle();
    return thread.ending;
  });
  assert.deepEqual(endings, [
    { kind: "signal", signal: SIGNAL.SIGSEGV, code: SEGV.MAPERR, address: 0x1003 },
    { kind: "signal", signal: SIGNAL.SIGSEGV, code: SEGV.ACCERR, address: readOnly + 5 },
    { kind: "signal", signal: SIGNAL.SIGBUS, code: BUS.ADRERR, address: beyond + 9 },
    { kind: "signal", signal: SIGNAL.SIGSEGV, code: SEGV.ACCERR, address: readOnly + 1 },
    { kind: "signal", signal: SIGNAL.SIGSEGV, code: SEGV.MAPERR, address: 0x2000 },
    { kind: "value", value: 0 },
  ]);
  process.kill();
});

test("a thread at a missing page is blocked until the page is there", { skip: skipUffd }, () => {
  const process = kernel().spawnProcess();
  const { ioctls, address } = paged(process, 4);
  const staging = process.share(PAGE_SIZE);
  staging.bytes.fill(6);
  const user = process.spawnThread();
  const inCall = process.spawnThread();
  const bystander = process.spawnThread();
  user.start({ kind: "load", address: address + 5, size: 1 });
  // Which of two faults comes first is nobody's promise: one after the other.
  process.settle();
  // The kernel itself touches page 1, for the call.
  inCall.start({ kind: "call", name: "getcpu", args: [address + PAGE_SIZE, 0, 0] });
  process.settle();
  assert.equal(user.state, "blocked");
  assert.equal(inCall.state, "blocked");
  assert.equal(bystander.state, "idle");
  assert.throws(() => user.start({ kind: "load", address, size: 1 }), { code: "ERR_BUSY" });
  assert.equal(user.ending, undefined);
  const { messages } = ioctls.read(8);
  assert.deepEqual(
    messages.map((message) => message.event === "pagefault" && [message.address - address, message.flags]),
    [
      [0, 0],
      [PAGE_SIZE, 1],
    ],
  );
  assert.deepEqual(ioctls.copy(address, staging.address, PAGE_SIZE, 0), {
    errno: 0,
    bytes: PAGE_SIZE,
    reported: true,
  });
  process.settle();
  assert.deepEqual(user.ending, { kind: "value", value: 6 });
  assert.equal(inCall.state, "blocked");
  assert.equal(ioctls.zeropage(address + PAGE_SIZE, PAGE_SIZE, 0).errno, 0);
  process.settle();
  assert.deepEqual(inCall.ending, { kind: "value", value: 0 });
  process.kill();
});

test("settle sees every fault, however the threads come to it", { skip: skipUffd }, () => {
  const process = kernel().spawnProcess();
  const { ioctls, address } = paged(process, 8);
  const threads = Array.from({ length: 6 }, () => process.spawnThread());
  for (let round = 0; round < 200; round++) {
    for (const [index, thread] of threads.entries()) {
      thread.start({ kind: "load", address: address + ((index + round) % 8) * PAGE_SIZE, size: 1 });
    }
    process.settle();
    assert.deepEqual(
      threads.map((thread) => thread.state),
      threads.map(() => "blocked"),
      `round ${round}`,
    );
    assert.equal(ioctls.read(16).messages.length, threads.length, `round ${round}`);
    for (let page = 0; page < 8; page++) ioctls.zeropage(address + page * PAGE_SIZE, PAGE_SIZE, 0);
    process.settle();
    assert.ok(threads.every((thread) => thread.ending?.kind === "value"));
    process.call("madvise", address, 8 * PAGE_SIZE, MADV.DONTNEED);
  }
  process.kill();
});

test("a caught signal is counted by the thread that waits, and the access begins anew", {
  skip: skipUffd,
}, () => {
  const process = kernel().spawnProcess();
  const { ioctls, address } = paged(process, 1);
  process.catchUserSignal({ restart: true });
  const thread = process.spawnThread();
  thread.start({ kind: "load", address, size: 1 });
  process.settle();
  assert.equal(ioctls.read(8).messages.length, 1);
  assert.equal(process.call("tgkill", process.pid, thread.tid, SIGNAL.SIGUSR1), 0);
  process.settle();
  assert.equal(thread.signalsHandled, 1);
  assert.equal(thread.state, "blocked");
  assert.equal(ioctls.read(8).messages.length, 1);
  ioctls.zeropage(address, PAGE_SIZE, 0);
  process.settle();
  assert.deepEqual(thread.ending, { kind: "value", value: 0 });
  process.kill();
});

test("a caught signal ends a waiting call or lets it go on, as was chosen", { skip }, () => {
  const process = kernel().spawnProcess();
  const { address, view } = process.scratch;
  assert.equal(process.call("pipe2", address, 0), 0);
  const end = view.getInt32(0, true);
  for (const restart of [false, true]) {
    process.catchUserSignal({ restart });
    const thread = process.spawnThread();
    thread.start({ kind: "call", name: "read", args: [end, address + 64, 1] });
    process.settle();
    assert.equal(thread.state, "blocked");
    process.call("tgkill", process.pid, thread.tid, SIGNAL.SIGUSR1);
    process.settle();
    assert.equal(thread.signalsHandled, 1);
    assert.deepEqual(thread.ending, restart ? undefined : { kind: "value", value: -ERRNO.EINTR });
  }
  process.kill();
});

test("a fork has the memory and the descriptors of that moment, and its own control thread", { skip }, () => {
  const process = kernel().spawnProcess();
  const address = mapped(process, 1);
  const thread = process.spawnThread();
  const store = (value: number) => {
    thread.start({ kind: "store", address, value });
    process.settle();
  };
  store(1);
  const { child } = process.fork();
  process.settle();
  const born = child();
  assert.ok(born);
  assert.equal(child(), born);
  store(2);
  assert.notEqual(born.pid, process.pid);
  assert.equal(born.call("getpid"), born.pid);
  assert.deepEqual(born.threads, []);
  const reader = born.spawnThread();
  reader.start({ kind: "load", address, size: 1 });
  born.settle();
  assert.deepEqual(reader.ending, { kind: "value", value: 1 });
  // A grandchild, and memory that is shared with all of them.
  const shared = process.share(PAGE_SIZE);
  shared.bytes[0] = 50;
  const grandchild = born.fork();
  born.settle();
  const third = grandchild.child()?.spawnThread();
  third?.start({ kind: "load", address: shared.address, size: 1 });
  born.settle();
  assert.deepEqual(third?.ending, { kind: "value", value: 50 });
  born.kill();
  assert.equal(born.exited, SIGNAL.SIGKILL);
  assert.equal(process.exited, undefined);
  assert.equal(third.state, "idle", "the grandchild lives on");
  process.kill();
});

test("a fork with EVENT_FORK waits until its event is read", { skip: skipUffd }, () => {
  const process = kernel().spawnProcess();
  const { ioctls, address } = paged(process, 2, UFFD_FEATURE.EVENT_FORK);
  const { thread, child } = process.fork();
  process.settle();
  assert.equal(thread.state, "blocked");
  assert.equal(child(), undefined);
  const [message] = ioctls.read(1).messages;
  assert.ok(message?.event === "fork");
  process.settle();
  const born = child();
  assert.ok(born);
  // The child's faults arrive on the descriptor of the event, in the parent.
  const reader = born.spawnThread();
  reader.start({ kind: "load", address, size: 1 });
  process.settle();
  assert.equal(reader.state, "blocked");
  const ofChild = new Ioctls(process, message.ufd);
  assert.equal(ofChild.read(8).messages.length, 1);
  ofChild.zeropage(address, PAGE_SIZE, 0);
  process.settle();
  assert.deepEqual(reader.ending, { kind: "value", value: 0 });
  process.kill();
});

test("a call that does not return in time is an error, not a hang", { skip }, () => {
  const process = kernel({ deadlineMs: PATIENCE_MS }).spawnProcess();
  const { address } = process.scratch;
  process.call("pipe2", address, 0);
  assert.throws(() => process.call("read", 3, address, 1), { code: "ERR_DEADLINE", operation: "read" });
  assert.throws(() => process.call("getpid"), { code: "ERR_BUSY" });
  process.kill();
});

test("threads that never rest are an error of settle, not a hang", { skip }, () => {
  const process = kernel({ deadlineMs: PATIENCE_MS }).spawnProcess();
  const address = mapped(process, 1, PROT.READ | PROT.WRITE | PROT.EXEC);
  const thread = process.spawnThread();
  // jmp to itself
  thread.start({ kind: "store", address, value: 0xeb });
  process.settle();
  thread.start({ kind: "store", address: address + 1, value: 0xfe });
  process.settle();
  thread.start({ kind: "execute", address });
  assert.throws(() => process.settle(), { code: "ERR_DEADLINE" });
  assert.equal(thread.state, "running");
  process.kill();
});

test("a descriptor of the process can be had here", { skip }, () => {
  const process = kernel().spawnProcess();
  const { address, bytes } = process.scratch;
  bytes.set(Buffer.from("theirs\0"));
  const remote = process.call("memfd_create", address, 0);
  process.call("ftruncate", remote, PAGE_SIZE);
  const theirs = process.call("mmap", 0, PAGE_SIZE, 3, MAP.SHARED, remote, 0);
  const fd = process.descriptor(remote);
  const memory = mapMemory(PAGE_SIZE, { fd });
  memory.bytes[9] = 99;
  const thread = process.spawnThread();
  thread.start({ kind: "load", address: theirs + 9, size: 1 });
  process.settle();
  assert.deepEqual(thread.ending, { kind: "value", value: 99 });
  local.call("close", fd);
  memory.close();
  assert.throws(() => process.descriptor(77), { code: "ERR_SYSCALL", errno: ERRNO.EBADF });
  process.kill();
});

test("shared pieces are as long as asked for, and gone when closed", { skip }, () => {
  const process = kernel().spawnProcess();
  const first = process.share(3 * 2 ** 20);
  const second = process.share(1);
  assert.equal(first.bytes.byteLength, 3 * 2 ** 20);
  assert.equal(second.bytes.byteLength, PAGE_SIZE);
  first.bytes.fill(1);
  const thread = process.spawnThread();
  const load = (address: number) => {
    thread.start({ kind: "load", address, size: 1 });
    process.settle();
    return thread.ending?.kind === "value" && thread.ending.value;
  };
  assert.equal(load(first.address + first.bytes.byteLength - 1), 1);
  const { bytes } = first;
  first.close();
  first.close();
  assert.equal(load(first.address), 0);
  assert.equal(bytes[0], 0);
  process.kill();
  second.close();
  assert.equal(second.bytes[0], 0);
});

test("a walk visits every page in its order, adds up, and notes how long each took", { skip }, () => {
  const process = kernel().spawnProcess();
  const pages = 100;
  const base = mapped(process, pages);
  const record = process.share(4 * pages);
  const thread = process.spawnThread();
  const run = (walk: Omit<Parameters<typeof thread.walk>[0], "base">) => {
    thread.walk({ base, ...walk });
    process.settle();
    return thread.ending;
  };
  assert.deepEqual(run({ order: { count: pages, stride: 1 }, write: 3 }), { kind: "value", value: 0 });
  assert.equal(thread.progress, pages);
  const list = process.share(4 * 5);
  new Uint32Array(list.bytes.buffer, list.bytes.byteOffset, 5).set([7, 3, 99, 3, 0]);
  assert.deepEqual(run({ order: { list, count: 4 }, write: 10 }), { kind: "value", value: 0 });
  // 97 pages of 3, and 7, 3 and 99 with 10.
  const sum = { kind: "value", value: 97 * 3 + 30 };
  assert.deepEqual(run({ order: { count: pages, stride: 1 }, record }), sum);
  const ticks = new Uint32Array(record.bytes.buffer, record.bytes.byteOffset, pages);
  assert.ok(ticks.every((tick) => tick > 0));
  assert.deepEqual(run({ order: { count: 34, stride: 3 } }), { kind: "value", value: 32 * 3 + 20 });
  assert.deepEqual(run({ order: { count: 0, stride: 1 } }), { kind: "value", value: 0 });
  // A walk out of the memory ends in the signal of the page that is not there.
  process.call("munmap", base + 50 * PAGE_SIZE, PAGE_SIZE);
  assert.deepEqual(run({ order: { count: pages, stride: 1 } }), {
    kind: "signal",
    signal: SIGNAL.SIGSEGV,
    code: SEGV.MAPERR,
    address: base + 50 * PAGE_SIZE,
  });
  assert.equal(thread.progress, 50);
  const rate = process.tickRate();
  assert.ok(rate > 1e8 && rate < 1e10, `${rate} ticks per second`);
  process.kill();
});

test("threads can be confined to a CPU", { skip }, () => {
  const process = kernel().spawnProcess();
  const thread = process.spawnThread();
  process.pin(0);
  thread.start({ kind: "call", name: "getcpu", args: [process.scratch.address, 0, 0] });
  process.settle();
  assert.equal(process.scratch.view.getUint32(0, true), 0);
  process.kill();
});

test("without CAP_SYS_PTRACE a process may open only what it may", { skip: skipUffd }, (t) => {
  if (readFileSync("/proc/sys/vm/unprivileged_userfaultfd", "utf8").trim() !== "0") {
    t.skip("this host lets everybody");
    return;
  }
  const process = kernel().spawnProcess();
  dropCapability(process, CAPABILITY.SYS_PTRACE);
  assert.equal(process.call("userfaultfd", 0), -ERRNO.EPERM);
  assert.ok(process.call("userfaultfd", 1) >= 0);
  process.kill();
});

test("there is a limit to the threads of a family, and it is told", { skip }, () => {
  const process = kernel().spawnProcess();
  const threads: unknown[] = [];
  assert.throws(
    () => {
      for (;;) threads.push(process.spawnThread());
    },
    { code: "ERR_LIMIT" },
  );
  assert.ok(threads.length >= 256, `${threads.length} threads`);
  process.kill();
});

/** A program that starts processes of every kind, and says their ids. */
test("on another platform bare processes are refused", () => {
  const { arch } = process;
  Object.defineProperty(process, "arch", { value: "arm64" });
  try {
    assert.throws(() => new KernelSystem(), { code: "ERR_UNSUPPORTED_HOST" });
  } finally {
    Object.defineProperty(process, "arch", { value: arch });
  }
});
