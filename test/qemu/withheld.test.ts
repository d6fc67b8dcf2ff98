// Pages that cannot be had, as the source of a post-copy migration books them: all others are sent, and they may come later.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../src/base/random.ts";
import { SourceMachine } from "../../src/guest/qemu/index.ts";
import { PAGE } from "./streams.ts";
import { codeOf, DEVICES, HUGE, small, World } from "./world.ts";

test("pages that cannot be had are left out, all others go on, and they may come later", () => {
  const world = new World(new Random(1), small(), { pushPagesMax: 32 });
  world.connect();
  world.do(world.machine.start());
  const { ledger } = world.machine;
  assert.equal(ledger.pushedCount, 32);
  world.do(world.machine.withhold(16, 16));
  assert.deepEqual([ledger.withheldCount, ledger.pushedCount], [16, 32], "others take their place");
  world.do(world.machine.withhold(512 + 5, 1));
  assert.equal(ledger.withheldCount, 16 + 512, "half a huge page is none");
  world.say({ kind: "request", block: "pc.ram", start: 5 * PAGE, byteLength: PAGE });
  assert.equal(ledger.waitedCount, 1, "a guest that asks is one more reason to try");
  world.do(world.machine.withhold(16, 16));
  assert.deepEqual([ledger.waitedCount, ledger.withheldCount], [0, 16 + 512]);
  world.deny(16, 16);
  world.deny(512, 512);
  world.run();
  assert.equal(world.machine.state, "running");
  assert.ok(ledger.isAllElseSent && !ledger.isAllSent);
  world.do(world.machine.pages(16, new Uint8Array(16 * PAGE).fill(7)));
  world.do(world.machine.pages(512, new Uint8Array(HUGE).fill(7)));
  world.settle();
  assert.deepEqual([world.machine.state, ledger.withheldCount], ["completed", 0]);
});

test("a source that has nothing any more is not asked for everything", () => {
  const block = { name: "pc.ram", byteLength: 20_000 * PAGE, pageSize: PAGE, firstPage: 0 };
  const machine = new SourceMachine({ devices: DEVICES, sectionId: 2, blocks: [block] });
  machine.connected();
  let wanted = 0;
  let actions = machine.start();
  for (let turns = 0; turns < 20_000 && actions.length > 0; turns++) {
    const wants = actions.filter((action) => action.kind === "want");
    wanted += wants.length;
    actions = wants.flatMap(({ first, count }) => machine.withhold(first, count));
  }
  assert.ok(machine.ledger.withholdsMost && machine.ledger.isAllElseSent);
  assert.ok(wanted < 20_000 / 16, `${wanted} times`);
});

test("a destination that waits for a page that cannot be had is not late", () => {
  const world = new World(new Random(1), small(), { push: false, stepMs: 1000 });
  world.connect();
  world.do(world.machine.start());
  world.say({ kind: "request", block: "pc.ram", start: 0, byteLength: PAGE });
  world.do(world.machine.withhold(16, 16));
  world.now += 5000;
  world.do(world.machine.tick());
  world.do(world.machine.pages(16, new Uint8Array(16 * PAGE)));
  assert.deepEqual([world.error, world.machine.state], [undefined, "starting"]);
  world.now += 1000;
  world.do(world.machine.tick());
  assert.equal(codeOf(world), "ERR_DEADLINE", "now it is");
});
