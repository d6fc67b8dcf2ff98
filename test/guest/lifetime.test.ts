// How bare processes end: on command, by themselves, and with the program that started them.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { SIGNAL } from "../../src/abi/memory.ts";
import { local, pidfdOpen, waitForEnd } from "../../src/linux/index.ts";
import { skipUnlessBareProcess as skip, skipUnlessUserfaultfd as skipUffd } from "../linux/host.ts";
import { isThere, kernel, paged } from "./bare.ts";

test("kill ends a whole process, wherever its threads wait, and says so to who holds them", {
  skip: skipUffd,
}, () => {
  const system = kernel();
  const process = system.spawnProcess();
  const { address } = paged(process, 2);
  const blocked = process.spawnThread();
  const done = process.spawnThread();
  blocked.start({ kind: "load", address, size: 1 });
  done.start({ kind: "call", name: "getpid", args: [] });
  process.settle();
  const { pid } = process;
  process.kill();
  process.kill();
  assert.equal(isThere(pid), false);
  assert.equal(process.exited, SIGNAL.SIGKILL);
  assert.deepEqual(blocked.ending, { kind: "gone" });
  assert.deepEqual(done.ending, { kind: "value", value: pid });
  assert.equal(blocked.state, "idle");
  const asked = () => blocked.start({ kind: "load", address, size: 1 });
  assert.throws(asked, { code: "ERR_CLOSED", hint: /what killed it/ });
  assert.throws(() => process.call("getpid"), { code: "ERR_CLOSED" });
  assert.throws(() => process.spawnThread(), { code: "ERR_CLOSED" });
  process.settle();
  system.close();
  assert.throws(() => system.spawnProcess(), { code: "ERR_CLOSED" });
});

test("a process that exits leaves its status", { skip }, () => {
  const system = kernel();
  const first = system.spawnProcess();
  assert.equal(first.exited, undefined);
  assert.equal(first.call("exit_group", 7), 0);
  assert.equal(first.exited, 7 << 8);
  const second = system.spawnProcess();
  const pidfd = pidfdOpen(second.pid);
  const thread = second.spawnThread();
  thread.start({ kind: "call", name: "exit_group", args: [3] });
  second.settle();
  assert.deepEqual(thread.ending, { kind: "gone" });
  // The thread that called is gone first; the process ends when its last one is.
  assert.ok(waitForEnd(pidfd, 5000));
  local.call("close", pidfd);
  assert.equal(second.exited, 3 << 8);
  const third = system.spawnProcess();
  const leaver = third.spawnThread();
  leaver.start({ kind: "call", name: "exit", args: [0] });
  third.settle();
  assert.deepEqual(leaver.ending, { kind: "gone" });
  assert.equal(third.exited, undefined, "the others go on");
  assert.equal(third.call("getpid"), third.pid);
});

const PARENT = `
  const { KernelSystem } = await import(${JSON.stringify(new URL("../../src/guest/process/index.js", import.meta.url).href)});
  const system = new KernelSystem();
  const idle = system.spawnProcess();
  const forking = system.spawnProcess();
  const { child } = forking.fork();
  forking.settle();
  const seen = child();
  // A child that nobody asks for.
  const unseen = forking.fork();
  forking.settle();
  const nobody = system.spawnProcess();
  if (process.getuid() === 0) nobody.call("setresuid", 65534, 65534, 65534);
  const sleeping = system.spawnProcess();
  sleeping.call("pipe2", sleeping.scratch.address, 0);
  sleeping.spawnThread().start({ kind: "call", name: "read", args: [3, sleeping.scratch.address, 1] });
  sleeping.settle();
  const pids = [idle, forking, seen, nobody, sleeping].map((each) => each.pid);
  pids.push(unseen.thread.ending.value);
  console.log(JSON.stringify(pids));
`;

function listed(output: string): number[] {
  const pids: number[] = JSON.parse(output.trim());
  assert.equal(new Set(pids).size, 6);
  return pids;
}

test("a program that ends leaves no process behind", { skip }, () => {
  for (const end of [
    "process.exit(0)",
    "system.close(); system.close()",
    "throw new Error('on purpose')",
    "",
  ]) {
    const result = spawnSync(process.execPath, ["--input-type=module", "-e", `${PARENT};${end}`], {
      encoding: "utf8",
    });
    for (const pid of listed(result.stdout)) assert.equal(isThere(pid), false, `${pid} after: ${end}`);
  }
});

test("a program that is killed leaves no process behind", { skip }, async () => {
  const program = `${PARENT}; setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [output] = (await once(parent.stdout, "data")) as [Buffer];
  const pids = listed(output.toString());
  assert.ok(pids.every(isThere));
  parent.kill("SIGKILL");
  await once(parent, "exit");
  const gone = (pid: number) => {
    if (!isThere(pid)) return true;
    // Whoever adopted it may not have waited for it yet, or does so just now.
    try {
      return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
    } catch {
      return true;
    }
  };
  const until = performance.now() + 5000;
  while (!pids.every(gone) && performance.now() < until) await new Promise((next) => setImmediate(next));
  assert.deepEqual(
    pids.filter((pid) => !gone(pid)),
    [],
  );
});
