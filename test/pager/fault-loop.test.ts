// The fault loop on both systems: every way in which a fault can end, and every event.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import { MREMAP, PAGE_SIZE, SIGNAL } from "../../src/abi/memory.ts";
import type { System } from "../../src/abi/system.ts";
import { UFFD_FEATURE } from "../../src/abi/userfaultfd.ts";
import { countBits, hasBit } from "../../src/base/bitmap.ts";
import { KernelSystem } from "../../src/guest/process/index.ts";
import type { MemorySource } from "../../src/pager/source.ts";
import { createSystem } from "../../src/uffd/software/index.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { imageByte, Scene, type SceneOptions, signalOf, value } from "./scene.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.log(`seed ${seed} (SEED=${seed} repeats this run)`);

const SYSTEMS: readonly { name: string; skip: string | false; make: () => System; runs: number }[] = [
  { name: "software", skip: false, make: () => createSystem(), runs: 60 },
  { name: "kernel", skip: skipUnlessUserfaultfd, make: () => new KernelSystem(), runs: 10 },
];

for (const { name, skip, make, runs } of SYSTEMS) {
  describe(`fault loop on the ${name} system`, { skip }, () => {
    let system: System | undefined;
    const scene = (options?: SceneOptions): Scene => {
      system ??= make();
      return new Scene(system, options);
    };
    after(() => system?.close());

    test("page by page: each page is copied at its own fault, with the image's bytes", () => {
      const stage = scene();
      for (const page of [3, 0, 15, 7]) assert.equal(stage.load(page), imageByte(page));
      const { faults, outcomes, bytesInstalled } = stage.statistics;
      assert.deepEqual([faults, outcomes.copied, bytesInstalled], [4, 4, 4 * PAGE_SIZE]);
      assert.equal(countBits(stage.region.resident, stage.pages), 4);
      stage.checkBooks();
    });

    test("a resident page raises no fault", () => {
      const stage = scene();
      stage.load(5);
      assert.equal(stage.load(5), imageByte(5));
      assert.equal(stage.statistics.faults, 1);
    });

    test("fault-around installs the missing pages of the aligned window with one fault", () => {
      const stage = scene({ windowPages: 8 });
      for (const page of [10, 8, 15, 12]) assert.equal(stage.load(page), imageByte(page));
      assert.equal(stage.statistics.faults, 1);
      assert.equal(stage.statistics.bytesInstalled, 8 * PAGE_SIZE);
      assert.equal(stage.load(7), imageByte(7));
      assert.equal(stage.statistics.faults, 2);
    });

    test("a store is served like a load, and stays", () => {
      const stage = scene({ windowPages: 4 });
      const store = stage.begin({ kind: "store", address: stage.address(2) + 9, value: 200 });
      stage.serve(store);
      assert.equal(stage.load(2), imageByte(2));
      const again = stage.begin({ kind: "load", address: stage.address(2) + 9, size: 1 });
      assert.equal(value(again.ending), 200);
    });

    test("pages known to be zeros are not copied, and their neighbours of the other kind come too", () => {
      const stage = scene({ windowPages: 8, zeroPages: [2, 3, 6] });
      assert.equal(stage.load(2), 0);
      assert.equal(stage.statistics.outcomes.zeroed, 1);
      assert.equal(stage.statistics.bytesZeroed, 3 * PAGE_SIZE);
      for (let page = 0; page < 8; page++)
        assert.equal(stage.load(page), [2, 3, 6].includes(page) ? 0 : imageByte(page));
      assert.equal(stage.statistics.faults, 1);
    });

    test("two threads at one page both go on, and each fault is booked once", () => {
      const stage = scene();
      const [first, second] = [stage.beginLoad(4), stage.beginLoad(4)];
      stage.serve(first, second);
      assert.deepEqual([value(first.ending), value(second.ending)], [imageByte(4), imageByte(4)]);
      stage.checkBooks();
    });

    test("a page that somebody else has filled is left as it is, and its thread is woken", () => {
      const stage = scene();
      const thread = stage.beginLoad(6);
      // DONTWAKE: the page is there, the thread does not know.
      assert.equal(stage.ioctls.zeropage(stage.address(6), PAGE_SIZE, 1).errno, 0);
      stage.serve(thread);
      assert.equal(value(thread.ending), 0);
      assert.deepEqual(stage.statistics.outcomes.woken, 1);
      stage.checkBooks();
    });

    test("a fill that stops at a present page goes on behind it", () => {
      const stage = scene({ windowPages: 16 });
      // Pages 3 and 9 are there without the pager's knowledge.
      for (const page of [3, 9])
        assert.equal(stage.ioctls.zeropage(stage.address(page), PAGE_SIZE, 0).errno, 0);
      assert.equal(stage.load(12), imageByte(12));
      assert.equal(stage.load(3), 0);
      assert.equal(stage.load(5), imageByte(5));
      stage.checkBooks();
    });

    test("a window that leaves the mapping is narrowed until the page itself is served", () => {
      const stage = scene({ windowPages: 16 });
      assert.equal(stage.process.call("munmap", stage.address(11), 2 * PAGE_SIZE), 0);
      assert.equal(stage.load(10), imageByte(10));
      assert.equal(stage.load(13), imageByte(13));
      stage.checkBooks();
    });

    test("a page that the guest discards without an event reads as zeros afterwards", () => {
      const stage = scene();
      stage.load(1);
      const discard = stage.beginDiscard(1, 1);
      assert.equal(value(discard.ending), 0);
      assert.equal(stage.load(1), 0);
      stage.checkBooks();
    });

    test("a removed range reads as zeros, whether it had been installed or not", () => {
      const stage = scene({ features: UFFD_FEATURE.EVENT_REMOVE, windowPages: 2 });
      stage.load(4);
      const discard = stage.beginDiscard(4, 4);
      assert.equal(discard.ending, undefined, "waits for the event to be read");
      stage.serve(discard);
      assert.deepEqual(
        [4, 5, 6, 7, 8].map((page) => stage.load(page)),
        [0, 0, 0, 0, imageByte(8)],
      );
      assert.equal(stage.statistics.events, 1);
      stage.checkBooks();
    });

    test("a fault before an unread event is put off (EAGAIN) and served after it", () => {
      const stage = scene({ features: UFFD_FEATURE.EVENT_REMOVE, windowPages: 4 });
      stage.load(0);
      const discard = stage.beginDiscard(0, 1);
      const thread = stage.beginLoad(9);
      stage.serve(thread, discard);
      assert.equal(value(thread.ending), imageByte(9));
      assert.ok(stage.statistics.retries > 0, "the system has put the fill off");
      assert.equal(stage.load(0), 0);
      stage.checkBooks();
    });

    test("a source that throws: the page is poisoned, the error surfaces with its cause, others are served", () => {
      const cause = new Error("The disk has gone for a walk");
      const stage = scene({ windowPages: 4, source: (image) => throwing(image, 5, cause) });
      const thread = stage.beginLoad(5);
      stage.serve(thread);
      assert.equal(signalOf(thread.ending), SIGNAL.SIGBUS);
      assert.equal(stage.errors.length, 1);
      assert.equal(stage.errors[0]?.code, "ERR_HANDLER_FAILED");
      assert.equal(stage.errors[0]?.address, stage.address(5));
      assert.equal(stage.errors[0]?.cause, cause);
      assert.equal(stage.statistics.outcomes.poisoned, 1);
      for (const page of [4, 6, 7, 8]) assert.equal(stage.load(page), imageByte(page));
      stage.checkBooks();
    });

    test("a source that throws while an event is unread: the poison is put off, not lost", () => {
      const cause = new Error("no");
      const features = UFFD_FEATURE.EVENT_REMOVE;
      const stage = scene({ features, source: (image) => throwing(image, 5, cause) });
      stage.load(0);
      const discard = stage.beginDiscard(0, 1);
      const thread = stage.beginLoad(5);
      stage.serve(thread, discard);
      assert.equal(signalOf(thread.ending), SIGNAL.SIGBUS);
      assert.deepEqual(
        stage.errors.map(({ code }) => code),
        ["ERR_HANDLER_FAILED"],
      );
      stage.checkBooks();
    });

    test("a source whose memory can't be read: the page is poisoned (EFAULT)", () => {
      const source = (image: MemorySource) => ({
        byteLength: image.byteLength,
        addressOf: (offset: number) => (offset === 2 * PAGE_SIZE ? 8 * PAGE_SIZE : image.addressOf(offset)),
      });
      const stage = scene({ source });
      const thread = stage.beginLoad(2);
      stage.serve(thread);
      assert.equal(signalOf(thread.ending), SIGNAL.SIGBUS);
      assert.equal(stage.errors[0]?.code, "ERR_HANDLER_FAILED");
      assert.equal(stage.load(3), imageByte(3));
      stage.checkBooks();
    });

    test("a fault in no region of the pager is poisoned, never filled with zeros", () => {
      const stage = scene();
      const stray = stage.map(1);
      const thread = stage.begin({ kind: "load", address: stray, size: 1 });
      stage.serve(thread);
      assert.equal(signalOf(thread.ending), SIGNAL.SIGBUS);
      assert.equal(stage.errors[0]?.code, "ERR_OUT_OF_RANGE");
      stage.checkBooks();
    });

    test("a thread that waits in an unmapped range is woken into its SIGSEGV", () => {
      const stage = scene({ features: UFFD_FEATURE.EVENT_UNMAP });
      const waiting = stage.beginLoad(3);
      const args = [stage.address(2), 4 * PAGE_SIZE];
      const unmap = stage.begin({ kind: "call", name: "munmap", args });
      stage.serve(waiting, unmap);
      assert.equal(signalOf(waiting.ending), SIGNAL.SIGSEGV);
      assert.equal(stage.load(7), imageByte(7));
      assert.equal(stage.loop.regions.find(stage.address(3)), undefined);
      stage.checkBooks();
    });

    test("memory that moves takes its content along", () => {
      const stage = scene({ features: UFFD_FEATURE.EVENT_REMAP, windowPages: 2 });
      stage.load(0);
      // Somewhere free: what another mapping has left.
      const free = stage.map(8);
      assert.equal(stage.process.call("munmap", free, 8 * PAGE_SIZE), 0);
      const bytes = 8 * PAGE_SIZE;
      const args = [stage.base, bytes, bytes, MREMAP.MAYMOVE | MREMAP.FIXED, free];
      const move = stage.begin({ kind: "call", name: "mremap", args });
      stage.serve(move);
      assert.equal(value(move.ending), free);
      for (const page of [0, 1, 5]) {
        const thread = stage.begin({ kind: "load", address: free + page * PAGE_SIZE, size: 1 });
        stage.serve(thread);
        assert.equal(value(thread.ending), imageByte(page), `page ${page}`);
      }
      assert.equal(stage.load(9), imageByte(9), "what has not moved");
      stage.checkBooks();
    });

    test("a forked child is served by a loop of its own, and both memories go their ways", () => {
      const stage = scene({ features: UFFD_FEATURE.EVENT_FORK });
      stage.load(0);
      const { thread, child } = stage.process.fork();
      stage.serve(thread);
      const process = child();
      assert.ok(process !== undefined, "the child is born");
      const [born] = stage.children;
      assert.ok(born !== undefined, "the loop has handed its userfaultfd on");
      const nursery = stage.loopFor(born.fd, born.regions);
      const faulting = process.spawnThread();
      faulting.start({ kind: "load", address: stage.address(6), size: 1 });
      for (let round = 0; round < 1000 && faulting.ending === undefined; round++) {
        process.settle();
        nursery.pump(64);
      }
      assert.equal(value(faulting.ending), imageByte(6));
      assert.equal(stage.statistics.faults, 2);
      assert.equal(stage.load(6), imageByte(6), "the parent's page is another one");
      assert.equal(stage.statistics.faults, 3);
      stage.checkBooks();
    });

    test("installer.install() brings all that is missing, and no page twice", () => {
      const stage = scene({ zeroPages: [4, 5] });
      for (const page of [1, 9]) stage.load(page);
      const [part] = stage.loop.regions.parts;
      assert.equal(stage.loop.installer.install(part!, 0, stage.pages), stage.pages);
      assert.equal(countBits(stage.region.resident, stage.pages), stage.pages);
      assert.equal(stage.statistics.bytesInstalled, stage.pages * PAGE_SIZE);
      for (let page = 0; page < stage.pages; page++)
        assert.equal(stage.load(page), page === 4 || page === 5 ? 0 : imageByte(page));
      assert.equal(stage.statistics.faults, 2);
    });

    test("wakeAll() makes waiting threads fault again, so that another pager can go on", () => {
      const stage = scene();
      const thread = stage.beginLoad(3);
      // The message is read and lost, as by a pager that has died.
      assert.equal(stage.ioctls.read(1).messages.length, 1);
      stage.loop.wakeAll();
      stage.serve(thread);
      assert.equal(value(thread.ending), imageByte(3));
    });

    test("any order of touches, discards and foreign fills ends with the right bytes and balanced books", () => {
      const step = fc.oneof(
        { weight: 6, arbitrary: fc.record({ kind: fc.constant("load" as const), page: fc.nat(15) }) },
        { weight: 2, arbitrary: fc.record({ kind: fc.constant("discard" as const), page: fc.nat(15) }) },
        { weight: 1, arbitrary: fc.record({ kind: fc.constant("foreign" as const), page: fc.nat(15) }) },
      );
      const options = fc.record({
        steps: fc.array(step, { maxLength: 24 }),
        window: fc.nat(4).map((power) => 2 ** power),
        zeroPages: fc.uniqueArray(fc.nat(15)),
        hears: fc.boolean(),
      });
      fc.assert(
        fc.property(options, ({ steps, window, zeroPages, hears }) => {
          const features = hears ? UFFD_FEATURE.EVENT_REMOVE : 0n;
          const stage = scene({ windowPages: window, zeroPages, features });
          try {
            walk(stage, steps, zeroPages);
          } finally {
            stage.process.kill();
          }
        }),
        { seed, numRuns: runs },
      );
    });
  });
}

