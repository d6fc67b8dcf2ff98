// A pager dies at every one of its steps, once in each run, on the software implementation: before and after each of its
// system calls, and before each word that it notes for its successor. The guest must not be able to tell.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MADV, MAP, MREMAP, O, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import type { Caller, Operation, Process, Scratch, Thread } from "../../src/abi/system.ts";
import { UFFD_FEATURE } from "../../src/abi/userfaultfd.ts";
import { wordsFor } from "../../src/base/bitmap.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { makeCounters } from "../../src/pager/counters.ts";
import { FaultLoop } from "../../src/pager/fault-loop.ts";
import { CallerPort } from "../../src/pager/port.ts";
import { Region, RegionMap, wholePart } from "../../src/pager/regions.ts";
import { MemorySource } from "../../src/pager/source.ts";
import { PagerState, pagerStateBytes, STATE_PARTS_MAX } from "../../src/pager/state.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import { createSystem } from "../../src/uffd/software/index.ts";
import { imageByte } from "./scene.ts";

const PAGES = 32;
const BASE = 0x1000_0000;
const ELSEWHERE = BASE + 0x100_0000;
/** LIMIT: rounds until an operation must have ended. */
const ROUNDS_MAX = 200;

class Death extends Error {}

/** How many steps are left until death. */
class Life {
  steps = 0;
  left = Number.POSITIVE_INFINITY;

  step(): void {
    this.steps++;
    if (--this.left <= 0) throw new Death();
  }
}

/** Makes calls that may be the last ones. */
function mortal(process: Process, life: Life): Caller {
  const lived = (call: () => number): number => {
    life.step();
    const result = call();
    life.step();
    return result;
  };
  return {
    call: (name, ...args) => lived(() => process.call(name, ...args)),
    ioctl: (fd, request, argument) => lived(() => process.ioctl(fd, request, argument)),
    read: (fd, address, byteLength) => lived(() => process.read(fd, address, byteLength)),
    scratch: process.scratch,
    share: (byteLength) => process.share(byteLength),
  };
}

/** A guest, what outlives its pagers, and the pager that lives now. */
class Stage {
  readonly process: Process;
  readonly life = new Life();
  deaths = 0;
  readonly #fd: number;
  readonly #image: Scratch;
  readonly #state: Scratch;
  #loop: FaultLoop | undefined;

