// The pager with bytes that have to be fetched, on the real kernel: raw files, images, and sources that misbehave.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { Worker } from "node:worker_threads";
import { MADV, PAGE_SIZE, SIGNAL } from "../../src/abi/memory.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { addWorkingSet, buildImage } from "../../src/image/index.ts";
import { mergeTraces, type Pager, type PagerOptions, type PagerStatistics } from "../../src/pager/index.ts";
import { MemorySource, openStore } from "../../src/source/index.ts";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import type { Behaviour } from "./fixtures/source.ts";
import { Guest, type GuestOptions, imageByte } from "./guest.ts";

const MODULE = new URL("./fixtures/source.js", import.meta.url).href;
const UNIT_PAGES = 16;
const UNIT_BYTES = UNIT_PAGES * PAGE_SIZE;

function guestFor(t: TestContext, options?: GuestOptions): Guest {
  const guest = new Guest(options);
  t.after(() => guest.close());
  return guest;
}

async function folderFor(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "minorfault-source-"));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

function content(pages: number, byteOf: (page: number) => number = imageByte): Uint8Array {
  const bytes = new Uint8Array(pages * PAGE_SIZE);
  for (let page = 0; page < pages; page++) bytes.fill(byteOf(page), page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  return bytes;
}

/** A pager whose source is the fixture's. */
function behaving(guest: Guest, behaviour: Partial<Behaviour>, options: Partial<PagerOptions> = {}) {
  const argument = { byteLength: guest.byteLength, ...behaviour };
  return guest.pager({ source: { module: MODULE, argument }, ...options });
}

/** The URL of a folder behind a web server. */
async function webServer(t: TestContext, folder: string): Promise<string> {
  const worker = new Worker(new URL("./fixtures/web-server.js", import.meta.url), { workerData: { folder } });
  t.after(() => worker.terminate());
  const [address] = (await once(worker, "message")) as [{ port: number }];
  return `http://127.0.0.1:${address.port}`;
}

/** For the fixture: reads begun, ended, under way, and the most at once. */
function counters(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(16));
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** The statistics when every fault has been booked: a thread goes on a moment before its fault is. */
async function settled(pager: Pager, bytes?: number): Promise<PagerStatistics> {
  const until = performance.now() + 5000;
  for (;;) {
    const statistics = pager.statistics();
    const { copied, zeroed, continued, poisoned, woken } = statistics.outcomes;
    const isBooked = copied + zeroed + continued + poisoned + woken === statistics.faults;
    if (isBooked && (bytes === undefined || bytes === statistics.bytesInstalled)) return statistics;
    assert.ok(performance.now() < until, JSON.stringify(statistics));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("a pager with a source", { skip, timeout: 300_000 }, () => {
  for (const placement of ["same-cpu", "spin", "block"] as const) {
    test(`brings a raw file's bytes, placement ${placement}`, async (t) => {
      const path = join(await folderFor(t), "raw");
      await writeFile(path, content(64));
      const guest = guestFor(t);
      const pager = await guest.pager({ source: { url: path }, placement });
      guest.checkAll();
      const { faults, outcomes, bytesInstalled } = await settled(pager, guest.byteLength);
      assert.equal(bytesInstalled, guest.byteLength);
      assert.ok(faults >= 1 && faults <= 4 && outcomes.copied + outcomes.woken === faults);
    });
  }

  test("a raw file that ends within a page is completed with zeros", async (t) => {
    const path = join(await folderFor(t), "raw");
    await writeFile(path, content(21).subarray(0, 20 * PAGE_SIZE + 100));
    const guest = guestFor(t, { pages: 21 });
    await guest.pager({ source: { url: path } });
    guest.checkAll();
    guest.thread.start({ kind: "load", address: guest.address(20) + 100, size: 1 });
    assert.equal(guest.finish(), 0);
  });

  test("brings an image's chunks, and zeros for its holes without fetching them", async (t) => {
    const store = await openStore(await folderFor(t));
    const isHole = (page: number): boolean => page >= 64 && page < 192;
    const bytes = content(256, (page) => (isHole(page) ? 0 : imageByte(page)));
    await buildImage(store, "one", { regions: [{ name: "ram", source: new MemorySource(bytes) }] });
    const guest = guestFor(t, { pages: 256 });
    const pager = await guest.pager({ source: { url: `${store.url}/one` } });
    guest.checkAll((page) => (isHole(page) ? 0 : imageByte(page)));
    const { outcomes, bytesZeroed, bytesInstalled } = await settled(pager, guest.byteLength);
    assert.ok(outcomes.zeroed > 0 && outcomes.copied > 0);
    assert.deepEqual([bytesZeroed, bytesInstalled], [128 * PAGE_SIZE, guest.byteLength]);
  });

  test("brings an image, its working set and a raw object from a web server", async (t) => {
    const folder = await folderFor(t);
    const store = await openStore(folder);
    const bytes = content(512);
    await buildImage(store, "one", { regions: [{ name: "ram", source: new MemorySource(bytes) }] });
    await addWorkingSet(
      store,
      "one",
      "boot",
      [300, 7, 301].map((page) => page * PAGE_SIZE),
    );
    await writeFile(join(folder, "raw"), bytes);
    const base = await webServer(t, folder);

    const guest = guestFor(t, { pages: 512 });
    const pager = await guest.pager({ source: { url: `${base}/one`, deadlineMs: 20_000 } });
    const report = await pager.replayed;
    assert.deepEqual([report?.error, report?.bytesInstalled], [undefined, 3 * PAGE_SIZE]);
    guest.checkAll();
    const other = guestFor(t, { pages: 512 });
    await other.pager({ source: { url: `${base}/raw`, deadlineMs: 20_000 } });
    other.checkAll();
    await assert.rejects(guest.pager({ source: { url: `${base}/none` } }), { code: "ERR_SOURCE_MISSING" });
  });

  test("a chunk that was tampered with is never installed: SIGBUS, and an error that names it", async (t) => {
    const store = await openStore(await folderFor(t));
    const bytes = content(64);
    const source = new MemorySource(bytes);
    const { packs } = await buildImage(store, "one", { regions: [{ name: "ram", source }], codec: "none" });
    const folder = join(store.url, "packs");
    const [largest] = [...packs].sort((a, b) => b.byteLength - a.byteLength);
    const names = await readdir(folder, { recursive: true });
    const path = join(folder, names.find((name) => name.endsWith(largest?.name ?? ""))!);
    const stored = await readFile(path);
    // Somewhere in the chunk whose pages are 16 to 31.
    const at = stored.indexOf(Buffer.alloc(PAGE_SIZE, imageByte(20)));
    assert.ok(at > 0, "the page lies in the pack as it is");
    stored[at + 99]! ^= 1;
    await writeFile(path, stored);

    const guest = guestFor(t);
    const errors: MinorfaultError[] = [];
    const url = `${store.url}/one`;
    const pager = await guest.pager({ source: { url }, onError: (error) => errors.push(error) });
    for (const page of [20, 16, 31]) {
      guest.thread.start({ kind: "load", address: guest.address(page), size: 1 });
      assert.equal(guest.signalOf(), SIGNAL.SIGBUS, `page ${page}`);
    }
    for (const page of [0, 15, 32, 63]) assert.equal(guest.load(page), imageByte(page));
    await until(() => errors.length === 3);
    const [{ cause } = {}] = errors;
    assert.ok(cause instanceof MinorfaultError && cause.code === "ERR_WRONG_BYTES", String(cause));
    assert.match(cause.message, /chunk 1 of /);
    const { outcomes } = await settled(pager);
    assert.equal(outcomes.poisoned, 3);
  });

  test("a source that can't be opened is the start's error, with the source's own code", async (t) => {
    const guest = guestFor(t);
    await assert.rejects(behaving(guest, { refuses: true }), { code: "ERR_SOURCE_DENIED" });
    const url = join(await folderFor(t), "nothing");
    await assert.rejects(guest.pager({ source: { url } }), { code: "ERR_SOURCE_MISSING" });
    await assert.rejects(behaving(guest, { byteLength: PAGE_SIZE }), { code: "ERR_OUT_OF_RANGE" });
  });

  test("many threads at one unit cause one read; another unit is read meanwhile", async (t) => {
    const guest = guestFor(t);
    const reads = counters();
    await behaving(guest, { delayMs: 100, reads });
    const threads = Array.from({ length: 6 }, () => guest.process.spawnThread());
    for (const [index, thread] of threads.entries()) {
      thread.start({
        kind: "load",
        address: guest.address(index < 4 ? index : 3 * UNIT_PAGES + index),
        size: 1,
      });
    }
    for (const [index, thread] of threads.entries()) {
      assert.equal(guest.finish(thread), imageByte(index < 4 ? index : 3 * UNIT_PAGES + index));
    }
    assert.deepEqual([...reads], [2, 2, 0, 2], "two reads, both at the same time");
  });

  test("a read that fails poisons the page and tells the owner; other pages are served; repair() brings it", async (t) => {
    const guest = guestFor(t);
    const errors: MinorfaultError[] = [];
    const pager = await behaving(
      guest,
      { failing: [UNIT_BYTES], heals: true },
      { onError: (error) => errors.push(error) },
    );
    guest.thread.start({ kind: "load", address: guest.address(UNIT_PAGES + 3), size: 1 });
    assert.equal(guest.signalOf(), SIGNAL.SIGBUS);
    assert.equal(guest.load(2), imageByte(2));
    await new Promise((resolve) => setImmediate(resolve));
    const [error] = errors;
    assert.equal(error?.code, "ERR_HANDLER_FAILED");
    assert.equal(error.address, guest.address(UNIT_PAGES + 3));
    assert.ok(error.cause instanceof MinorfaultError && error.cause.code === "ERR_SOURCE_FAILED");
    assert.equal((await settled(pager)).outcomes.poisoned, 1);

    const report = await pager.repair();
    assert.deepEqual(report, { repaired: 1, lost: 0 });
    assert.equal(guest.load(UNIT_PAGES + 3), imageByte(UNIT_PAGES + 3));
    assert.deepEqual(await pager.repair(), { repaired: 0, lost: 0 });
  });

  test("repair() of a page whose source still fails leaves it poisoned and says so", async (t) => {
    const guest = guestFor(t);
    const pager = await behaving(guest, { failing: [0] }, { onError: () => undefined });
    guest.thread.start({ kind: "load", address: guest.address(3), size: 1 });
    assert.equal(guest.signalOf(), SIGNAL.SIGBUS);
    assert.deepEqual(await pager.repair({ start: guest.base, until: guest.address(8) }), {
      repaired: 0,
      lost: 1,
    });
    guest.thread.start({ kind: "load", address: guest.address(3), size: 1 });
    assert.equal(guest.signalOf(), SIGNAL.SIGBUS);
  });

  test("a read that never ends: the page is poisoned at the deadline, and all else goes on", async (t) => {
    const guest = guestFor(t);
    const errors: MinorfaultError[] = [];
    const source = {
      module: MODULE,
      argument: { byteLength: guest.byteLength, hanging: [0] },
      deadlineMs: 60,
    };
    await guest.pager({ source, onError: (error) => errors.push(error) });
    const started = performance.now();
    guest.thread.start({ kind: "load", address: guest.base, size: 1 });
    const other = guest.process.spawnThread();
    assert.equal(guest.load(40, other), imageByte(40));
    assert.equal(guest.signalOf(), SIGNAL.SIGBUS);
    const ms = performance.now() - started;
    assert.ok(ms >= 59, `${ms} ms`);
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(errors[0]?.cause instanceof MinorfaultError && errors[0].cause.code === "ERR_DEADLINE");
  });

  test("atDeadline kill: the guest is killed, and sees neither zeros nor SIGBUS", async (t) => {
    const guest = guestFor(t);
    const argument = { byteLength: guest.byteLength, hanging: [0] };
    const source = { module: MODULE, argument, deadlineMs: 40, atDeadline: "kill" } as const;
    await assert.rejects(guest.pager({ source, guest: { pid: process.pid } }), { code: "ERR_BAD_ARGUMENT" });
    const pager = await guest.pager({ source, onError: () => undefined });
    guest.thread.start({ kind: "load", address: guest.base, size: 1 });
    assert.equal((await pager.ended).reason, "guest-gone");
    assert.deepEqual(guest.thread.ending, { kind: "gone" });
  });

  test("atDeadline report: the owner is told, and the fault goes on waiting for its bytes", async (t) => {
    const guest = guestFor(t);
    const errors: MinorfaultError[] = [];
    const argument = { byteLength: guest.byteLength, delayMs: 120 };
    const source = { module: MODULE, argument, deadlineMs: 40, atDeadline: "report" } as const;
    await guest.pager({ source, onError: (error) => errors.push(error) });
    assert.equal(guest.load(7), imageByte(7));
    await until(() => errors.length > 0);
    assert.deepEqual(
      errors.map(({ code }) => code),
      ["ERR_DEADLINE"],
    );
  });

  test("what the guest discards while it is fetched is zeros, and stays so when the bytes come late", async (t) => {
    const guest = guestFor(t, { features: ["EVENT_REMOVE"] });
    const reads = counters();
    await behaving(guest, { delayMs: 300, reads });
    guest.thread.start({ kind: "load", address: guest.address(2), size: 1 });
    const other = guest.process.spawnThread();
    await until(() => reads[0] === 1);
    const args = [guest.address(0), 4 * PAGE_SIZE, MADV.DONTNEED];
    other.start({ kind: "call", name: "madvise", args });
    assert.equal(guest.finish(other), 0);
    assert.equal(guest.finish(), 0, "the waiting thread sees zeros");
    await until(() => reads[1] === 1);
    for (const page of [0, 1, 2, 3]) assert.equal(guest.load(page), 0, `page ${page}`);
    for (const page of [4, 15, 16]) assert.equal(guest.load(page), imageByte(page), `page ${page}`);
  });

  test("the thread that fetches dies: every fault that waits ends, with a poisoned page and an error", async (t) => {
    const guest = guestFor(t);
    const errors: MinorfaultError[] = [];
    await behaving(guest, { deadly: [0] }, { onError: (error) => errors.push(error) });
    guest.thread.start({ kind: "load", address: guest.base, size: 1 });
    assert.equal(guest.signalOf(), SIGNAL.SIGBUS);
    guest.thread.start({ kind: "load", address: guest.address(40), size: 1 });
    assert.equal(guest.signalOf(), SIGNAL.SIGBUS);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(errors.length, 2);
  });

  test("installAll() fetches everything, with holes and at a limited rate", async (t) => {
    const guest = guestFor(t, { pages: 256 });
    const argument = { byteLength: guest.byteLength, delayMs: 1 };
    // 16 units of 64 KiB; one is there at once (the burst), the others at 10 MB/s: some 90 ms.
    const source = { module: MODULE, argument, backgroundBytesPerSecond: 10e6 };
    const pager = await guest.pager({ source });
    const started = performance.now();
    const all = pager.installAll();
    assert.equal(guest.load(250), imageByte(250));
    await all;
    const ms = performance.now() - started;
    assert.ok(ms > 30, `${ms} ms`);
    guest.checkAll();
    assert.equal(pager.statistics().bytesInstalled, guest.byteLength);
  });

  test("installAll() passes over what fails, and says so", async (t) => {
    const guest = guestFor(t, { pages: 64 });
    const errors: MinorfaultError[] = [];
    const pager = await behaving(
      guest,
      { failing: [UNIT_BYTES] },
      { onError: (error) => errors.push(error) },
    );
    await pager.installAll();
    assert.equal(pager.statistics().bytesInstalled, 48 * PAGE_SIZE);
    assert.equal(errors[0]?.code, "ERR_HANDLER_FAILED");
  });

  test("a forked child's faults are fetched too", async (t) => {
    const guest = guestFor(t, { features: ["EVENT_FORK"] });
    await behaving(guest, { delayMs: 2 });
    assert.equal(guest.load(1), imageByte(1));
    const { thread, child } = guest.process.fork();
    guest.finish(thread);
    const born = child();
    assert.ok(born !== undefined);
    const childThread = born.spawnThread();
    childThread.start({ kind: "load", address: guest.address(30), size: 1 });
    while (childThread.ending === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.deepEqual(childThread.ending, { kind: "value", value: imageByte(30) });
    born.kill();
  });

  test("a pager closes while reads are outstanding, and leaves no thread behind", async (t) => {
    const guest = guestFor(t);
    const reads = counters();
    const pager = await behaving(guest, { delayMs: 60_000, reads });
    guest.thread.start({ kind: "load", address: guest.base, size: 1 });
    await until(() => reads[0] === 1);
    await pager.close();
    assert.equal(reads[2], 0, "the read was cancelled");
  });

  test("a recorded working set is replayed ahead of the guest, and what it has discarded is left alone", async (t) => {
    const store = await openStore(await folderFor(t));
    const isHole = (page: number): boolean => page >= 512 && page < 640;
    const bytes = content(1024, (page) => (isHole(page) ? 0 : imageByte(page)));
    await buildImage(store, "one", { regions: [{ name: "ram", source: new MemorySource(bytes) }] });
    const url = `${store.url}/one`;
    const pages = [700, 3, 4, 5, 6, 600, 900, 100, 101, 17];

    const recorded = guestFor(t, { pages: 1024 });
    const recorder = await recorded.pager({ source: { url }, trace: true });
    for (const page of pages) recorded.load(page);
    recorded.thread.start({ kind: "store", address: recorded.address(200), value: 9 });
    recorded.finish();
    await settled(recorder);
    const trace = recorder.trace();
    assert.deepEqual(
      trace.touches.map(({ offset }) => offset / PAGE_SIZE),
      [...pages, 200],
    );
    assert.deepEqual(
      trace.touches.map(({ access }) => access),
      [...pages.map(() => "read"), "write"],
    );
    assert.ok(trace.touches.every(({ ms }, index, all) => ms > 0 && ms >= (all[index - 1]?.ms ?? 0)));
    assert.equal(trace.dropped, 0);
    assert.equal(await recorder.replayed, undefined);
    assert.equal(recorder.statistics().bytesInstalled, 11 * PAGE_SIZE, "page by page");
    await addWorkingSet(store, "one", "boot", mergeTraces([trace]));

    const guest = guestFor(t, { pages: 1024 });
    const pager = await guest.pager({ source: { url } });
    const report = await pager.replayed;
    assert.equal(report?.error, undefined);
    assert.deepEqual([report?.workingSet, report?.bytesInstalled], ["boot", 11 * PAGE_SIZE]);
    for (const page of [...pages, 200]) assert.equal(guest.load(page), isHole(page) ? 0 : imageByte(page));
    assert.equal(pager.statistics().faults, 0);
    guest.checkAll((page) => (isHole(page) ? 0 : imageByte(page)));

    const without = guestFor(t, { pages: 1024 });
    const plain = await without.pager({ source: { url, replay: false } });
    assert.equal(await plain.replayed, undefined);
    assert.equal(plain.statistics().bytesInstalled, 0);
    const other = guestFor(t, { pages: 1024 });
    await assert.rejects(other.pager({ source: { url, replay: "tea" } }), { code: "ERR_SOURCE_MISSING" });
  });

  test("a frame of a working set that was tampered with is not installed, whichever thread verifies it", async (t) => {
    const store = await openStore(await folderFor(t));
    const source = new MemorySource(content(1024));
    await buildImage(store, "one", { regions: [{ name: "ram", source }], codec: "none" });
    const pages = Array.from({ length: 640 }, (_, index) => (index * 7) % 1024);
    const set = await addWorkingSet(
      store,
      "one",
      "boot",
      pages.map((page) => page * PAGE_SIZE),
    );
    const folder = join(store.url, "packs");
    const names = await readdir(folder, { recursive: true });
    const path = join(folder, names.find((name) => name.endsWith(set.pack))!);
    const stored = await readFile(path);
    stored[set.listBytes + 6 * 64 * PAGE_SIZE + 99]! ^= 1;
    await writeFile(path, stored);

    const guest = guestFor(t, { pages: 1024 });
    const pager = await guest.pager({ source: { url: `${store.url}/one` } });
    const report = await pager.replayed;
    assert.equal(report?.error?.code, "ERR_WRONG_BYTES");
    assert.match(report.error.message, /frame 6 of working set boot/);
    assert.equal(report.bytesInstalled, 6 * 64 * PAGE_SIZE);
    guest.checkAll();
  });

  test("a raw file is read at the fault, as far as the guest goes on: nobody else is asked", async (t) => {
    const path = join(await folderFor(t), "raw");
    await writeFile(path, content(2050).subarray(0, 2049 * PAGE_SIZE + 7));
    const guest = guestFor(t, { pages: 2050 });
    const pager = await guest.pager({ source: { url: path } });
    guest.checkAll();
    const { faults, away } = await settled(pager, guest.byteLength);
    t.diagnostic(`${faults} faults for 129 units`);
    assert.ok(faults < 20, `${faults} faults for 129 units`);
    assert.deepEqual([away.fetched, away.joined, away.ahead], [0, 0, 0]);
    assert.ok(away.read > 0 && away.read <= faults);
  });

  test("a raw file that was written to since is not installed any more, wide windows or not", async (t) => {
    const path = join(await folderFor(t), "raw");
    await writeFile(path, content(64));
    const guest = guestFor(t, { pages: 64 });
    const errors: MinorfaultError[] = [];
    const pager = await guest.pager({ source: { url: path }, onError: (error) => errors.push(error) });
    await truncate(path, 40 * PAGE_SIZE);
    guest.thread.start({ kind: "load", address: guest.address(3), size: 1 });
    assert.equal(guest.signalOf(), SIGNAL.SIGBUS);
    await until(() => errors.length > 0);
    assert.match(String((errors[0]!.cause as MinorfaultError).code), /ERR_SOURCE_(CHANGED|SHORT)/);
    assert.equal(pager.statistics().outcomes.copied, 0);
  });

  test("a walk in order is fetched ahead: few faults, all bytes right", async (t) => {
    const guest = guestFor(t, { pages: 2048 });
    const pager = await behaving(guest, {});
    guest.checkAll();
    const { faults, bytesInstalled } = await settled(pager, guest.byteLength);
    assert.equal(bytesInstalled, guest.byteLength);
    t.diagnostic(`${faults} faults for 128 units`);
    assert.ok(faults < 32, `${faults} faults for 128 units`);
  });
});