type Step = { readonly kind: "load" | "discard" | "foreign"; readonly page: number };

/** Does the steps on a scene, and on a model of what each page must read as. */
function walk(stage: Scene, steps: readonly Step[], zeroPages: readonly number[]): void {
  const expected = Array.from({ length: stage.pages }, (_, page) =>
    zeroPages.includes(page) ? 0 : imageByte(page),
  );
  for (const { kind, page } of steps) {
    if (kind === "load") {
      assert.equal(stage.load(page), expected[page], `page ${page}`);
    } else if (kind === "foreign") {
      // Only where nothing is yet: then it is what the page holds.
      const { errno } = stage.ioctls.zeropage(stage.address(page), PAGE_SIZE, 0);
      if (errno === 0) expected[page] = 0;
    } else {
      const isKnown = hasBit(stage.region.resident, page);
      const thread = stage.beginDiscard(page, 1);
      stage.serve(thread);
      // Without an event the pager can't know of a page that it has never met: it comes from the image.
      const isZero = isKnown || stage.statistics.events > 0 || zeroPages.includes(page);
      expected[page] = isZero ? 0 : imageByte(page);
    }
    stage.checkBooks();
  }
  for (let page = 0; page < stage.pages; page++)
    assert.equal(stage.load(page), expected[page], `page ${page}`);
}

function throwing(image: MemorySource, page: number, cause: Error) {
  return {
    byteLength: image.byteLength,
    addressOf(offset: number, byteLength: number): number {
      const from = page * PAGE_SIZE;
      if (offset <= from && from < offset + byteLength) throw cause;
      return image.addressOf(offset);
    },
  };
}
