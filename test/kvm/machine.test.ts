// The small KVM machine: what it reads and writes, how a missing page stops it, and what it says when it can't be.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ERRNO, PAGE_SIZE, SIGNAL } from "../../src/abi/index.ts";
import type { Caller } from "../../src/abi/system.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { createVm, KvmMachine, RAM_BYTES_MAX, type Walked } from "../../src/guest/kvm/index.ts";
import { type GuestProcess, KernelSystem } from "../../src/guest/process/index.ts";
import { local, mmap } from "../../src/linux/index.ts";
import { openUserfaultfd, type Userfaultfd } from "../../src/uffd/index.ts";

const RAM_PAGES = 64;
const RAM_BYTES = RAM_PAGES * PAGE_SIZE;
const DEADLINE_MS = 10_000;
const ALL = Uint32Array.from({ length: RAM_PAGES }, (_, page) => page);

let system: KernelSystem | undefined;
let obstacle: string | undefined;

before(() => {
  try {
    system = new KernelSystem();
    const process = system.spawnProcess();
    new KvmMachine(process, { ramBytes: PAGE_SIZE });
    openUserfaultfd("kernel", process, { ways: ["device", "syscall"] });
    process.kill();
  } catch (error) {
    if (!(error instanceof MinorfaultError) || error.kind !== "environment") throw error;
    obstacle = error.message;
  }
});
after(() => system?.close());

/** A test that needs KVM: skipped, with the reason, where there is none. */
function machineTest(
  name: string,
  body: (machine: KvmMachine, process: GuestProcess) => Promise<void>,
): void {
  test(name, async (t) => {
    if (system === undefined || obstacle !== undefined) return t.skip(obstacle ?? "no system");
    const process = system.spawnProcess();
    try {
      await body(new KvmMachine(process, { ramBytes: RAM_BYTES }), process);
    } finally {
      process.kill();
    }
  });
}

async function eventually<T>(what: string, look: () => T | undefined): Promise<T> {
  const until = performance.now() + DEADLINE_MS;
  for (;;) {
    const found = look();
    if (found !== undefined) return found;
    assert.ok(performance.now() < until, `${what} did not happen in ${DEADLINE_MS} ms`);
    await delay(1);
  }
}

const ended = (machine: KvmMachine): Promise<Walked> =>
  eventually("the end of the walk", () => machine.poll());

/** RAM paged by us: every message is answered by hand. */
function paged(machine: KvmMachine, process: GuestProcess): Userfaultfd {
  const userfaultfd = openUserfaultfd("kernel", process, { ways: ["device", "syscall"] });
  userfaultfd.register(machine.ramAddress, RAM_BYTES, { missing: true });
  return userfaultfd;
}

async function nextFault(userfaultfd: Userfaultfd): Promise<number> {
  const message = await eventually("a fault", () => userfaultfd.read(1)[0]);
  assert.equal(message.event, "pagefault");
  return message.event === "pagefault" ? message.address : 0;
}

machineTest(
  "a walk of stores writes each page's address into it, and a walk of loads adds them up",
  async (machine) => {
    machine.start(ALL, "store");
    assert.equal((await ended(machine)).sum, 0);
    machine.start(ALL);
    const { sum, times } = await ended(machine);
    const expected = ALL.reduce((total, page) => (total + page * PAGE_SIZE) >>> 0, 0);
    assert.equal(sum, expected);
    assert.equal(times.length, RAM_PAGES);
    assert.ok(
      times.every((time) => time > 0),
      "every access took time",
    );
  },
);

machineTest("a walk of reads tells the first word of each page, in its order", async (machine) => {
  machine.start(ALL, "store");
  await ended(machine);
  machine.start(Uint32Array.of(9, 5, 9, 0), "read");
  const { words, times } = await ended(machine);
  assert.deepEqual(
    words,
    Uint32Array.of(9, 5, 9, 0).map((page) => page * PAGE_SIZE),
  );
  assert.equal(times.length, 4);
});

machineTest(
  "RAM in pieces is where its pieces are, and nothing is between them",
  async (_machine, process) => {
    const piece = (guestPage: number) => ({
      guestAddress: guestPage * PAGE_SIZE,
      address: mmap(process, 4 * PAGE_SIZE),
      byteLength: 4 * PAGE_SIZE,
    });
    const pieces = [piece(0), piece(100)];
    const machine = new KvmMachine(process, { ramBytes: pieces });
    assert.equal(machine.ramBytes, 8 * PAGE_SIZE);
    for (const page of [4, 99, 104]) {
      assert.throws(() => machine.start(Uint32Array.of(page)), { code: "ERR_OUT_OF_RANGE" });
    }
    machine.start(Uint32Array.of(1, 103), "store");
    await ended(machine);
    machine.start(Uint32Array.of(103, 102, 1), "read");
    assert.deepEqual((await ended(machine)).words, Uint32Array.of(103 * PAGE_SIZE, 0, PAGE_SIZE));
    machine.close();
    assert.throws(() => new KvmMachine(process, { ramBytes: [] }), { code: "ERR_OUT_OF_RANGE" });
  },
);

