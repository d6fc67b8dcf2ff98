// The resolver against answers that no real system gives on demand: a port that says what the test tells it to.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ERRNO } from "../../src/abi/errno.ts";
import { encodeMessage, UFFD_MSG_SIZE } from "../../src/abi/message.ts";
import { UFFDIO } from "../../src/abi/userfaultfd.ts";
import { countBits } from "../../src/base/bitmap.ts";
import type { MinorfaultError } from "../../src/base/errors.ts";
import { makeCounters, readStatistics } from "../../src/pager/counters.ts";
import { FaultLoop } from "../../src/pager/fault-loop.ts";
import { type FaultPort, PORT, PORT_BYTES, WORD } from "../../src/pager/port.ts";
import { Region, RegionMap, wholePart } from "../../src/pager/regions.ts";
import { MemorySource } from "../../src/pager/source.ts";

const PAGE = 4096;
const BASE = 0x7f00_0000_0000;
const SOURCE = 0x5500_0000_0000;
const PAGES = 16;

const NAMES = new Map<number, string>(Object.entries(UFFDIO).map(([name, request]) => [request, name]));

/** What a fill answers: 0 or an errno, and bytes done in the output field. */
interface Answer {
  readonly errno: number;
  readonly bytes?: number;
}

/** A port without a system behind it: messages are given, fills are answered by `answer` and written down. */
class ScriptedPort implements FaultPort {
  readonly fd = 7;
  readonly nanosecondsPerTick = 1;
  readonly memory;
  readonly words: Int32Array;
  /** One line a call: name, first page, pages. */
  readonly calls: string[] = [];
  answer: (call: string) => Answer = () => ({ errno: 0 });
  readonly #messages: number[] = [];

  constructor() {
    const bytes = new Uint8Array(PORT_BYTES);
    this.words = new Int32Array(bytes.buffer);
    this.memory = { address: 0x1000, bytes, view: new DataView(bytes.buffer) };
  }

  fault(page: number): void {
    this.#messages.push(BASE + page * PAGE);
  }

  fill(): void {
    const { words, memory } = this;
    const request = words[WORD.REQUEST]! >>> 0;
    const isCopy = request === UFFDIO.COPY;
    const struct = isCopy ? PORT.COPY : PORT.RANGE;
    const target = Number(memory.view.getBigUint64(struct, true));
    const length = Number(memory.view.getBigUint64(struct + (isCopy ? 16 : 8), true));
    if (isCopy) {
      const source = Number(memory.view.getBigUint64(struct + 8, true));
      assert.equal(source - SOURCE, target - BASE, "a page comes from its own place in the image");
    }
    const call = `${NAMES.get(request)} ${(target - BASE) / PAGE}+${length / PAGE}`;
    this.calls.push(call);
    const { errno, bytes = 0 } = this.answer(call);
    words[WORD.FILL_RESULT] = errno === 0 ? 0 : -errno;
    memory.view.setBigInt64(struct + (isCopy ? 32 : 24), BigInt(bytes), true);
  }

  read(): void {
    const address = this.#messages.shift();
    this.words[WORD.READ_RESULT] = address === undefined ? -ERRNO.EAGAIN : UFFD_MSG_SIZE;
    if (address === undefined) return;
    encodeMessage(this.memory.view, PORT.MESSAGE, { event: "pagefault", flags: 0, address, ptid: 0 });
  }

  turn(): void {
    this.fill();
    if (this.words[WORD.FILL_RESULT] === 0) this.read();
  }

  readPlainly(): void {}
  close(): void {}
}

function stage(windowPages = 1) {
  const port = new ScriptedPort();
  const errors: MinorfaultError[] = [];
  const clock = { ms: 0 };
  const counters = makeCounters();
  const region = new Region({
    pageSize: PAGE,
    pageCount: PAGES,
    imageOffset: 0,
    windowPages,
    resident: new Uint32Array(1),
    zero: new Uint32Array(1),
    hasZeros: false,
  });
  const loop = new FaultLoop({
    port,
    regions: new RegionMap([wholePart(BASE, region)]),
    source: new MemorySource(SOURCE, PAGES * PAGE),
    counters,
    now: () => clock.ms,
    deferralMsMax: 100,
    onError: (error) => errors.push(error),
    onFork: () => undefined,
  });
  return { port, loop, errors, clock, region, statistics: () => readStatistics(counters) };
}

