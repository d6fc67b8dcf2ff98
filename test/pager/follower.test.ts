// Where the serving thread goes, seen from the guest: beside its threads that run, or to them.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { affinity, local, setAffinity } from "../../src/linux/index.ts";
import { Follower } from "../../src/pager/follower.ts";

const cpus = affinity(local);
const skip = cpus.length > 1 ? false : "only one CPU";
const DEADLINE_MS = 10_000;

test("A thread that works beside a guest keeps off the CPU on which the guest runs", { skip }, async (t) => {
  const guest = await busyOn(t, cpus[1]!);
  const follower = followerOf(t, "block");
  await until(() => {
    follower.followProcess(guest.pid!);
    return !affinity(local).includes(cpus[1]!);
  });
  assert.deepEqual(
    affinity(local),
    cpus.filter((cpu) => cpu !== cpus[1]),
  );
});

test("It goes to the guest when the work is over, and anywhere when the guest is", { skip }, async (t) => {
  const guest = await busyOn(t, cpus[1]!);
  const follower = followerOf(t, "block");
  await until(() => {
    follower.followProcess(guest.pid!);
    return !affinity(local).includes(cpus[1]!);
  });
  follower.mode = "same-cpu";
  assert.deepEqual(affinity(local), [cpus[1]]);
  follower.forget();
  assert.deepEqual(affinity(local), cpus);
});

test("A guest that does not run, or is no more, moves nobody", { skip }, async (t) => {
  const guest = await busyOn(t, cpus[1]!);
  guest.kill("SIGKILL");
  await once(guest, "exit");
  const follower = followerOf(t, "block");
  follower.followProcess(guest.pid!);
  follower.followProcess(0);
  assert.deepEqual(affinity(local), cpus);
});

function followerOf(t: TestContext, mode: "block" | "same-cpu"): Follower {
  // Each look is due.
  let now = 0;
  const follower = new Follower(mode, () => (now += 1000));
  t.after(() => {
    follower.close();
    setAffinity(local, cpus);
  });
  return follower;
}

/** A process of one thread that is never idle. */
async function busyOn(t: TestContext, cpu: number): Promise<ChildProcess> {
  const guest = spawn("sh", ["-c", "while :; do :; done"], { stdio: "ignore" });
  t.after(() => guest.kill("SIGKILL"));
  await once(guest, "spawn");
  setAffinity(local, [cpu], guest.pid!);
  return guest;
}

async function until(isSo: () => boolean): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  while (!isSo()) {
    assert.ok(performance.now() < end, "It did not come in time");
    await turn();
  }
}
