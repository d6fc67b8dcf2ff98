// Bugs that other handlers have shipped, each with a handler that has it and ours that has not, in the same world.
//
// The naive ones are as short as the originals' mistake. That they fail here is asserted too: a test that a wrong handler
// passes shows nothing. Each has been met in a handler that was in production.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { ERRNO } from "../../src/abi/errno.ts";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { writeWord } from "../../src/abi/structs.ts";
import type { Caller, Process, Thread } from "../../src/abi/system.ts";
import { UFFD_FEATURE, UFFDIO } from "../../src/abi/userfaultfd.ts";
import { hasBit } from "../../src/base/bitmap.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { openUserfaultfd } from "../../src/uffd/open.ts";
import { createSystem } from "../../src/uffd/software/index.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { Guest } from "./guest.ts";
import { imageByte, Scene, type SceneOptions, value } from "./scene.ts";

const system = createSystem();
after(() => system.close());

/** The calls of a process, of which some get another answer than the system's. */
class Meddler implements Caller {
  /** What COPY answers instead, one after the other: an errno, and what stands in the field `copy` then. */
  readonly answers: { readonly errno: number; readonly copy?: number }[] = [];
  /** So many reads find nothing, whatever poll has said. */
  emptyReads = 0;
  copies = 0;
  readonly #process: Process;

  constructor(process: Process) {
    this.#process = process;
  }

  get scratch() {
    return this.#process.scratch;
  }

  call: Caller["call"] = (name, ...args) => this.#process.call(name, ...args);
  share: Caller["share"] = (byteLength) => this.#process.share(byteLength);

  ioctl(fd: number, request: number, argument: number): number {
    if (request !== UFFDIO.COPY) return this.#process.ioctl(fd, request, argument);
    this.copies++;
    const answer = this.answers.shift();
    if (answer === undefined) return this.#process.ioctl(fd, request, argument);
    if (answer.copy !== undefined) this.#write(argument + 32, answer.copy);
    return -answer.errno;
  }

  read(fd: number, address: number, byteLength: number): number {
    if (this.emptyReads > 0) {
      this.emptyReads--;
      return -ERRNO.EAGAIN;
    }
    return this.#process.read(fd, address, byteLength);
  }

  /** Puts a word into the struct, as the kernel would. */
  #write(address: number, word: number): void {
    const bytes = this.#process.share(PAGE_SIZE);
    writeWord(bytes.view, 0, BigInt.asUintN(64, BigInt(word)));
    writeWord(bytes.view, 8, bytes.address);
    writeWord(bytes.view, 16, 8);
    writeWord(bytes.view, 24, address);
    writeWord(bytes.view, 32, 8);
    const { pid } = this.#process;
    assert.equal(
      this.#process.call("process_vm_writev", pid, bytes.address + 8, 1, bytes.address + 24, 1, 0),
      8,
    );
    bytes.close();
  }
}

function meddled(options: SceneOptions = {}): { scene: Scene; meddler: Meddler } {
  let meddler: Meddler | undefined;
  const scene = new Scene(system, {
    ...options,
    caller: (process) => {
      meddler = new Meddler(process);
      return meddler;
    },
  });
  assert.ok(meddler !== undefined);
  return { scene, meddler };
}

/** COPY of one page of the image, by the meddler's rules: errno, and the field as a signed number. */
function copyPage(scene: Scene, meddler: Meddler, page: number): { errno: number; copy: bigint } {
  const struct = scene.process.share(PAGE_SIZE);
  writeWord(struct.view, 0, scene.address(page));
  writeWord(struct.view, 8, scene.imageAddress + page * PAGE_SIZE);
  writeWord(struct.view, 16, PAGE_SIZE);
  const result = meddler.ioctl(scene.ioctls.fd, UFFDIO.COPY, struct.address);
  const copy = struct.view.getBigInt64(32, true);
  struct.close();
  return { errno: -result, copy };
}

/** The page of the fault that waits. */
function faultedPage(scene: Scene): number {
  const [message] = scene.ioctls.read(1).messages;
  assert.equal(message?.event, "pagefault");
  return (message.address - scene.base) / PAGE_SIZE;
}

function storm(count: number) {
  return Array.from({ length: count }, () => ({ errno: ERRNO.EAGAIN, copy: -ERRNO.EAGAIN }));
}

function isServed(thread: Thread, scene: Scene): boolean {
  scene.process.settle();
  return thread.ending !== undefined;
}