  constructor() {
    const process = createSystem().spawnProcess();
    this.process = process;
    this.#fd = process.call("userfaultfd", O.NONBLOCK | O.CLOEXEC);
    const ioctls = new Ioctls(process, this.#fd);
    const { EVENT_REMOVE, EVENT_UNMAP, EVENT_REMAP } = UFFD_FEATURE;
    assert.equal(ioctls.api(EVENT_REMOVE | EVENT_UNMAP | EVENT_REMAP).errno, 0);
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED_NOREPLACE;
    assert.equal(process.call("mmap", BASE, PAGES * PAGE_SIZE, PROT.READ | PROT.WRITE, flags, -1, 0), BASE);
    assert.equal(ioctls.register(BASE, PAGES * PAGE_SIZE, 1).errno, 0);
    this.#image = process.share(PAGES * PAGE_SIZE);
    for (let page = 0; page < PAGES; page++) {
      this.#image.bytes.fill(imageByte(page), page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    }
    this.#state = process.share(pagerStateBytes([{ byteLength: PAGES * PAGE_SIZE }]));
  }

  get stateBuffer(): ArrayBufferLike {
    return this.#state.bytes.buffer;
  }

  /** What operations of the guest ended in, each in a thread of its own, that begin before anything is served. */
  run(operations: readonly Operation[]): string[] {
    const threads = operations.map((operation) => {
      const thread = this.process.spawnThread();
      thread.start(operation);
      this.process.settle();
      return thread;
    });
    for (let round = 0; round < ROUNDS_MAX; round++) {
      this.process.settle();
      if (threads.every(({ ending }) => ending !== undefined)) return threads.map(endingOf);
      this.#serve();
    }
    throw new Error(`${JSON.stringify(operations)} wait for ever: ${threads.map(({ state }) => state)}`);
  }

  #serve(): void {
    try {
      this.#loop ??= this.#start();
      this.#loop.pump(4);
      this.#loop.resolver.retry();
    } catch (error) {
      if (!(error instanceof Death)) throw error;
      this.deaths++;
      this.#loop = undefined;
      this.life.left = Number.POSITIVE_INFINITY;
    }
  }

  /** A pager that knows only what outlives one. */
  #start(): FaultLoop {
    const shapes = [{ start: BASE, byteLength: PAGES * PAGE_SIZE, imageOffset: 0 }];
    const adopts = this.life.steps > 0;
    const state = new PagerState(this.#state, shapes, adopts);
    const region = new Region({
      pageSize: PAGE_SIZE,
      pageCount: PAGES,
      imageOffset: 0,
      windowPages: 4,
      resident: new Uint32Array(wordsFor(PAGES)),
      zero: state.zeroBits(0),
      hasZeros: adopts,
    });
    const regions = [region];
    const caller = mortal(this.process, this.life);
    const ioctls = new Ioctls(caller, this.#fd);
    const map = adopts
      ? state.adopt(regions, ({ start, until }) => ioctls.wake(start, until - start))
      : new RegionMap([wholePart(BASE, region)]);
    const loop = new FaultLoop({
      port: new CallerPort(caller, this.#fd, () => performance.now(), this.#fd, state.port),
      regions: map,
      source: new MemorySource(this.#image.address, PAGES * PAGE_SIZE),
      counters: makeCounters(),
      now: () => performance.now(),
      state: {
        acknowledge: () => state.acknowledge(),
        commit: (parts) => void state.commit(parts, regions),
      },
      onError: (error) => assert.fail(error),
      onFork: () => assert.fail("nobody forks"),
    });
    if (adopts) loop.wakeAll();
    return loop;
  }
}

function endingOf({ ending }: Thread): string {
  if (ending?.kind === "value") return String(ending.value);
  return ending?.kind === "signal" ? `signal ${ending.signal}` : String(ending?.kind);
}

const load = (address: number): Operation => ({ kind: "load", address, size: 1 });
const at = (page: number): number => BASE + page * PAGE_SIZE;
const discard = (address: number, pages: number): Operation => ({
  kind: "call",
  name: "madvise",
  args: [address, pages * PAGE_SIZE, MADV.DONTNEED],
});
const move = (from: number, to: number, pages: number): Operation => {
  const bytes = pages * PAGE_SIZE;
  return {
    kind: "call",
    name: "mremap",
    args: [from, bytes, bytes, MREMAP.MAYMOVE | MREMAP.FIXED, to],
  };
};
const unmap = (address: number, pages: number): Operation => ({
  kind: "call",
  name: "munmap",
  args: [address, pages * PAGE_SIZE],
});

/** What the guest does, all of a line at once, and what it may see. */
type Line = readonly (readonly [Operation, ...string[]])[];

const STORY: readonly Line[] = [
  [[load(at(1)), String(imageByte(1))]],
  [[discard(at(0), 3), "0"]],
  [[load(at(1)), "0"]],
  [[{ kind: "store", address: at(2), value: 77 }, "0"]],
  // Pages that have never been there, and are given up before they are.
  [[discard(at(6), 4), "0"]],
  [[move(at(8), ELSEWHERE, 8), String(ELSEWHERE)]],
  [[load(ELSEWHERE), "0"]],
  [[load(ELSEWHERE + 2 * PAGE_SIZE), String(imageByte(10))]],
  [[discard(ELSEWHERE + 3 * PAGE_SIZE, 1), "0"]],
  [[load(ELSEWHERE + 3 * PAGE_SIZE), "0"]],
  // And back again: the same way twice.
  [[move(ELSEWHERE, at(8), 8), String(at(8))]],
  [[load(at(12)), String(imageByte(12))]],
  [[move(at(8), ELSEWHERE, 8), String(ELSEWHERE)]],
  // Whoever waits in what is unmapped or moved at the same time.
  [
    [load(at(21)), String(imageByte(21)), "signal 11"],
    [unmap(at(20), 2), "0"],
  ],
  [[load(at(21)), "signal 11"]],
  [[unmap(ELSEWHERE, 1), "0"]],
  [[load(ELSEWHERE), "signal 11"]],
  [
    [load(at(26)), String(imageByte(26)), "signal 11"],
    [move(at(24), ELSEWHERE + 16 * PAGE_SIZE, 4), String(ELSEWHERE + 16 * PAGE_SIZE)],
    [load(at(30)), String(imageByte(30)), "0"],
    [discard(at(30), 1), "0"],
  ],
  [[load(ELSEWHERE + 18 * PAGE_SIZE), String(imageByte(26))]],
  [[load(ELSEWHERE + 3 * PAGE_SIZE), "0"]],
  [[load(ELSEWHERE + 7 * PAGE_SIZE), String(imageByte(15))]],
  [[load(at(2)), "77"]],
  [[load(at(6)), "0"]],
  [[load(at(30)), "0"]],
  [[load(at(22)), String(imageByte(22))]],
];

/** The story with a death at a step, and another one so many steps later. */
function tell(death: number, again: number): { readonly steps: number; readonly deaths: number } {
  const stage = new Stage();
  const { life } = stage;
  const { store } = Atomics;
  // Every word for a successor is written so.
  Atomics.store = ((array: Int32Array, index: number, value: number) => {
    const counts = array.buffer === stage.stateBuffer;
    if (counts) life.step();
    const stored = store(array, index, value);
    if (counts) life.step();
    return stored;
  }) as typeof Atomics.store;
  try {
    life.left = death;
    for (const [index, line] of STORY.entries()) {
      const { deaths } = stage;
      const seen = stage.run(line.map(([operation]) => operation));
      for (const [which, [, ...allowed]] of line.entries()) {
        const where = `line ${index}, death at step ${death}, then ${again} later`;
        assert.ok(allowed.includes(seen[which]!), `${where}: ${seen[which]}, not ${allowed.join(" or ")}`);
      }
      if (deaths === 0 && stage.deaths === 1) life.left = again;
    }
    return { steps: life.steps, deaths: stage.deaths };
  } finally {
    Atomics.store = store;
    stage.process.kill();
  }
}

const NEVER = Number.POSITIVE_INFINITY;

test("a pager may die at any of its steps: its successor makes up for it, and the guest can't tell", (t) => {
  const { steps, deaths } = tell(NEVER, NEVER);
  assert.equal(deaths, 0);
  for (let death = 1; death <= steps; death++) {
    assert.equal(tell(death, NEVER).deaths, 1, `death at step ${death} of ${steps}`);
  }
  t.diagnostic(`${steps} steps`);
});

test("and its successor too, at any of the steps in which it takes over", () => {
  const { steps } = tell(NEVER, NEVER);
  for (let death = 1; death <= steps; death += 3) {
    for (let again = 1; again < 12; again++) tell(death, again);
  }
});

function scratch(byteLength: number): Scratch {
  const bytes = new Uint8Array(byteLength);
  return { address: 4096, bytes, view: new DataView(bytes.buffer) };
}

test("a state is taken for what it is of, and for nothing else", () => {
  const shapes = [{ start: BASE, byteLength: PAGES * PAGE_SIZE, imageOffset: 0 }];
  const memory = scratch(pagerStateBytes(shapes));
  new PagerState(memory, shapes, false);
  new PagerState(memory, shapes, true);
  const refused = { code: "ERR_BAD_ARGUMENT" };
  assert.throws(() => new PagerState(memory, shapes, false), refused);
  assert.throws(() => new PagerState(memory, [{ ...shapes[0]!, imageOffset: 4096 }], true), refused);
});

test("memory in more parts than there is room for is said to be so, by the pager and to its successor", () => {
  const shapes = [{ start: BASE, byteLength: PAGES * PAGE_SIZE, imageOffset: 0 }];
  const memory = scratch(pagerStateBytes(shapes));
  const state = new PagerState(memory, shapes, false);
  const region = new Region({
    pageSize: PAGE_SIZE,
    pageCount: PAGES,
    imageOffset: 0,
    windowPages: 1,
    resident: new Uint32Array(1),
    zero: state.zeroBits(0),
    hasZeros: false,
  });
  const parts = Array.from({ length: STATE_PARTS_MAX + 1 }, () => wholePart(BASE, region));
  assert.equal(state.commit(parts.slice(1), [region]), true);
  assert.equal(state.commit(parts, [region]), false);
  assert.equal(state.commit([], [region]), false, "what was lost is not found again");
  assert.throws(
    () => new PagerState(memory, shapes, true),
    (error) => error instanceof MinorfaultError && error.code === "ERR_LIMIT",
  );
});
