// Arguments that no program passes on purpose: every system call answers an errno, and nothing of it throws or hangs.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Word } from "../../src/abi/structs.ts";
import type { SyscallName } from "../../src/abi/system.ts";
import { UFFDIO } from "../../src/abi/userfaultfd.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { createSystem, PagedMemory } from "../../src/uffd/software/index.ts";
import { Machine, random, seed } from "./machine.ts";

const CALLS: readonly SyscallName[] = [
  ...(["mmap", "munmap", "mprotect", "mremap", "madvise", "mlock", "munlock", "mincore"] as const),
  ...(["memfd_create", "ftruncate", "openat", "readlinkat", "read", "readv", "preadv2", "pread64"] as const),
  ...(["write", "writev", "pwrite64", "lseek", "close", "dup", "fcntl", "ioctl", "pipe2", "ppoll"] as const),
  ...(["pselect6", "epoll_create1", "epoll_ctl", "epoll_pwait", "userfaultfd", "prlimit64"] as const),
  ...(["capget", "capset", "process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_getfd"] as const),
  ...(["rt_sigaction", "wait4", "clock_nanosleep", "socket", "prctl", "sched_yield"] as const),
];

test("random system calls with random arguments answer a number", (t) => {
  const begin = seed();
  t.diagnostic(`seed ${begin}`);
  const next = random(begin);
  const requests = Object.values(UFFDIO);
  let machine = new Machine({ memoryBytes: 2 ** 24 });
  let start = machine.map(16);
  const word = (): Word => {
    const { address } = machine.process.scratch;
    const choices: Word[] = [
      0,
      1,
      next(16),
      -1,
      next(2 ** 31),
      start + next(20) * 4096,
      start + next(65536),
      address + next(4096) * 8,
      4096 * (1 + next(8)),
      2 ** 47 - 4096,
      0xffff_8000_0000_0000n,
      2n ** 64n - BigInt(next(8192)),
      2n ** 63n,
    ];
    return choices[next(choices.length)]!;
  };
  for (let step = 0; step < 6000; step++) {
    const { process } = machine;
    for (let at = 0; at < 64; at++) process.scratch.bytes[at] = next(256);
    const view = process.scratch.view;
    for (let at = 0; at < 64; at += 8) {
      const value = word();
      if (next(2) === 0) view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
    }
    const name = CALLS[next(CALLS.length)]!;
    const args = Array.from({ length: 6 }, word);
    if (name === "ioctl" && next(4) > 0) args[1] = requests[next(requests.length)]!;
    // Only children could end otherwise, and there are none.
    if (name === "mlock" || name === "fallocate") args[1] = next(65536);
    const context = `seed ${begin}, step ${step}: ${name}(${args.join(", ")})`;
    try {
      const result = process.call(name, ...args);
      assert.ok(Number.isInteger(result) && result > -4096, `${context} answered ${result}`);
    } catch (error) {
      const waits = error instanceof MinorfaultError && error.code === "ERR_DEADLINE";
      assert.ok(waits, `${context} threw ${error instanceof Error ? error.stack : String(error)}`);
    }
    if (process.exited === undefined && step % 500 !== 499) continue;
    process.kill();
    assert.equal(machine.system.pool.used, 0, `${context}: frames are left`);
    machine = new Machine({ memoryBytes: 2 ** 24 });
    start = machine.map(16);
  }
});

test("options and bytes of the wrong kind are typed errors", async () => {
  const wrong = (value: unknown): never => value as never;
  const refused = { code: "ERR_BAD_ARGUMENT" };
  assert.throws(() => createSystem({ profile: wrong("linux-9") }), refused);
  assert.throws(() => createSystem({ hugePages: -1 }), refused);
  assert.throws(() => createSystem({ memoryBytes: Number.NaN }), refused);
  assert.throws(() => createSystem(wrong(null)), refused);
  assert.throws(() => new PagedMemory(4096, wrong(undefined)), refused);
  const memory = new PagedMemory(4096, () => undefined);
  await assert.rejects(memory.read(0, wrong("abc")), refused);
  await assert.rejects(memory.write(0, wrong([1, 2])), refused);
});
