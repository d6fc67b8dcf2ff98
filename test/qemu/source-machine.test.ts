// The source of a post-copy migration against a destination that is one in all but its socket: whatever comes in
// whatever order, with lost connections in between, each page arrives once and right.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { type ReturnMessage, type SourceBlock, SourceMachine } from "../../src/guest/qemu/index.ts";
import { seedOf } from "../image/content.ts";
import { PAGE } from "./streams.ts";
import { codeOf, DEVICES, HUGE, randomScene, running, small, World } from "./world.ts";

test("a machine is moved whole, each page once, whatever the order and however often the connection breaks", (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  const seen = { requests: 0, crossed: 0, recoveries: 0 };
  for (let round = 0; round < 40; round++) {
    const world = new World(random, randomScene(random), {
      pushPagesMax: 1 + random.below(300),
      pushUnit: 1 << random.below(7),
      ...(random.below(3) === 0 && { pushBytesPerSecond: 2 ** 28 }),
    });
    world.damage = random.below(2) === 0 ? 0 : random.below(40);
    world.connect();
    world.prefetch(random.below(3) === 0 ? 100 : random.below(60));
    world.do(world.machine.start());
    for (let steps = 0; steps < 4000 && world.machine.state !== "completed"; steps++) {
      world.step();
      if (world.error !== undefined) throw world.error;
      if (world.machine.state === "running" && random.below(150) === 0) world.lose();
      if (random.below(40) === 0) world.mend();
      if (!world.isConnected) world.connect();
    }
    world.damage = 0;
    world.settle();
    if (world.error !== undefined) throw world.error;
    assert.equal(world.machine.state, "completed", `round ${round}: ${world.states.join(" ")}`);
    for (const [index, memory] of world.scene.memory.entries()) {
      assert.ok(Buffer.compare(world.destination.memory[index]!, memory) === 0, `block ${index}`);
    }
    assert.ok(world.machine.ledger.isAllSent);
    assert.deepEqual([world.machine.ledger.waitedCount, world.machine.ledger.pushedCount], [0, 0]);
    assert.equal(world.machine.ledger.withheldCount, 0);
    for (const key of ["requests", "crossed", "recoveries"] as const)
      seen[key] += world.machine.counters[key];
  }
  context.diagnostic(JSON.stringify(seen));
  assert.ok(
    seen.requests > 100 && seen.recoveries > 0 && seen.crossed > 0,
    "what is to be tested has happened",
  );
});

test("another process takes over a machine that runs: it asks what has come, and sends the rest", () => {
  const random = new Random(77);
  const scene = randomScene(random);
  const first = new World(random, scene);
  first.connect();
  first.do(first.machine.start());
  for (let steps = 0; steps < 60; steps++) first.step();
  const { destination } = first;
  assert.ok(destination.isRunning && destination.missing().length > 0, "some pages are missing");
  first.lose();

  const second = new World(random, scene, { isResumed: true });
  Object.assign(second, { destination });
  second.connect();
  second.settle();
  assert.equal(second.machine.state, "completed");
  for (const [index, memory] of scene.memory.entries()) {
    assert.ok(Buffer.compare(destination.memory[index]!, memory) === 0, `block ${index}`);
  }
  assert.equal(second.machine.counters.recoveries, 1);
});

test("a page is asked of the image once, however often the guest asks, and never when it has been sent", () => {
  const world = running();
  const request: ReturnMessage = { kind: "request", block: "pc.ram", start: 5 * PAGE, byteLength: PAGE };
  world.say(request);
  world.say({ ...request, block: undefined });
  assert.equal(world.waitingWants, 1);
  world.do(world.machine.pages(16 + 5, new Uint8Array(PAGE).fill(7)));
  world.say(request);
  assert.equal(world.waitingWants, 1);
  assert.deepEqual(world.touched, [21, 21, 21], "every touch is told, in order");
  const { requests, crossed, pagesSent } = world.machine.counters;
  assert.deepEqual({ requests, crossed, pagesSent }, { requests: 3, crossed: 1, pagesSent: 1 });
});

test("what is pushed is bounded, the more so while a guest waits, and stops when nothing leaves", () => {
  const world = new World(new Random(1), small(), { pushPagesMax: 32, unsentBytesMax: 64 * 1024 });
  world.connect();
  world.do(world.machine.start());
  assert.equal(world.machine.ledger.pushedCount, 32);
  for (let page = 16; page < 48; page++) world.do(world.machine.pages(page, new Uint8Array(PAGE)));
  assert.equal(world.machine.ledger.pushedCount, 15, "with the 16th page, 64 KiB lie in the socket");
  world.say({ kind: "pong", value: 3 });
  world.say({ kind: "request", block: "huge", start: 0, byteLength: HUGE });
  assert.equal(world.machine.ledger.waitedCount, 512);
  world.do(world.machine.written(2 ** 20));
  assert.equal(world.machine.ledger.pushedCount, 15, "a guest waits: 8 would be enough");
});

test("the rate of what is pushed is kept", () => {
  const world = new World(new Random(1), small(), { pushBytesPerSecond: 100 * PAGE, pushUnit: 1 });
  world.connect();
  world.do(world.machine.start());
  world.now += 50;
  world.do(world.machine.tick());
  assert.equal(world.machine.ledger.pushedCount, 5, "half of a tenth of a second's");
  assert.ok(world.machine.wakeAt <= world.now + 5);
  world.now += 10_000;
  world.do(world.machine.tick());
  assert.equal(world.machine.ledger.pushedCount, 15, "what was not used is not saved up");
});

