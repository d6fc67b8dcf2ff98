// A pager is killed, and the next one takes its guest over: no wrong byte, nothing given away that comes back, no thread left.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { describe, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { MADV, MREMAP, PAGE_SIZE } from "../../src/abi/memory.ts";
import type { FeatureName } from "../../src/abi/userfaultfd.ts";
import { Random } from "../../src/base/random.ts";
import type { GuestThread } from "../../src/guest/process/index.ts";
import { close, local, memfd } from "../../src/linux/index.ts";
import { pagerStateBytes } from "../../src/pager/index.ts";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import type { PagerTask } from "./fixtures/pager-process.ts";
import { Guest, imageByte } from "./guest.ts";

const PROGRAM = fileURLToPath(new URL("./fixtures/pager-process.js", import.meta.url));
const FEATURES: readonly FeatureName[] = ["EVENT_REMOVE", "EVENT_UNMAP", "EVENT_REMAP"];
const DEADLINE_MS = 60_000;

/** A guest whose pagers are processes of their own, one after the other. */
class Handed {
  readonly guest: Guest;
  readonly #uffd: number;
  readonly #state: number;
  readonly #idle: ChildProcess[] = [];
  #serving: ChildProcess | undefined;
  #hasBeenServed = false;

  constructor(t: TestContext, pages: number) {
    this.guest = new Guest({ pages, features: FEATURES });
    const regions = [{ byteLength: this.guest.byteLength }];
    this.#state = memfd(local, "pager-state", pagerStateBytes(regions));
    this.#uffd = this.guest.process.descriptor(this.guest.uffd.fd);
    t.after(async () => {
      for (const child of [...this.#idle, this.#serving]) child?.kill("SIGKILL");
      close(local, this.#state);
      close(local, this.#uffd);
      await this.guest.close();
    });
  }

  /** Has so many processes ready to take over. */
  async prepare(count: number): Promise<void> {
    const children = Array.from({ length: count }, () =>
      spawn(process.execPath, [PROGRAM], {
        stdio: ["ignore", "inherit", "inherit", "ipc", this.#uffd, this.#state, this.guest.imageFd],
      }),
    );
    this.#idle.push(...children);
    for (const child of children) assert.deepEqual(await once(child, "message"), ["warm", undefined]);
  }

  /** The next process serves. */
  async serve(): Promise<void> {
    if (this.#idle.length === 0) await this.prepare(1);
    const child = this.#idle.shift()!;
    this.#serving = child;
    const { base, byteLength, process: guest } = this.guest;
    const task: PagerTask = {
      options: {
        regions: [{ start: base, byteLength, imageOffset: 0 }],
        guest: { pid: guest.pid },
        plan: { faultAroundPages: 4 },
        ...(this.#hasBeenServed ? { adopt: true } : {}),
      },
      imageBytes: byteLength,
    };
    this.#hasBeenServed = true;
    child.send(task);
    const [answer] = (await once(child, "message")) as [string];
    assert.equal(answer, "serving");
  }

  /** The serving process is killed, and has ended. */
  async kill(): Promise<void> {
    const child = this.#serving!;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
    this.#serving = undefined;
  }
}

/** What a thread of a guest does to pages of its own, one after the other, and what it must find there. */
class Toucher {
  readonly #guest: Guest;
  readonly #thread: GuestThread;
  readonly #random: Random;
  readonly #first: number;
  readonly #content: number[];
  /** Of the last operation. */
  #then: (value: number) => void = () => undefined;
  done = 0;

  constructor(guest: Guest, random: Random, first: number, count: number) {
    this.#guest = guest;
    this.#thread = guest.process.spawnThread();
    this.#random = random;
    this.#first = first;
    this.#content = Array.from({ length: count }, (_, page) => imageByte(first + page));
  }

  get #isIdle(): boolean {
    const { ending } = this.#thread;
    if (ending === undefined) return this.done === 0;
    assert.equal(ending.kind, "value", JSON.stringify(ending));
    return true;
  }

  /** Looks how the last operation has ended, and begins the next one. */
  step(): void {
    if (!this.#isIdle) return;
    this.#take();
    const roll = this.#random.below(10);
    const page = this.#random.below(this.#content.length);
    if (roll < 6) this.#load(page);
    else if (roll < 8) this.#store(page);
    else this.#discard(page, Math.min(this.#content.length, page + 1 + this.#random.below(8)));
    this.done++;
  }

  #take(): void {
    const { ending } = this.#thread;
    if (ending?.kind === "value") this.#then(ending.value);
    this.#then = () => undefined;
  }

  #load(page: number): void {
    const address = this.#guest.address(this.#first + page);
    this.#thread.start({ kind: "load", address, size: 1 });
    const expected = this.#content[page]!;
    this.#then = (value) => assert.equal(value, expected, `page ${this.#first + page}`);
  }

  #store(page: number): void {
    const value = 1 + this.#random.below(255);
    this.#content[page] = value;
    this.#thread.start({ kind: "store", address: this.#guest.address(this.#first + page), value });
  }

  #discard(page: number, until: number): void {
    this.#content.fill(0, page, until);
    const args = [this.#guest.address(this.#first + page), (until - page) * PAGE_SIZE, MADV.DONTNEED];
    this.#thread.start({ kind: "call", name: "madvise", args });
    this.#then = (value) => assert.equal(value, 0, "madvise");
  }

  /** Waits for the last operation, and looks at every page. */
  finish(): void {
    if (this.done > 0) this.#guest.finish(this.#thread);
    this.#take();
    for (const [page, byte] of this.#content.entries()) {
      assert.equal(this.#guest.load(this.#first + page, this.#thread), byte, `page ${this.#first + page}`);
    }
  }
}

describe("a pager that takes over", { skip, timeout: 300_000 }, () => {
  test("serves on after SIGKILL: what was discarded, unmapped and moved stays so, who waited goes on", async (t) => {
    const handed = new Handed(t, 128);
    const { guest } = handed;
    await handed.prepare(2);
    await handed.serve();
    const call = (name: "madvise" | "munmap" | "mremap", ...args: number[]): number => {
      guest.thread.start({ kind: "call", name, args });
      return guest.finish();
    };
    assert.equal(guest.load(0), imageByte(0));
    assert.equal(call("madvise", guest.address(8), 4 * PAGE_SIZE, MADV.DONTNEED), 0);
    assert.equal(call("munmap", guest.address(100), 4 * PAGE_SIZE), 0);
    const to = guest.base + 0x1000_0000;
    const flags = MREMAP.MAYMOVE | MREMAP.FIXED;
    assert.equal(call("mremap", guest.address(32), 8 * PAGE_SIZE, 8 * PAGE_SIZE, flags, to), to);
    await handed.kill();

    guest.thread.start({ kind: "load", address: guest.address(60), size: 1 });
    const others = [9, 20].map((page) => {
      const thread = guest.process.spawnThread();
      thread.start({ kind: "load", address: guest.address(page), size: 1 });
      return thread;
    });
    guest.process.settle();
    await handed.serve();
    assert.equal(guest.finish(), imageByte(60));
    assert.deepEqual(
      others.map((thread) => guest.finish(thread)),
      [0, imageByte(20)],
    );
    for (let page = 0; page < 8; page++) {
      guest.thread.start({ kind: "load", address: to + page * PAGE_SIZE, size: 1 });
      assert.equal(guest.finish(), imageByte(32 + page), `moved page ${page}`);
    }
    for (let page = 0; page < 100; page++) {
      if (page >= 32 && page < 40) continue;
      assert.equal(guest.load(page), page >= 8 && page < 12 ? 0 : imageByte(page), `page ${page}`);
    }
  });

  test("killed again and again, at any moment, under threads that load, store and discard", async (t) => {
    const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
    t.diagnostic(`seed ${seed}`);
    const random = new Random(seed);
    const handed = new Handed(t, 4096);
    const kills = 12;
    await handed.prepare(3);
    await handed.serve();
    const touchers = Array.from(
      { length: 4 },
      (_, index) => new Toucher(handed.guest, random, index * 1024, 1024),
    );
    const work = async (steps: number): Promise<void> => {
      const until = performance.now() + DEADLINE_MS;
      const wanted = touchers.reduce((sum, { done }) => sum + done, 0) + steps;
      while (touchers.reduce((sum, { done }) => sum + done, 0) < wanted) {
        for (const toucher of touchers) toucher.step();
        assert.ok(performance.now() < until, "nobody goes on");
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    for (let kill = 0; kill < kills; kill++) {
      await work(100 + random.below(400));
      const ready = handed.prepare(1);
      // Meanwhile they go on: the kill comes in the middle of something.
      const killed = handed.kill();
      for (let round = 0; round < 50; round++) for (const toucher of touchers) toucher.step();
      await killed;
      await handed.serve();
      await ready;
    }
    await work(200);
    for (const toucher of touchers) toucher.finish();
    t.diagnostic(`${touchers.reduce((sum, { done }) => sum + done, 0)} operations, ${kills} kills`);
  });
});