machineTest("a walk visits just the pages of its list, in its order, pages twice too", async (machine) => {
  machine.start(Uint32Array.of(5, 9), "store");
  await ended(machine);
  machine.start(Uint32Array.of(9, 5, 9, 7));
  assert.equal((await ended(machine)).sum, (9 + 5 + 9) * PAGE_SIZE);
  assert.equal(machine.pagesDone, 4);
});

machineTest(
  "a missing page stops the virtual CPU until it is copied, and then the guest reads it",
  async (machine, process) => {
    const userfaultfd = paged(machine, process);
    const staging = userfaultfd.staging(PAGE_SIZE);
    machine.start(Uint32Array.of(3, 1));
    for (const [index, page] of [3, 1].entries()) {
      assert.equal(await nextFault(userfaultfd), machine.ramAddress + page * PAGE_SIZE);
      assert.equal(machine.poll(), undefined);
      assert.equal(machine.thread.state, "blocked");
      assert.throws(() => machine.start(ALL), { code: "ERR_BUSY" });
      assert.equal(machine.pagesDone, index);
      new DataView(staging.bytes.buffer, staging.bytes.byteOffset).setUint32(0, 1000 + page, true);
      const target = machine.ramAddress + page * PAGE_SIZE;
      assert.equal(userfaultfd.copy(target, staging.address, PAGE_SIZE).bytes, PAGE_SIZE);
    }
    assert.equal((await ended(machine)).sum, 2004);
  },
);

machineTest(
  "a poisoned page ends the walk with ERR_MEMORY_FAULT, and the machine for good",
  async (machine, process) => {
    const userfaultfd = paged(machine, process);
    machine.start(Uint32Array.of(2));
    userfaultfd.poison(await nextFault(userfaultfd), PAGE_SIZE);
    await assert.rejects(ended(machine), { code: "ERR_MEMORY_FAULT", operation: "KVM_RUN" });
    assert.throws(() => machine.start(ALL), { code: "ERR_CLOSED" });
    machine.close();
  },
);

machineTest(
  "a signal that interrupts KVM_RUN is handled, and the walk goes on where it was",
  async (machine, process) => {
    process.catchUserSignal({ restart: false });
    const userfaultfd = paged(machine, process);
    machine.start(ALL);
    const address = await nextFault(userfaultfd);
    assert.equal(local.call("tgkill", process.pid, machine.thread.tid, SIGNAL.SIGUSR1), 0);
    assert.equal(userfaultfd.zeropage(address, PAGE_SIZE).errno, 0);
    userfaultfd.zeropage(machine.ramAddress + PAGE_SIZE, RAM_BYTES - PAGE_SIZE);
    assert.equal((await ended(machine)).times.length, RAM_PAGES);
    assert.equal(machine.thread.signalsHandled, 1);
  },
);

machineTest("a process that is killed during a walk ends it with ERR_CLOSED", async (machine, process) => {
  const userfaultfd = paged(machine, process);
  machine.start(Uint32Array.of(4));
  await nextFault(userfaultfd);
  process.kill();
  assert.throws(() => machine.poll(), { code: "ERR_CLOSED" });
});

machineTest(
  "pages outside RAM, empty walks and a closed machine are refused before the CPU runs",
  async (machine) => {
    assert.throws(() => machine.start(Uint32Array.of(RAM_PAGES)), { code: "ERR_OUT_OF_RANGE" });
    assert.throws(() => machine.start(new Uint32Array(0)), { code: "ERR_OUT_OF_RANGE" });
    machine.close();
    machine.close();
    assert.throws(() => machine.start(ALL), { code: "ERR_CLOSED" });
  },
);

machineTest("sizes of RAM that can't be are refused", async (_machine, process) => {
  for (const ramBytes of [0, -PAGE_SIZE, 100, Number.NaN, 1.5 * PAGE_SIZE]) {
    assert.throws(() => new KvmMachine(process, { ramBytes }), { code: "ERR_UNALIGNED" });
  }
  assert.throws(() => new KvmMachine(process, { ramBytes: RAM_BYTES_MAX + PAGE_SIZE }), {
    code: "ERR_OUT_OF_RANGE",
  });
});

test("where /dev/kvm is missing, denied or does not make machines, the reason is told", (t) => {
  if (process.platform !== "linux" || process.arch !== "x64")
    return t.skip("the machine is for Linux on x64");
  const answering = (open: number, ioctl: number): Caller => ({
    call: (name) => (name === "openat" ? open : 0),
    ioctl: () => ioctl,
    read: () => 0,
    scratch: { address: 0x1000, bytes: new Uint8Array(4096), view: new DataView(new ArrayBuffer(4096)) },
    share: () => assert.fail("nothing is shared"),
  });
  const cases = [
    [-ERRNO.ENOENT, 0, /does not exist/],
    [-ERRNO.EACCES, 0, /may not be opened by this user/],
    [-ERRNO.EPERM, 0, /forbidden/],
    [5, 11, /speaks version 11/],
  ] as const;
  for (const [open, ioctl, message] of cases) {
    assert.throws(() => createVm(answering(open, ioctl)), { code: "ERR_UNSUPPORTED_HOST", message });
  }
});