describe("bugs that other handlers shipped", () => {
  test("1 a fixed number of tries: EAGAIN that lasts longer than 4096 of them", () => {
    const naive = meddled();
    naive.meddler.answers.push(...storm(40_000));
    const stuck = naive.scene.beginLoad(3);
    const page = faultedPage(naive.scene);
    for (let tries = 0; tries < 4096; tries++)
      if (copyPage(naive.scene, naive.meddler, page).errno === 0) break;
    assert.equal(isServed(stuck, naive.scene), false, "the naive handler has given up");

    const { scene, meddler } = meddled();
    meddler.answers.push(...storm(40_000));
    const thread = scene.beginLoad(3);
    for (let round = 0; round < 50_000 && thread.ending === undefined; round++) {
      scene.loop.pump(8);
      scene.loop.resolver.retry();
      scene.process.settle();
    }
    assert.equal(value(thread.ending), imageByte(3));
    assert.equal(meddler.copies, 40_001);
    scene.checkBooks();
  });

  test("2 REMOVE that nobody heeds: the balloon's page comes back with what it held", () => {
    const features = UFFD_FEATURE.EVENT_REMOVE;
    const naive = meddled({ features });
    const gone = naive.scene.beginDiscard(2, 1);
    assert.equal(naive.scene.ioctls.read(1).messages[0]?.event, "remove");
    naive.scene.process.settle();
    assert.equal(value(gone.ending), 0);
    const stale = naive.scene.beginLoad(2);
    copyPage(naive.scene, naive.meddler, faultedPage(naive.scene));
    naive.scene.process.settle();
    assert.equal(value(stale.ending), imageByte(2), "the naive handler brings old bytes back");

    const scene = new Scene(system, { features, windowPages: 8 });
    scene.serve(scene.beginDiscard(2, 1));
    assert.equal(scene.load(2), 0);
    assert.equal(scene.load(3), imageByte(3));
  });

  test("3 no progress taken for a huge one: EAGAIN comes with copy = -11", () => {
    const naive = meddled();
    naive.meddler.answers.push(...storm(1));
    let done = 0n;
    const { copy } = copyPage(naive.scene, naive.meddler, 0);
    done += BigInt.asUintN(64, copy);
    assert.ok(done >= BigInt(PAGE_SIZE), "the naive handler believes that all is done");

    const { scene, meddler } = meddled({ windowPages: 4 });
    meddler.answers.push(...storm(1));
    const [part] = scene.loop.regions.parts;
    assert.equal(scene.loop.installer.install(part!, 0, 4), 0, "nothing is done");
    assert.equal(scene.statistics.bytesInstalled, 0);
    assert.equal(scene.loop.installer.install(part!, 0, 4), 4);
    assert.equal(scene.load(1), imageByte(1));
    assert.equal(scene.statistics.faults, 0);
  });

  test("4 a prefault that takes EAGAIN for success: the page is believed to be there", () => {
    const naive = meddled();
    naive.meddler.answers.push(...storm(1));
    const present = new Set<number>();
    const { errno } = copyPage(naive.scene, naive.meddler, 5);
    if (errno === 0 || errno === ERRNO.EAGAIN || errno === ERRNO.EEXIST) present.add(5);
    const stuck = naive.scene.beginLoad(5);
    if (!present.has(faultedPage(naive.scene))) copyPage(naive.scene, naive.meddler, 5);
    assert.equal(
      isServed(stuck, naive.scene),
      false,
      "the naive handler has nothing to do for a present page",
    );

    const { scene, meddler } = meddled();
    meddler.answers.push(...storm(1));
    const [part] = scene.loop.regions.parts;
    scene.loop.installer.install(part!, 5, 6);
    assert.equal(scene.loop.installer.isPutOff, true);
    assert.equal(hasBit(scene.region.resident, 5), false);
    assert.equal(meddler.copies, 1, "put off, not tried again at once");
    assert.equal(scene.load(5), imageByte(5));
  });

  test("5 a deferred fault that is looked at only when another event comes", () => {
    const naive = meddled();
    naive.meddler.answers.push(...storm(1));
    const stuck = naive.scene.beginLoad(6);
    const deferred: number[] = [];
    const page = faultedPage(naive.scene);
    if (copyPage(naive.scene, naive.meddler, page).errno === ERRNO.EAGAIN) deferred.push(page);
    // It sleeps in poll now, without a timeout, and nothing comes.
    assert.equal(naive.scene.ioctls.read(1).messages.length, 0);
    assert.equal(isServed(stuck, naive.scene), false);
    assert.deepEqual(deferred, [6]);

    const { scene, meddler } = meddled();
    // The usual way tries once, and the resolver once more.
    meddler.answers.push(...storm(2));
    const thread = scene.beginLoad(6);
    scene.loop.pump(8);
    assert.equal(scene.loop.resolver.isWaiting, true, "whoever serves is told not to sleep");
    scene.loop.resolver.retry();
    scene.process.settle();
    assert.equal(value(thread.ending), imageByte(6));
  });

  test("6 features that are taken for granted: an old kernel is known as one before a guest depends on it", () => {
    const old = createSystem({ profile: "linux-4.3" });
    try {
      const process = old.spawnProcess();
      assert.throws(
        () => openUserfaultfd("software", process, { features: ["EVENT_REMOVE"] }),
        (error) => error instanceof MinorfaultError && error.code === "ERR_FEATURE_MISSING",
      );
    } finally {
      old.close();
    }
  });

  test("7 one thread for many: 48 threads at 6 pages are all served, no page twice", () => {
    const threadsOf = (scene: Scene): Thread[] =>
      Array.from({ length: 48 }, (_, index) => scene.beginLoad(index % 6));
    const naive = meddled();
    threadsOf(naive.scene);
    assert.throws(() => {
      for (const message of naive.scene.ioctls.read(48).messages) {
        assert.equal(message.event, "pagefault");
        const page = (message.address - naive.scene.base) / PAGE_SIZE;
        const { errno } = copyPage(naive.scene, naive.meddler, page);
        if (errno !== 0) throw new Error(`COPY: ${errno}`);
      }
    }, /COPY: 17/);

    const { scene, meddler } = meddled();
    const threads = threadsOf(scene);
    scene.serve(...threads);
    for (const [index, thread] of threads.entries()) assert.equal(value(thread.ending), imageByte(index % 6));
    assert.ok(meddler.copies >= 6);
    assert.equal(scene.statistics.bytesInstalled, 6 * PAGE_SIZE);
    scene.checkBooks();
  });

  test("8 poll says readable, read finds nothing", () => {
    const naive = meddled();
    naive.scene.beginLoad(1);
    naive.meddler.emptyReads = 1;
    assert.throws(() => {
      const result = naive.meddler.read(naive.scene.ioctls.fd, naive.scene.process.scratch.address, 32);
      if (result !== 32) throw new Error(`read: ${result}`);
    }, /read: -11/);

    const { scene, meddler } = meddled();
    const thread = scene.beginLoad(1);
    meddler.emptyReads = 3;
    for (let round = 0; round < 3; round++) assert.equal(scene.loop.pump(8), -ERRNO.EAGAIN);
    scene.serve(thread);
    assert.equal(value(thread.ending), imageByte(1));
  });

  for (const [name, errno, outcome] of [
    ["EAGAIN", ERRNO.EAGAIN, "copied"],
    ["EEXIST", ERRNO.EEXIST, "woken"],
    ["ENOENT", ERRNO.ENOENT, "woken"],
    ["ENOMEM", ERRNO.ENOMEM, "copied"],
    ["ENOSPC", ERRNO.ENOSPC, "copied"],
    ["ESRCH", ERRNO.ESRCH, "woken"],
  ] as const) {
    test(`9 ${name} taken for a disaster: it is an ordinary answer`, () => {
      const naive = meddled();
      naive.meddler.answers.push({ errno, copy: -errno });
      assert.throws(() => {
        const answer = copyPage(naive.scene, naive.meddler, 4);
        if (answer.errno !== 0) throw new Error(`the lazy-pages daemon exits: ${answer.errno}`);
      }, /exits/);

      const { scene, meddler } = meddled();
      // For the usual way, and for the resolver.
      meddler.answers.push({ errno, copy: -errno }, { errno, copy: -errno });
      const thread = scene.beginLoad(4);
      scene.loop.pump(1);
      scene.loop.resolver.retry();
      assert.equal(scene.statistics.outcomes[outcome], 1);
      assert.deepEqual(scene.errors, []);
      assert.equal(scene.loop.installer.isGuestGone, errno === ERRNO.ESRCH);
      if (errno === ERRNO.ESRCH) return;
      scene.process.settle();
      if (outcome === "woken") scene.serve(thread);
      else assert.equal(value(thread.ending), imageByte(4));
      scene.checkBooks();
    });
  }
});

describe("a storm of EAGAIN on the real kernel", { skip: skipUnlessUserfaultfd, timeout: 300_000 }, () => {
  test("faults are served while other threads discard memory without a pause, and no discarded page comes back", async (t) => {
    const guest = new Guest({ pages: 256, features: ["EVENT_REMOVE"] });
    t.after(() => guest.close());
    const pager = await guest.pager({ plan: { faultAroundPages: 1 } });
    const mutators = [guest.process.spawnThread(), guest.process.spawnThread()];
    for (let round = 0; round < 100; round++) {
      for (const [index, thread] of mutators.entries()) {
        // Pages of its own, above those that are looked at.
        const args = [guest.address(128 + 64 * index + (round % 60)), 2 * PAGE_SIZE, 4];
        thread.start({ kind: "call", name: "madvise", args });
      }
      assert.equal(guest.load(round), imageByte(round));
      for (const thread of mutators) assert.equal(guest.finish(thread), 0);
    }
    for (let page = 130; page < 180; page++) assert.equal(guest.load(page), 0, `page ${page}`);
    t.diagnostic(`${pager.statistics().retries} fills were put off, ${pager.statistics().events} events`);
    assert.equal(pager.statistics().events, 200);
  });
});