/** What the destination says, and why that ends the connection. */
const REFUSALS: readonly [string, ReturnMessage, string][] = [
  ["an unknown block", { kind: "request", block: "vga", start: 0, byteLength: PAGE }, '"vga"'],
  [
    "the block of no request before",
    { kind: "request", block: undefined, start: 0, byteLength: PAGE },
    "no block",
  ],
  ["half a page", { kind: "request", block: "pc.ram", start: 2048, byteLength: PAGE }, "no page"],
  ["a page of 2 KiB", { kind: "request", block: "pc.ram", start: 0, byteLength: 2048 }, "no page"],
  ["no bytes", { kind: "request", block: "pc.ram", start: 0, byteLength: 0 }, "no page"],
  ["4 KiB of a huge page", { kind: "request", block: "huge", start: PAGE, byteLength: PAGE }, "no page"],
  [
    "a page behind the block",
    { kind: "request", block: "pc.ram", start: 64 * PAGE, byteLength: PAGE },
    "262144",
  ],
  ["a page far behind it", { kind: "request", block: "pc.ram", start: 2 ** 50, byteLength: PAGE }, "262144"],
  ["an answer to no PING", { kind: "pong", value: 99 }, "PING 99"],
  ["a second start", { kind: "pong", value: 3 }, "PING 3"],
  ["an end before the end", { kind: "shut", code: 0 }, "running"],
  ["a failure", { kind: "shut", code: 1 }, "SHUT 1"],
  [
    "pages that it was not asked for",
    { kind: "received", block: "pc.ram", bitmap: new Uint8Array(8) },
    "not asked",
  ],
  ["that it has resumed", { kind: "resumed", value: 1 }, "resumed"],
];

for (const [what, message, words] of REFUSALS) {
  test(`a destination that asks for or says ${what} is given up with a reason, and can come back`, () => {
    const world = running();
    world.say(message);
    assert.ok(world.error instanceof MinorfaultError && world.error.kind === "protocol");
    assert.ok(world.error.message.includes(words), world.error.message);
    assert.equal(world.waitingWants, 0);
    assert.equal(world.machine.state, "paused");
  });
}

test("before the machine runs, a request, a loss or a silence ends it", () => {
  const scene = small();
  const request: ReturnMessage = { kind: "request", block: "pc.ram", start: 0, byteLength: PAGE };
  const early = new World(new Random(1), scene);
  early.connect();
  early.say(request);
  assert.match(early.error?.message ?? "", /prefetching/);
  assert.equal(early.machine.state, "failed");

  const lost = new World(new Random(1), scene);
  lost.connect();
  lost.do(lost.machine.start());
  lost.do(lost.machine.lost());
  assert.deepEqual([codeOf(lost), lost.machine.state], ["ERR_QEMU", "failed"]);

  const silent = new World(new Random(1), scene, { stepMs: 1000 });
  silent.connect();
  silent.do(silent.machine.start());
  silent.now += 999;
  silent.do(silent.machine.tick());
  assert.equal(codeOf(silent), undefined);
  silent.now += 1;
  silent.do(silent.machine.tick());
  assert.deepEqual([codeOf(silent), silent.machine.state], ["ERR_DEADLINE", "failed"]);
});

test("while devices are loaded, pages that they ask for are served", () => {
  const world = new World(new Random(1), small(), { push: false });
  world.connect();
  world.do(world.machine.start());
  world.say({ kind: "request", block: "pc.ram", start: 0, byteLength: PAGE });
  assert.equal(world.waitingWants, 1);
  assert.equal(world.machine.state, "starting");
});

test("a bitmap of another length, or of a block twice, ends a recovery", () => {
  for (const [messages, words] of [
    [[{ kind: "received", block: "pc.ram", bitmap: new Uint8Array(16) }], "16 bytes"],
    [[{ kind: "received", block: "vga", bitmap: new Uint8Array(8) }], '"vga"'],
    [
      [
        { kind: "received", block: "pc.ram", bitmap: new Uint8Array(8) },
        { kind: "received", block: "pc.ram", bitmap: new Uint8Array(8) },
      ],
      "not asked",
    ],
    [[{ kind: "resumed", value: 1 }], "resumed"],
  ] as const) {
    const world = new World(new Random(1), small(), { isResumed: true });
    world.connect();
    for (const message of messages) world.say(message);
    assert.ok(world.error?.message.includes(words), world.error?.message);
    assert.equal(world.machine.state, "paused");
  }
});

test("blocks that cannot be are refused before anything is sent", () => {
  const [ram] = small().blocks as [SourceBlock];
  for (const blocks of [
    [],
    [{ ...ram, byteLength: 0 }],
    [{ ...ram, byteLength: PAGE + 1 }],
    [{ ...ram, pageSize: 2 * PAGE, byteLength: 3 * PAGE }],
    [{ ...ram, pageSize: 5000 }],
    [ram, { ...ram, firstPage: 2000 }],
    [ram, { ...ram, name: "other", firstPage: 20 }],
  ]) {
    assert.throws(
      () => new SourceMachine({ devices: DEVICES, sectionId: 2, blocks }),
      (thrown: unknown) => thrown instanceof MinorfaultError && thrown.code === "ERR_BAD_ARGUMENT",
    );
  }
});
