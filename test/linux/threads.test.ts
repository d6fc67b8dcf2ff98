// Threads, CPUs, privileges, futexes and children.

import assert from "node:assert/strict";
import { spawn as nodeSpawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { POLL, SIGNAL } from "../../src/abi/memory.ts";
import {
  affinity,
  CAPABILITY,
  capabilities,
  close,
  confinement,
  currentCpu,
  futexWait,
  futexWake,
  hasCapability,
  local,
  mapMemory,
  memfd,
  pidfdGetfd,
  pidfdOpen,
  poll,
  readText,
  reap,
  receive,
  send,
  setAffinity,
  signal,
  socketPair,
  spawn,
  threadId,
  threadStatus,
  waitForEnd,
} from "../../src/linux/index.ts";
import { skipUnlessLinux as skip } from "./host.ts";

test("a thread can be confined to one CPU, and is then there", { skip }, () => {
  const before = affinity(local);
  assert.ok(before.length > 0);
  try {
    for (const cpu of before) {
      setAffinity(local, [cpu]);
      assert.deepEqual(affinity(local), [cpu]);
      assert.equal(currentCpu(local), cpu);
      assert.equal(threadStatus(local, process.pid, threadId(local)).cpu, cpu);
    }
    assert.throws(() => setAffinity(local, []), { code: "ERR_SYSCALL", errno: 22 });
    assert.throws(() => setAffinity(local, [-1]), { code: "ERR_OUT_OF_RANGE" });
    assert.throws(() => setAffinity(local, [5000]), { code: "ERR_OUT_OF_RANGE" });
  } finally {
    setAffinity(local, before);
  }
});

test("a thread's state is read in spite of what its name contains", { skip }, () => {
  const title = process.title;
  process.title = "a ) R (b";
  const status = threadStatus(local, process.pid, threadId(local));
  process.title = title;
  assert.equal(status.state, "R");
  assert.throws(() => threadStatus(local, process.pid, 1), { code: "ERR_SYSCALL", errno: 2 });
});

test("capabilities and confinement agree with what /proc says", { skip }, () => {
  const text = readFileSync("/proc/self/status", "utf8");
  const field = (name: string) => text.match(new RegExp(`^${name}:\\s*(\\S+)`, "m"))?.[1] ?? "";
  const { effective, permitted, inheritable } = capabilities(local);
  assert.equal(effective, BigInt(`0x${field("CapEff")}`));
  assert.equal(permitted, BigInt(`0x${field("CapPrm")}`));
  assert.equal(inheritable, BigInt(`0x${field("CapInh")}`));
  const told = confinement(local);
  assert.equal(told.capabilities, effective);
  assert.equal(told.uid, process.geteuid?.());
  assert.equal(told.noNewPrivileges, field("NoNewPrivs") === "1");
  assert.equal(told.seccomp, ["off", "strict", "filter"][Number(field("Seccomp"))]);
  assert.equal(
    hasCapability(local, CAPABILITY.SYS_PTRACE),
    ((effective >> BigInt(CAPABILITY.SYS_PTRACE)) & 1n) === 1n,
  );
});

test("a small file of /proc is read whole", { skip }, () => {
  assert.equal(readText(local, "/proc/self/limits"), readFileSync("/proc/self/limits", "utf8"));
});

test("a futex wait ends at once when the word differs, and in time when nobody wakes", { skip }, () => {
  const memory = mapMemory(4096, { shared: true });
  memory.view.setUint32(8, 5, true);
  const begin = performance.now();
  futexWait(local, memory.address + 8, 4, 10_000);
  assert.ok(performance.now() - begin < 5000);
  futexWait(local, memory.address + 8, 5, 5.5);
  assert.ok(performance.now() - begin >= 5);
  assert.equal(futexWake(local, memory.address + 8), 0);
  assert.throws(() => futexWait(local, memory.address + 1, 0, 0), { code: "ERR_SYSCALL", errno: 22 });
  memory.close();
});

test("a child is started with the descriptors it was given, and waited for without the event loop", {
  skip,
}, () => {
  const fd = memfd(local, "inherited", 4096);
  const [input, ours] = socketPair(local);
  const pid = spawn(
    "/bin/cat",
    "cat",
    new Map([
      [0, input],
      [1, input],
      [7, fd],
    ]),
  );
  // It echoes, so it runs: before that the kernel may still be starting it.
  send(local, ours, Uint8Array.of(33));
  assert.deepEqual(poll(local, [{ fd: ours }], 5000), [POLL.IN]);
  assert.deepEqual(receive(local, ours)?.bytes, Uint8Array.of(33));
  assert.equal(reap(pid), undefined, "cat waits for its input");
  const pidfd = pidfdOpen(pid);
  const copy = pidfdGetfd(pidfd, 7);
  const mine = mapMemory(4096, { fd });
  const theirs = mapMemory(4096, { fd: copy });
  mine.bytes[1] = 3;
  assert.equal(theirs.bytes[1], 3);
  assert.equal(readFileSync(`/proc/${pid}/environ`, "utf8"), "");
  assert.equal(readFileSync(`/proc/${pid}/cmdline`, "utf8"), "cat\0");
  assert.equal(waitForEnd(pidfd, 0), false);
  // The end of another child is a signal to us, which must not look like the end of the wait.
  const other = nodeSpawn("sleep", ["0.02"]);
  const began = performance.now();
  assert.equal(waitForEnd(pidfd, 200), false);
  assert.ok(performance.now() - began > 190, "the wait was cut short");
  other.kill();
  signal(pid, SIGNAL.SIGKILL);
  assert.equal(waitForEnd(pidfd, 5000), true);
  assert.equal(reap(pid), SIGNAL.SIGKILL);
  signal(pid, SIGNAL.SIGKILL);
  for (const each of [fd, copy, pidfd, input, ours]) close(local, each);
  mine.close();
  theirs.close();
});

test("a program that is not there is an errno", { skip }, () => {
  assert.throws(() => spawn("/no/such/program", "x", new Map()), {
    code: "ERR_SYSCALL",
    operation: "posix_spawn",
    errno: 2,
  });
  assert.throws(() => reap(1), { code: "ERR_SYSCALL", errno: 10 });
});
