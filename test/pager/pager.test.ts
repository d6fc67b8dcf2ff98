// The pager on the real kernel, with a guest in another process.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { constants, open, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { HUGE_PAGE_SIZE, MADV, PAGE_SIZE, SIGNAL } from "../../src/abi/memory.ts";
import { countBits, setBits, wordsFor } from "../../src/base/bitmap.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { local } from "../../src/linux/index.ts";
import { type InstallProgress, type PagerOptions, startPager } from "../../src/pager/index.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import { Guest, type GuestOptions, imageByte } from "./guest.ts";

const POOL = "/proc/sys/vm/nr_hugepages";

/** A guest that ends with its test. */
function guestFor(t: TestContext, options?: GuestOptions): Guest {
  const guest = new Guest(options);
  t.after(() => guest.close());
  return guest;
}

/** Nanoseconds that a thread of this process has run. */
function ranNs(tid: number): number {
  return Number(readFileSync(`/proc/self/task/${tid}/schedstat`, "utf8").split(" ")[0]);
}

describe("the pager", { skip, timeout: 300_000 }, () => {
  test("serves every page of a guest with the image's bytes, placed by a self-test of some ten milliseconds", async (t) => {
    const guest = guestFor(t);
    const pager = await guest.pager({ placement: "auto", plan: { faultAroundPages: 1 } });
    guest.checkAll();
    const { faults, outcomes, bytesInstalled, latencyUs } = pager.statistics();
    assert.deepEqual([faults, outcomes.copied, bytesInstalled], [64, 64, guest.byteLength]);
    assert.ok(latencyUs.p50 > 0 && latencyUs.p50 <= latencyUs.p99 && latencyUs.p99 <= latencyUs.max);
    let { placement } = pager;
    // Where the machine has no time for it, a pager says so and does without; the next one tries again.
    while (placement.selfTest === undefined) {
      assert.match(placement.why, /^no self-test was possible: The .*did not (end|answer)$/);
      ({ placement } = await guestFor(t).pager({ placement: "auto" }));
    }
    const { mode, why, selfTest } = placement;
    assert.ok(["same-cpu", "spin", "block"].includes(mode));
    t.diagnostic(`${mode}: ${why}; ${selfTest.durationMs.toFixed(0)} ms`);
    const medians = Object.values(selfTest.medianUs);
    assert.equal(Math.min(...medians), selfTest.medianUs[mode], "the fastest was chosen");

    const next = await guestFor(t).pager({ placement: "auto" });
    assert.deepEqual(next.placement, placement, "a second pager does not test again");
  });

  for (const placement of ["same-cpu", "spin", "block"] as const) {
    test(`serves with placement ${placement}, with fault-around and zero pages`, async (t) => {
      const guest = guestFor(t);
      const zeroPages = new Uint32Array(wordsFor(64));
      setBits(zeroPages, 20, 30);
      const pager = await guest.pager({ placement, zeroPages, plan: { faultAroundPages: 8 } });
      assert.deepEqual([pager.placement.asked, pager.placement.mode], [placement, placement]);
      guest.checkAll((page) => (page >= 20 && page < 30 ? 0 : imageByte(page)));
      const { faults, bytesInstalled, bytesZeroed } = pager.statistics();
      assert.deepEqual([faults, bytesInstalled, bytesZeroed], [8, guest.byteLength, 10 * PAGE_SIZE]);
      const [residency] = pager.residency();
      assert.equal(residency?.start, guest.base);
      assert.equal(countBits(residency.resident, residency.pageCount), guest.pages);
    });
  }

  test("a parked pager uses no CPU, spinning or not", async (t) => {
    for (const placement of ["same-cpu", "spin", "block"] as const) {
      const guest = guestFor(t);
      const pager = await guest.pager({ placement });
      guest.load(0);
      // One that spins parks a millisecond after its last fault.
      await new Promise((resolve) => setTimeout(resolve, 50));
      const before = ranNs(pager.threadId);
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.equal(ranNs(pager.threadId) - before, 0, placement);
      guest.load(63);
      // The kernel books a running thread's time when it next stops.
      const until = performance.now() + 2000;
      while (ranNs(pager.threadId) === before && performance.now() < until) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      assert.ok(ranNs(pager.threadId) > before, "it serves again");
    }
  });

  test("serves while every thread of libuv's pool is busy", async (t) => {
    const guest = guestFor(t);
    const pager = await guest.pager({ placement: "auto" });
    const folder = await mkdtemp(join(tmpdir(), "minorfault-test-"));
    t.after(() => rm(folder, { recursive: true }));
    const fifo = join(folder, "fifo");
    assert.equal(spawnSync("mkfifo", [fifo]).status, 0);
    const opened = Array.from({ length: 8 }, () => openFile(fifo, constants.O_RDONLY));
    guest.checkAll();
    await pager.close();
    // Each reader waits for a writer: this one lets them all go.
    const writer = await new Promise<number>((resolve, reject) => {
      const fd = local.call("openat", -100, pathAddress(fifo), constants.O_RDWR, 0);
      fd < 0 ? reject(new Error(`open answered ${fd}`)) : resolve(fd);
    });
    for (const fd of await Promise.all(opened)) local.call("close", fd);
    local.call("close", writer);
  });

  test("installAll() brings everything, tells its progress, and faults go on meanwhile", async (t) => {
    const guest = guestFor(t, { pages: 16384 });
    const pager = await guest.pager();
    const progress: InstallProgress[] = [];
    const all = pager.installAll({ onProgress: (now) => progress.push(now), pieceBytes: 65536 });
    for (const page of [16383, 8000, 0]) assert.equal(guest.load(page), imageByte(page));
    await all;
    assert.deepEqual(progress.at(-1), { bytesDone: guest.byteLength, bytesTotal: guest.byteLength });
    const { faults, bytesInstalled } = pager.statistics();
    assert.equal(bytesInstalled, guest.byteLength);
    guest.thread.walk({ base: guest.base, order: { count: guest.pages, stride: 1 } });
    const expected = Array.from({ length: guest.pages }, (_, page) => imageByte(page));
    assert.equal(
      guest.finish(),
      expected.reduce((sum, byte) => sum + byte, 0),
    );
    assert.equal(pager.statistics().faults, faults, "nothing was missing any more");
    await pager.installAll();
  });

  test("installAll() ends when it is aborted, and the pager goes on", async (t) => {
    const guest = guestFor(t, { pages: 16384 });
    const pager = await guest.pager();
    const controller = new AbortController();
    const all = pager.installAll({ signal: controller.signal, pieceBytes: PAGE_SIZE });
    controller.abort(new Error("enough"));
    await assert.rejects(all, /enough/);
    assert.equal(guest.load(16383), imageByte(16383));
    await assert.rejects(pager.installAll({ pieceBytes: 5 }), { code: "ERR_OUT_OF_RANGE" });
    await pager.close();
    await assert.rejects(pager.installAll(), { code: "ERR_CLOSED" });
  });

  test("two installAll() at a time are refused", async (t) => {
    const pager = await guestFor(t).pager();
    const first = pager.installAll();
    await assert.rejects(pager.installAll(), { code: "ERR_BUSY" });
    await first;
  });

  test("close() wakes whoever waits: with the next pager they go on", async (t) => {
    const guest = guestFor(t);
    guest.thread.start({ kind: "load", address: guest.address(9), size: 1 });
    guest.process.settle();
    // A message that was read and lost: nobody knows of this thread any more.
    const { messages } = new Ioctls(guest.process, guest.uffd.fd).read(1);
    assert.equal(messages.length, 1);
    const first = await guest.pager();
    assert.equal(guest.thread.ending, undefined);
    await first.close();
    assert.deepEqual(await first.ended, { reason: "closed" });
    await first.close();
    await guest.pager();
    assert.equal(guest.finish(), imageByte(9));
  });

  test("close() of the last descriptor lets waiting threads go on with zeros", async (t) => {
    const guest = guestFor(t);
    guest.thread.start({ kind: "load", address: guest.address(9), size: 1 });
    guest.process.settle();
    assert.equal(new Ioctls(guest.process, guest.uffd.fd).read(1).messages.length, 1);
    const pager = await guest.pager();
    guest.uffd.close();
    await pager.close();
    assert.equal(guest.finish(), 0);
  });

  test("close() serves what has arrived before", async (t) => {
    const guest = guestFor(t);
    const threads = Array.from({ length: 4 }, () => guest.process.spawnThread());
    const pager = await guest.pager({ placement: "same-cpu" });
    for (const [index, thread] of threads.entries())
      thread.start({ kind: "load", address: guest.address(index * 16), size: 1 });
    guest.process.settle();
    await pager.close();
    for (const [index, thread] of threads.entries())
      assert.equal(guest.finish(thread), imageByte(index * 16));
  });

  test("notices the end of its guest", async (t) => {
    const guest = guestFor(t);
    const pager = await guest.pager({ placement: "same-cpu" });
    guest.load(1);
    guest.process.kill();
    assert.deepEqual(await pager.ended, { reason: "guest-gone" });
  });

  test("a file that shrinks under it: the page is poisoned, the error surfaces, the rest is served", async (t) => {
    const guest = guestFor(t, { pages: 8 });
    const folder = await mkdtemp(join(tmpdir(), "minorfault-test-"));
    t.after(() => rm(folder, { recursive: true }));
    const path = join(folder, "image");
    await writeFile(path, Buffer.alloc(8 * PAGE_SIZE, 5));
    const errors: MinorfaultError[] = [];
    const pager = await guest.pager({ image: { path }, onError: (error) => errors.push(error) });
    await truncate(path, 4 * PAGE_SIZE);
    guest.thread.start({ kind: "load", address: guest.address(6), size: 1 });
    assert.equal(guest.signalOf(), SIGNAL.SIGBUS);
    assert.equal(guest.load(2), 5);
    await pager.close();
    assert.deepEqual(
      errors.map(({ code, address }) => [code, address]),
      [["ERR_HANDLER_FAILED", guest.address(6)]],
    );
    assert.ok(errors[0]?.cause instanceof MinorfaultError);
    assert.equal(errors[0].cause.errno, 14);
    assert.equal(pager.statistics().outcomes.poisoned, 1);
  });

  test("serves a forked child on its own userfaultfd, and the parent on", async (t) => {
    const guest = guestFor(t, { features: ["EVENT_FORK"] });
    const pager = await guest.pager({ plan: { faultAroundPages: 1 } });
    const before = userfaultfds();
    guest.load(0);
    const { thread, child } = guest.process.fork();
    assert.ok(guest.finish(thread) > 0);
    const process = child();
    assert.ok(process !== undefined);
    const faulting = process.spawnThread();
    assert.equal(guest.load(0, faulting), imageByte(0), "resident before the fork");
    assert.equal(guest.load(5, faulting), imageByte(5));
    assert.equal(guest.load(5), imageByte(5));
    assert.equal(pager.statistics().faults, 3);
    process.kill();
    assert.equal(guest.load(7), imageByte(7));
    // The kernel lets go of the child's userfaultfd only when the pager has noticed and closed it.
    const until = performance.now() + 10_000;
    while (userfaultfds() > before && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.equal(userfaultfds(), before, "the child's descriptor has been closed");
  });

  test("everything is installed in forked children as well, those that were born before", async (t) => {
    const guest = guestFor(t, { features: ["EVENT_FORK"] });
    const pager = await guest.pager({ plan: { faultAroundPages: 1 } });
    const children = [1, 2].map(() => {
      const { thread, child } = guest.process.fork();
      assert.ok(guest.finish(thread) > 0);
      return child();
    });
    const progress: { bytesDone: number; bytesTotal: number }[] = [];
    await pager.installAll({ onProgress: (now) => progress.push({ ...now }) });
    const whole = 3 * guest.byteLength;
    assert.deepEqual(progress.at(-1), { bytesDone: whole, bytesTotal: whole });
    const { faults } = pager.statistics();
    for (const child of children) {
      assert.ok(child !== undefined);
      const thread = child.spawnThread();
      for (let page = 0; page < guest.pages; page++) assert.equal(guest.load(page, thread), imageByte(page));
      child.kill();
    }
    guest.checkAll();
    assert.equal(pager.statistics().faults, faults, "nobody had to wait");
    await pager.installAll();
  });

  test("a storm of discards beside faults: everything is served, discarded pages read as zeros", async (t) => {
    const guest = guestFor(t, { pages: 512, features: ["EVENT_REMOVE"] });
    const pager = await guest.pager({ placement: "auto", plan: { faultAroundPages: 4 } });
    const discarder = guest.process.spawnThread();
    for (let page = 0; page < 256; page++) {
      const args = [guest.address(256 + page), PAGE_SIZE, MADV.DONTNEED];
      discarder.start({ kind: "call", name: "madvise", args });
      assert.equal(guest.load(page), imageByte(page));
      assert.equal(guest.finish(discarder), 0);
    }
    for (let page = 256; page < 512; page++) assert.equal(guest.load(page), 0);
    const { faults, outcomes, events } = pager.statistics();
    const { copied, zeroed, continued, poisoned, woken } = outcomes;
    assert.equal(copied + zeroed + continued + poisoned + woken, faults);
    assert.equal(events, 256);
  });

  test("a pager that has been closed leaves no descriptor and no thread behind", async (t) => {
    const guest = guestFor(t);
    await (await guest.pager()).close();
    const [fds, threads] = [userfaultfds(), readdirSync("/proc/self/task").length];
    for (let round = 0; round < 5; round++) {
      const pager = await guest.pager();
      guest.load(round);
      await pager.close();
    }
    assert.equal(userfaultfds(), fds);
    assert.equal(readdirSync("/proc/self/task").length, threads);
  });

  test("several threads that touch the same pages are all served", async (t) => {
    const guest = guestFor(t, { pages: 4096 });
    const pager = await guest.pager({ placement: "auto", plan: { faultAroundPages: 1 } });
    const threads = Array.from({ length: 4 }, () => guest.process.spawnThread());
    const count = guest.pages;
    for (const thread of threads) thread.walk({ base: guest.base, order: { count, stride: 1 } });
    const sums = new Set(threads.map((thread) => guest.finish(thread)));
    assert.equal(sums.size, 1);
    const { faults, outcomes, bytesInstalled } = pager.statistics();
    assert.equal(outcomes.copied + outcomes.zeroed + outcomes.woken, faults);
    assert.equal(bytesInstalled, guest.byteLength, "every page was brought once");
  });

  for (const how of ["exit", "throw"]) {
    test(`a program that ends (${how}) while its pager waits does end`, () => {
      const program = fileURLToPath(new URL("./fixtures/leave.js", import.meta.url));
      const { status, stdout } = spawnSync(process.execPath, [program, how], {
        timeout: 60_000,
        encoding: "utf8",
      });
      assert.equal(stdout, "serving\n");
      assert.equal(status, how === "exit" ? 7 : 1);
    });
  }

  test("2 MiB huge pages are installed whole, zero pages and all", {
    skip: hugePagesMissing(),
  }, async (t) => {
    const before = readFileSync(POOL, "utf8");
    writeFileSync(POOL, String(Number(before) + 8));
    t.after(() => writeFileSync(POOL, before));
    const guest = guestFor(t, { pages: 4, pageSize: HUGE_PAGE_SIZE, features: ["EVENT_REMOVE"] });
    const pager = await guest.pager();
    assert.equal(guest.load(1), imageByte(1));
    assert.equal(pager.statistics().bytesInstalled, HUGE_PAGE_SIZE);
    const discarder = guest.process.spawnThread();
    const args = [guest.address(1), HUGE_PAGE_SIZE, MADV.DONTNEED];
    discarder.start({ kind: "call", name: "madvise", args });
    assert.equal(guest.finish(discarder), 0);
    assert.equal(guest.load(1), 0);
    await pager.installAll();
    guest.checkAll((page) => (page === 1 ? 0 : imageByte(page)));
  });
});

test("startPager() refuses what can't be right before it asks the system", { skip }, async () => {
  const good: PagerOptions = {
    descriptor: 5,
    regions: [{ start: 0x10000, byteLength: PAGE_SIZE, imageOffset: 0 }],
    image: { address: 0x1000, byteLength: PAGE_SIZE },
  };
  const region = good.regions[0]!;
  const bad: readonly [string, string, Partial<PagerOptions>][] = [
    ["a descriptor that is none", "ERR_BAD_ARGUMENT", { descriptor: Number.NaN }],
    ["a negative descriptor", "ERR_OUT_OF_RANGE", { descriptor: -1 }],
    ["no region", "ERR_BAD_ARGUMENT", { regions: [] }],
    ["an unaligned start", "ERR_UNALIGNED", { regions: [{ ...region, start: 0x10001 }] }],
    ["an unaligned length", "ERR_UNALIGNED", { regions: [{ ...region, byteLength: 5000 }] }],
    ["a length of nothing", "ERR_OUT_OF_RANGE", { regions: [{ ...region, byteLength: 0 }] }],
    ["a fraction", "ERR_BAD_ARGUMENT", { regions: [{ ...region, imageOffset: 0.5 }] }],
    ["an odd page size", "ERR_BAD_ARGUMENT", { regions: [{ ...region, pageSize: 8192 }] }],
    [
      "an end beyond all addresses",
      "ERR_OUT_OF_RANGE",
      { regions: [{ ...region, byteLength: 2 ** 53 - PAGE_SIZE }] },
    ],
    ["regions that overlap", "ERR_OUT_OF_RANGE", { regions: [region, region] }],
    ["a region beyond the image", "ERR_OUT_OF_RANGE", { regions: [{ ...region, imageOffset: PAGE_SIZE }] }],
    ["a window that is no power of two", "ERR_OUT_OF_RANGE", { plan: { faultAroundPages: 3 } }],
    ["a window that is too large", "ERR_OUT_OF_RANGE", { plan: { faultAroundPages: 1024 } }],
    ["a placement that there is not", "ERR_BAD_ARGUMENT", { placement: "somewhere" as "auto" }],
    ["a guest without a number", "ERR_OUT_OF_RANGE", { guest: { pid: 0 } }],
    ["a descriptor that is not open", "ERR_SYSCALL", { descriptor: 9999 }],
    ["an image that is not there", "ERR_SYSCALL", { image: { path: "/nowhere/at/all" } }],
  ];
  for (const [what, code, options] of bad) {
    await assert.rejects(startPager({ ...good, ...options }), { code }, what);
  }
});

/** How many descriptors of userfaultfds this process has. */
function userfaultfds(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === "anon_inode:[userfaultfd]";
    } catch {
      return false;
    }
  }).length;
}

function hugePagesMissing(): string | false {
  if (skip !== false) return skip;
  try {
    const before = readFileSync(POOL, "utf8");
    writeFileSync(POOL, String(Number(before) + 8));
    const got = Number(readFileSync(POOL, "utf8")) - Number(before);
    writeFileSync(POOL, before);
    return got >= 8 ? false : `the system gave ${got} of 8 huge pages`;
  } catch (error) {
    return `the pool of huge pages can't be changed: ${error instanceof Error ? error.message : error}`;
  }
}

function openFile(path: string, flags: number): Promise<number> {
  return new Promise((resolve, reject) => {
    open(path, flags, (error, fd) => (error === null ? resolve(fd) : reject(error)));
  });
}

function pathAddress(path: string): number {
  local.scratch.bytes.set(new TextEncoder().encode(`${path}\0`));
  return local.scratch.address;
}
