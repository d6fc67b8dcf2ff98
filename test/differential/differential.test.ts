// The kernel and the software implementation, held to each other by random programs; and the tool, held to what it
// is for: it finds a difference where there is one, and none where there is none.

import assert from "node:assert/strict";
import { release } from "node:os";
import { after, type TestContext, test } from "node:test";
import { KernelSystem } from "../../src/guest/process/index.ts";
import { raisePool } from "../../src/testing/conformance/pool.ts";
import { createSystem } from "../../src/uffd/software/index.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { type Campaign, campaign, report } from "./campaign.ts";
import { compare } from "./compare.ts";
import type { Program, Step } from "./steps.ts";

const OPERATIONS = 20_000;
/** LIMIT: programs of a run in which the kernel itself differed from run to run: a locked page is not mapped around. */
const CHANCES_MAX = 2;
const skip = skipUnlessUserfaultfd;
/** The kernel that the software implementation answers like. */
const skipUnlessSame =
  skip ||
  (release().startsWith("6.18.")
    ? false
    : `the software implementation answers like Linux 6.18, this is ${release()}: see npm run differential`);

const pool = skip === false ? raisePool() : undefined;
after(() => pool?.restore());
const huge = pool !== undefined && pool.missing === undefined;

/** What the kernel itself answers differently from run to run is shown and counted; anything else fails. */
function judge(t: TestContext, seed: number, { found }: Campaign, names: readonly [string, string]): void {
  for (const each of found) t.diagnostic(report(each, names));
  const real = found.filter(({ chance }) => !chance);
  assert.equal(real.length, 0, `seed ${seed}\n${real.map((each) => report(each, names)).join("\n")}`);
  assert.ok(found.length <= CHANCES_MAX, `${found.length} programs depended on the kernel's chance`);
}

test(`${OPERATIONS} random operations have the same results on the kernel and in software`, {
  skip: skipUnlessSame,
}, async (t) => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.diagnostic(`seed ${seed}`);
  const kernel = new KernelSystem();
  const software = createSystem();
  try {
    const result = await campaign([kernel, software], {
      operations: OPERATIONS,
      seed,
      huge,
      divergencesMax: 3,
    });
    judge(t, seed, result, ["kernel", "software"]);
    assert.ok(result.operations >= OPERATIONS);
    t.diagnostic(
      `${result.operations} operations of ${result.counts.size} kinds in ${result.programs} programs`,
    );
    assert.ok(result.counts.size >= 40, `only ${result.counts.size} kinds of operations`);
  } finally {
    kernel.close();
    software.close();
  }
});

test("the kernel compared with itself does not differ: no program depends on chance", { skip }, async (t) => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.diagnostic(`seed ${seed}`);
  const first = new KernelSystem();
  const second = new KernelSystem();
  try {
    const result = await campaign([first, second], { operations: 3000, seed, huge, divergencesMax: 3 });
    judge(t, seed, result, ["kernel", "kernel again"]);
  } finally {
    first.close();
    second.close();
  }
});

test("a system that answers like another kernel is found out, by a program of a few steps", async () => {
  const today = createSystem();
  const old = createSystem({ profile: "linux-4.3" });
  const result = await campaign([today, old], { operations: 2000, seed: 1, divergencesMax: 2 });
  assert.equal(result.found.length, 2);
  for (const found of result.found) {
    assert.ok(found.acts.length <= 6, found.acts.join("\n"));
    assert.ok(found.first.length + found.second.length > 0);
    assert.equal(found.chance, false);
    assert.match(report(found, ["today", "old"]), /seed \d+:\n(.*\n)*? {2}(today|old): /);
  }
  today.close();
  old.close();
});

test("the same seed gives the same programs", async () => {
  const once = async () => {
    const result = await campaign([createSystem(), createSystem()], { operations: 1000, seed: 42 });
    assert.equal(result.found.length, 0);
    return [...result.counts].sort();
  };
  assert.deepEqual(await once(), await once());
});

test("steps that mean nothing in the present state are left out, and the rest is compared", () => {
  const base = { actor: 0, thread: 0 };
  const place = { area: 0, page: 0, count: 2, edge: "none" } as const;
  const steps: Step[] = [
    { ...base, kind: "wake", handle: 3, place },
    { ...base, kind: "open", flags: 0x800, features: 0, api: "good" },
    { ...base, kind: "register", handle: 7, place, mode: 1 },
    { ...base, kind: "access", access: "load", area: 0, page: 1, offset: 0 },
    { ...base, kind: "kill" },
  ];
  const program: Program = { huge: false, restart: true, steps };
  const systems = [createSystem(), createSystem()] as const;
  const run = compare(program, systems);
  assert.equal(run.divergence, undefined);
  assert.deepEqual([...run.counts.keys()], ["open", "REGISTER", "load"]);
});
