// Many guests in one serving thread, on the real kernel.

import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { PAGE_SIZE, SIGNAL } from "../../src/abi/memory.ts";
import type { MinorfaultError } from "../../src/base/errors.ts";
import { addWorkingSet, buildImage } from "../../src/image/index.ts";
import { close, isNonBlocking, local, memfd, setNonBlocking } from "../../src/linux/index.ts";
import {
  openPagerHost,
  type Pager,
  type PagerHost,
  type PagerHostOptions,
  type PagerOptions,
  pagerStateBytes,
  type ReplayReport,
} from "../../src/pager/index.ts";
import { MemorySource, openStore } from "../../src/source/index.ts";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import type { Behaviour } from "./fixtures/source.ts";
import { Guest, type GuestOptions, imageByte } from "./guest.ts";

const MODULE = new URL("./fixtures/source.js", import.meta.url).href;
const UNIT_PAGES = 16;
const DEADLINE_MS = 60_000;

function guestFor(t: TestContext, options?: GuestOptions): Guest {
  const guest = new Guest(options);
  t.after(() => guest.close());
  return guest;
}

async function hostFor(t: TestContext, options: PagerHostOptions = {}): Promise<PagerHost> {
  const host = await openPagerHost({ placement: "block", ...options });
  t.after(() => host.close());
  return host;
}

/** An image of so many pages, nothing of it compressed, with a recorded working set. */
async function recordedImage(t: TestContext, imagePages = 1024, setPages = 300) {
  const folder = await mkdtemp(join(tmpdir(), "minorfault-host-"));
  t.after(() => rm(folder, { recursive: true }));
  const store = await openStore(folder);
  const bytes = new Uint8Array(imagePages * PAGE_SIZE);
  for (let page = 0; page < imagePages; page++) {
    bytes.fill(imageByte(page), page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  }
  const regions = [{ name: "ram", source: new MemorySource(bytes) }];
  await buildImage(store, "one", { regions, codec: "none" });
  const pages = Array.from({ length: setPages }, (_, index) => (index * 7) % imagePages);
  const offsets = pages.map((page) => page * PAGE_SIZE);
  await addWorkingSet(store, "one", "boot", offsets);
  return { folder, bytes, pages, source: { url: `${store.url}/one` } };
}

async function packsOf(folder: string): Promise<string[]> {
  const entries = await readdir(join(folder, "packs"), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

/** Nothing that is read of them from now on is right. */
async function spoilPacks(folder: string): Promise<void> {
  for (const path of await packsOf(folder)) {
    await writeFile(path, Buffer.alloc((await stat(path)).size, 0x5a));
  }
}

/** Files of a folder that this process has open. Others come and go on their own. */
function openIn(folder: string): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
    } catch {
      // What the listing itself was made with.
      return false;
    }
  }).length;
}

/** A pager of the host for a guest. */
async function seat(host: PagerHost, guest: Guest, options: Partial<PagerOptions> = {}): Promise<Pager> {
  const descriptor = guest.process.descriptor(guest.uffd.fd);
  try {
    return await host.start({
      descriptor,
      regions: [{ start: guest.base, byteLength: guest.byteLength, imageOffset: 0 }],
      ...(options.source === undefined && {
        image: { descriptor: guest.imageFd, byteLength: guest.byteLength },
      }),
      guest: { pid: guest.process.pid, tid: guest.thread.tid },
      onError: (error) => assert.fail(error),
      ...options,
    });
  } finally {
    close(local, descriptor);
  }
}

function behaving(behaviour: Partial<Behaviour> & Pick<Behaviour, "byteLength">) {
  return { module: MODULE, argument: behaviour };
}

/** For the fixture: reads begun, ended, under way, and the most at once. */
function counters(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(16));
}