test("the usual fault is one COPY, and its books are right", () => {
  const { port, loop, statistics } = stage(4);
  port.fault(5);
  port.fault(9);
  assert.equal(loop.pump(64), -ERRNO.EAGAIN);
  assert.deepEqual(port.calls, ["COPY 4+4", "COPY 8+4"]);
  assert.equal(statistics().outcomes.copied, 2);
  assert.equal(statistics().bytesInstalled, 8 * PAGE);
});

test("pump() serves no more messages than it is told", () => {
  const { port, loop } = stage();
  for (const page of [1, 2, 3]) port.fault(page);
  assert.equal(loop.pump(2), 0);
  assert.deepEqual(port.calls, ["COPY 1+1", "COPY 2+1"]);
  assert.equal(loop.pump(2), -ERRNO.EAGAIN);
  assert.deepEqual(port.calls.slice(2), ["COPY 3+1"]);
});

test("EAGAIN with nothing done puts the fault off, unserved and unbooked", () => {
  const { port, loop, region, statistics } = stage();
  port.answer = () => ({ errno: ERRNO.EAGAIN, bytes: -ERRNO.EAGAIN });
  port.fault(3);
  port.fault(4);
  assert.equal(loop.pump(64), 0, "stops, so that nobody waits while a fault is put off");
  assert.ok(loop.resolver.isWaiting);
  const { faults, outcomes, bytesInstalled } = statistics();
  assert.deepEqual([faults, outcomes.copied, bytesInstalled], [1, 0, 0]);
  assert.equal(countBits(region.resident, PAGES), 0);
  port.answer = () => ({ errno: 0 });
  loop.resolver.retry();
  assert.ok(!loop.resolver.isWaiting);
  assert.equal(statistics().outcomes.copied, 1);
});

test("EAGAIN has no limit of tries, only a deadline: then the thread is woken and the owner hears of it", () => {
  const { port, loop, errors, clock, statistics } = stage();
  port.answer = (call) => ({ errno: call.startsWith("COPY") ? ERRNO.EAGAIN : 0 });
  port.fault(3);
  loop.pump(64);
  for (let tries = 0; tries < 50_000; tries++) loop.resolver.retry();
  assert.ok(loop.resolver.isWaiting);
  assert.deepEqual(errors, []);
  clock.ms = 100;
  loop.resolver.retry();
  assert.ok(!loop.resolver.isWaiting);
  assert.equal(port.calls.at(-1), "WAKE 3+1");
  assert.deepEqual(
    errors.map(({ code }) => code),
    ["ERR_DEADLINE"],
  );
  assert.equal(statistics().outcomes.woken, 1);
  assert.ok(statistics().retries > 50_000);
});

test("EAGAIN with pages done goes on behind them", () => {
  const { port, loop, region, statistics } = stage(8);
  const answers: Answer[] = [
    { errno: ERRNO.EAGAIN, bytes: 2 * PAGE },
    { errno: ERRNO.EAGAIN, bytes: 2 * PAGE },
  ];
  port.answer = () => answers.shift() ?? { errno: 0 };
  port.fault(5);
  loop.pump(64);
  assert.deepEqual(port.calls, ["COPY 0+8", "COPY 2+6", "COPY 4+4"]);
  assert.equal(countBits(region.resident, PAGES), 8);
  assert.equal(statistics().outcomes.copied, 1);
  assert.equal(statistics().bytesInstalled, 8 * PAGE);
});

test("EAGAIN with the page itself done is a served fault", () => {
  const { port, loop, region, statistics } = stage(8);
  port.answer = () => ({ errno: ERRNO.EAGAIN, bytes: 6 * PAGE });
  port.fault(5);
  loop.pump(64);
  assert.deepEqual(port.calls, ["COPY 0+8"]);
  assert.equal(countBits(region.resident, PAGES), 6);
  const { faults, outcomes, bytesInstalled } = statistics();
  assert.deepEqual([faults, outcomes.copied, bytesInstalled], [1, 1, 6 * PAGE]);
});

test("EEXIST at a neighbour plans without it; at the page itself it wakes", () => {
  const { port, loop, statistics } = stage(4);
  port.answer = (call) => ({ errno: call.startsWith("COPY 4+") ? ERRNO.EEXIST : 0 });
  port.fault(6);
  loop.pump(64);
  assert.deepEqual(port.calls, ["COPY 4+4", "COPY 4+4", "COPY 5+3"]);
  port.answer = (call) => ({ errno: call.startsWith("COPY") ? ERRNO.EEXIST : 0 });
  port.fault(8);
  loop.pump(64);
  assert.equal(port.calls.at(-1), "WAKE 8+1");
  assert.deepEqual([statistics().outcomes.copied, statistics().outcomes.woken], [1, 1]);
});