async function until(isSo: () => boolean): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  while (!isSo()) {
    assert.ok(performance.now() < end, "it did not come to pass");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("a host of pagers", { skip, timeout: 300_000 }, () => {
  for (const placement of ["same-cpu", "spin", "block"] as const) {
    test(`serves guests with memory of their own by one thread, placement ${placement}; they come and go`, async (t) => {
      const host = await hostFor(t, { placement });
      const guests = Array.from({ length: 6 }, () => guestFor(t));
      const pagers = await Promise.all(guests.map((guest) => seat(host, guest)));
      assert.equal(host.guests, 6);
      assert.equal(new Set(pagers.map(({ threadId }) => threadId)).size, 1);
      for (const page of [0, 40, 63]) {
        for (const guest of guests) assert.equal(guest.load(page), imageByte(page));
      }
      const [first, second, ...others] = guests;
      first!.process.kill();
      assert.equal((await pagers[0]!.ended).reason, "guest-gone");
      await pagers[1]!.close();
      assert.equal((await pagers[1]!.ended).reason, "closed");
      assert.equal(host.guests, 4);
      const late = guestFor(t);
      await seat(host, late);
      for (const guest of [...others, late]) guest.checkAll();
      // What its pager had brought is still there.
      assert.equal(second!.load(40), imageByte(40));
    });
  }

  test("each guest has its own counters, trace, errors, and work beside faults", async (t) => {
    const host = await hostFor(t);
    const [traced, filled, failing] = [guestFor(t), guestFor(t, { pages: 1024 }), guestFor(t)];
    const errors: MinorfaultError[] = [];
    const tracer = await seat(host, traced, { trace: true });
    const filler = await seat(host, filled);
    const image = { address: 4096, byteLength: failing.byteLength };
    const loser = await seat(host, failing, { image, onError: (error) => errors.push(error) });
    for (const page of [9, 3, 60]) traced.load(page);
    await filler.installAll();
    failing.thread.start({ kind: "load", address: failing.address(7), size: 1 });
    assert.equal(failing.signalOf(), SIGNAL.SIGBUS);
    assert.deepEqual(
      tracer.trace().touches.map(({ offset }) => offset / PAGE_SIZE),
      [9, 3, 60],
    );
    assert.equal(tracer.statistics().bytesInstalled, 3 * PAGE_SIZE);
    assert.deepEqual(
      [filler.statistics().faults, filler.statistics().bytesInstalled],
      [0, filled.byteLength],
    );
    await until(() => loser.statistics().outcomes.poisoned === 1 && errors.length === 1);
    assert.deepEqual(await loser.repair(), { repaired: 0, lost: 1 });
    assert.equal(await tracer.replayed, undefined);
  });

  test("guests of one source share its reader: what one has fetched the other finds", async (t) => {
    const host = await hostFor(t);
    const [one, two] = [guestFor(t), guestFor(t)];
    const reads = counters();
    const source = behaving({ byteLength: one.byteLength, delayMs: 50, reads });
    const [pager] = await Promise.all([seat(host, one, { source }), seat(host, two, { source })]);
    for (const guest of [one, two]) {
      guest.thread.start({ kind: "load", address: guest.address(3), size: 1 });
    }
    assert.deepEqual([one.finish(), two.finish()], [imageByte(3), imageByte(3)]);
    assert.equal(reads[0], 1, "both waited for one read");
    assert.equal(one.load(UNIT_PAGES), imageByte(UNIT_PAGES));
    await until(() => reads[2] === 0);
    const before = reads[0];
    assert.equal(two.load(UNIT_PAGES), imageByte(UNIT_PAGES));
    assert.equal(reads[0], before, "it was staged");
    await pager.close();
    two.checkAll();
    const first = reads[0]!;
    const other = guestFor(t);
    await seat(host, other, { source: { ...source, fetchesMax: 2 } });
    other.checkAll();
    assert.ok(reads[0]! > first, "another limit, another reader");
  });

  test("each guest of an image gets its replay, when it comes", async (t) => {
    const { source, bytes, pages } = await recordedImage(t);
    const host = await hostFor(t);
    const warm = await host.warm(source);
    assert.deepEqual([warm.byteLength, warm.workingSets], [bytes.byteLength, ["boot"]]);
    const guests = Array.from({ length: 5 }, () => guestFor(t, { pages: 1024 }));
    const pagers = await Promise.all(guests.map((guest) => seat(host, guest, { source })));
    for (const [index, pager] of pagers.entries()) {
      const report = await pager.replayed;
      assert.deepEqual([report?.workingSet, report?.error], ["boot", undefined]);
      assert.equal(report?.bytesInstalled, 300 * PAGE_SIZE, `guest ${index}`);
      for (const page of pages) assert.equal(guests[index]!.load(page), imageByte(page));
      assert.equal(pager.statistics().faults, 0);
    }
    const plain = guestFor(t, { pages: 1024 });
    const without = await seat(host, plain, { source: { ...source, replay: false } });
    assert.equal(await without.replayed, undefined);
    await assert.rejects(seat(host, guestFor(t, { pages: 1024 }), { source: { ...source, replay: "tea" } }), {
      code: "ERR_SOURCE_MISSING",
    });
    plain.checkAll();
    await warm.close();
    await warm.close();
    guests[0]!.checkAll();
  });

  test("a working set that is kept was verified once: what becomes of its pack is nothing to later guests", async (t) => {
    const { folder, source, pages } = await recordedImage(t);
    const host = await hostFor(t);
    const warm = await host.warm(source);
    warm.keep();
    const served = async (): Promise<ReplayReport | undefined> => {
      const guest = guestFor(t, { pages: 1024 });
      const pager = await seat(host, guest, { source });
      const report = await pager.replayed;
      for (const page of pages) assert.equal(guest.load(page), imageByte(page));
      assert.equal(pager.statistics().faults, 0);
      await pager.close();
      return report;
    };
    assert.equal((await served())?.bytesInstalled, pages.length * PAGE_SIZE);
    await spoilPacks(folder);
    const reports = await Promise.all([served(), served(), served()]);
    for (const report of reports) {
      assert.deepEqual([report?.error, report?.bytesInstalled], [undefined, pages.length * PAGE_SIZE]);
    }
    await warm.close();
  });

  test("a set that is kept may be larger than what is on its way at once", async (t) => {
    // 20 MiB, and a slot of what is on its way has 256 KiB: more than all 64 of those have.
    const { folder, source, pages } = await recordedImage(t, 6144, 5120);
    const host = await hostFor(t);
    const warm = await host.warm(source);
    warm.keep();
    for (let time = 0; time < 2; time++) {
      const pager = await seat(host, guestFor(t, { pages: 6144 }), { source });
      const report = await pager.replayed;
      assert.deepEqual([report?.error, report?.bytesInstalled], [undefined, pages.length * PAGE_SIZE]);
      await pager.close();
      // The second one has it from what was kept.
      await spoilPacks(folder);
    }
    await warm.close();
  });

  test("a working set whose pack is damaged is not kept: guests hear of it, and get their pages by faults", async (t) => {
    const { folder, source, pages } = await recordedImage(t);
    const sizes = await Promise.all(
      (await packsOf(folder)).map(async (path) => ({ path, size: (await stat(path)).size })),
    );
    // The pages of the set are stored once more, in a pack of their own: the smaller one of the two that have pages.
    const [, set] = sizes.sort((a, b) => b.size - a.size);
    const bytes = await readFile(set!.path);
    bytes[bytes.byteLength >> 1]! ^= 1;
    await writeFile(set!.path, bytes);
    const host = await hostFor(t);
    const warm = await host.warm(source);
    warm.keep();
    for (let time = 0; time < 2; time++) {
      const guest = guestFor(t, { pages: 1024 });
      const pager = await seat(host, guest, { source });
      assert.equal((await pager.replayed)?.error?.code, "ERR_WRONG_BYTES");
      for (const page of pages) assert.equal(guest.load(page), imageByte(page));
      await pager.close();
    }
    await warm.close();
  });

  test("deadlines are each guest's own, and one that is killed at its deadline takes nobody along", async (t) => {
    const host = await hostFor(t);
    const guests = Array.from({ length: 4 }, () => guestFor(t));
    const source = behaving({ byteLength: guests[0]!.byteLength, hanging: [0] });
    const errors: string[][] = [[], [], [], []];
    const limits = [
      { deadlineMs: 60 },
      { deadlineMs: 100_000 },
      { deadlineMs: 80, atDeadline: "kill" },
      { deadlineMs: 40, atDeadline: "report" },
    ] as const;
    const pagers = await Promise.all(
      guests.map((guest, index) => {
        const onError = ({ code }: MinorfaultError): unknown => errors[index]!.push(code);
        return seat(host, guest, { source: { ...source, ...limits[index] }, onError });
      }),
    );
    for (const guest of guests) guest.thread.start({ kind: "load", address: guest.base, size: 1 });
    assert.equal(guests[0]!.signalOf(), SIGNAL.SIGBUS);
    assert.equal((await pagers[2]!.ended).reason, "guest-gone");
    assert.deepEqual(guests[2]!.thread.ending, { kind: "gone" });
    await until(() => errors[3]!.length === 1);
    assert.deepEqual(errors[3], ["ERR_DEADLINE"]);
    for (const index of [1, 3]) assert.equal(guests[index]!.thread.ending, undefined, `guest ${index}`);
    assert.deepEqual(errors[1], []);
    const other = guests[1]!.process.spawnThread();
    assert.equal(guests[1]!.load(40, other), imageByte(40));
  });

  test("a guest that makes its userfaultfd wait keeps nobody waiting, itself neither", async (t) => {
    const host = await hostFor(t);
    const [hostile, other] = [guestFor(t), guestFor(t)];
    for (const guest of [hostile, other]) await seat(host, guest);
    for (let page = 0; page < 64; page += 16) {
      setNonBlocking(hostile.process, hostile.uffd.fd, false);
      assert.equal(other.load(page), imageByte(page));
      assert.equal(hostile.load(page), imageByte(page));
    }
    assert.ok(isNonBlocking(hostile.process, hostile.uffd.fd));
  });

  test("one that does it for ever is let go of", async (t) => {
    const host = await hostFor(t);
    const [hostile, other] = [guestFor(t, { pages: 2000 }), guestFor(t)];
    const pager = await seat(host, hostile, { plan: { faultAroundPages: 1 } });
    await seat(host, other);
    let isOver = false;
    void pager.ended.then(() => {
      isOver = true;
    });
    for (let page = 0; page < 2000 && !isOver; page++) {
      setNonBlocking(hostile.process, hostile.uffd.fd, false);
      hostile.thread.start({ kind: "load", address: hostile.address(page), size: 1 });
      await until(() => isOver || hostile.thread.ending !== undefined);
    }
    const ended = await pager.ended;
    assert.ok(ended.reason === "failed" && ended.error.code === "ERR_LIMIT");
    other.checkAll();
  });

  test("guests that come and go leave nothing behind: no descriptor, no mapping", async (t) => {
    const host = await hostFor(t);
    const guest = guestFor(t, { features: ["EVENT_REMOVE"] });
    const stateDescriptor = memfd(local, "host-test", pagerStateBytes([guest]));
    t.after(() => close(local, stateDescriptor));
    const source = behaving({ byteLength: guest.byteLength });
    const warm = await host.warm(source);
    const comeAndGo = async (times: number): Promise<void> => {
      for (let time = 0; time < times; time++) {
        const pager = await seat(host, guest, { stateDescriptor, adopt: true });
        assert.equal(guest.load(time % 64), imageByte(time % 64));
        await pager.close();
        await (await seat(host, guest, { source })).close();
      }
    };
    const count = (): [fds: number, mappings: number] => [
      readdirSync("/proc/self/fd").length,
      readFileSync("/proc/self/maps", "latin1").split("\n").length,
    ];
    await comeAndGo(20);
    const [fds, mappings] = count();
    await comeAndGo(200);
    const [fdsAfter, mappingsAfter] = count();
    // Fewer, when what the tests before this one had open was still being closed.
    assert.ok(fdsAfter <= fds, `${fds} descriptors before, ${fdsAfter} after`);
    assert.ok(mappingsAfter < mappings + 50, `${mappings} mappings before, ${mappingsAfter} after`);
    await warm.close();
  });

  test("images that come and go leave no descriptor in the thread that served them", async (t) => {
    const host = await hostFor(t);
    const guest = guestFor(t, { pages: 1024 });
    const comeAndGo = async (page: number): Promise<void> => {
      const { folder, source } = await recordedImage(t);
      const pager = await seat(host, guest, { source: { ...source, replay: false } });
      assert.equal(guest.load(page), imageByte(page));
      assert.ok(openIn(folder) > 0);
      await pager.close();
      assert.equal(openIn(folder), 0);
    };
    for (let time = 0; time < 8; time++) await comeAndGo(time * 100);
  });

  test("what can't be is refused, and nobody else notices", async (t) => {
    const host = await hostFor(t, { guestsMax: 2 });
    const guest = guestFor(t);
    await seat(host, guest);
    const bad = { source: behaving({ byteLength: guest.byteLength, refuses: true }) };
    await assert.rejects(seat(host, guestFor(t), bad), { code: "ERR_SOURCE_DENIED" });
    const image = { descriptor: 9999, byteLength: guest.byteLength };
    await assert.rejects(seat(host, guestFor(t), { image }), { code: "ERR_SYSCALL" });
    const forking = guestFor(t, { features: ["EVENT_FORK"] });
    const stateDescriptor = memfd(local, "host-test", pagerStateBytes([forking]));
    t.after(() => close(local, stateDescriptor));
    await assert.rejects(seat(host, forking, { stateDescriptor }), { code: "ERR_BAD_ARGUMENT" });
    const other = guestFor(t, { pages: 32 });
    await (await seat(host, other, { stateDescriptor })).close();
    await assert.rejects(seat(host, other, { stateDescriptor }), { code: "ERR_BAD_ARGUMENT" });
    await seat(host, guestFor(t));
    await assert.rejects(seat(host, guestFor(t)), { code: "ERR_LIMIT" });
    guest.checkAll();
    await host.close();
    await assert.rejects(seat(host, guestFor(t)), { code: "ERR_CLOSED" });
    await assert.rejects(openPagerHost({ guestsMax: 0 }), { code: "ERR_OUT_OF_RANGE" });
  });
});