test("ENOENT narrows the window down to the page, and then wakes who waits for a page that is gone", () => {
  const { port, loop, errors, statistics } = stage(8);
  port.answer = (call) => ({ errno: call.startsWith("COPY") ? ERRNO.ENOENT : 0 });
  port.fault(5);
  loop.pump(64);
  assert.deepEqual(port.calls, ["COPY 0+8", "COPY 0+8", "COPY 4+4", "COPY 4+2", "COPY 5+1", "WAKE 5+1"]);
  assert.equal(statistics().outcomes.woken, 1);
  assert.deepEqual(errors, []);
});

test("ESRCH tells that the guest is gone, without an error", () => {
  const { port, loop, errors } = stage();
  port.answer = () => ({ errno: ERRNO.ESRCH });
  port.fault(1);
  loop.pump(64);
  assert.ok(loop.installer.isGuestGone);
  assert.deepEqual(errors, []);
});

test("ENOMEM is put off like EAGAIN", () => {
  const { port, loop } = stage();
  port.answer = () => ({ errno: ERRNO.ENOMEM, bytes: -ERRNO.ENOMEM });
  port.fault(1);
  loop.pump(64);
  assert.ok(loop.resolver.isWaiting);
});

test("an errno that nobody expects poisons the page, and names itself", () => {
  const { port, loop, errors, region, statistics } = stage();
  port.answer = (call) => ({ errno: call.startsWith("COPY") ? ERRNO.EINVAL : 0 });
  port.fault(1);
  loop.pump(64);
  assert.equal(port.calls.at(-1), "POISON 1+1");
  assert.equal(statistics().outcomes.poisoned, 1);
  assert.equal(countBits(region.resident, PAGES), 0, "its next fault asks the source again");
  assert.equal(errors[0]?.code, "ERR_HANDLER_FAILED");
  assert.match(String(errors[0]?.cause), /EINVAL/);
});

test("a poison that is put off stays a poison, even if the page could be brought by then", () => {
  const { port, loop, errors, statistics } = stage();
  port.answer = (call) => ({ errno: call.startsWith("COPY") ? ERRNO.EFAULT : ERRNO.EAGAIN });
  port.fault(1);
  loop.pump(64);
  assert.ok(loop.resolver.isWaiting);
  port.answer = () => ({ errno: 0 });
  loop.resolver.retry();
  assert.equal(port.calls.at(-1), "POISON 1+1");
  assert.equal(statistics().outcomes.poisoned, 1);
  assert.equal(errors.length, 1, "told once");
});

test("a system without POISON wakes the thread instead of leaving it alone", () => {
  const { port, loop, statistics } = stage();
  port.answer = (call) => ({ errno: call.startsWith("WAKE") ? 0 : ERRNO.EINVAL });
  port.fault(1);
  loop.pump(64);
  assert.equal(port.calls.at(-1), "WAKE 1+1");
  assert.equal(statistics().outcomes.woken, 1);
});

test("installer.install() passes over what can't be brought, reports it, and brings the rest", () => {
  const { port, loop, errors, region } = stage();
  port.answer = (call) => {
    const [, first = 0, count = 0] = call.match(/ (\d+)\+(\d+)/)?.map(Number) ?? [];
    return { errno: first <= 5 && 5 < first + count ? ERRNO.EFAULT : 0 };
  };
  const [part] = loop.regions.parts;
  assert.equal(loop.installer.install(part!, 0, PAGES), PAGES);
  assert.equal(countBits(region.resident, PAGES), PAGES - 1);
  assert.deepEqual(
    errors.map(({ code }) => code),
    ["ERR_HANDLER_FAILED"],
  );
});

test("installer.install() stops where the system puts it off, and says how far it came", () => {
  const { port, loop } = stage();
  port.answer = (call) => (call.includes(" 8+") ? { errno: ERRNO.EAGAIN } : { errno: 0 });
  const [part] = loop.regions.parts;
  assert.equal(loop.installer.install(part!, 0, PAGES, 4 * PAGE), 8);
  assert.ok(loop.installer.isPutOff);
});
