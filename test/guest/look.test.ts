// Whether a thread waits, as seen by somebody without rights over its process.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { PROT } from "../../src/abi/memory.ts";
import { skipUnlessBareProcess as skip } from "../linux/host.ts";
import { kernel, mapped } from "./bare.ts";

test("a stranger who may not read the better answer sees from the state letter who waits", {
  skip: skip || (process.getuid?.() !== 0 && "needs root, to become somebody else"),
}, () => {
  const guest = kernel().spawnProcess();
  const address = mapped(guest, 1, PROT.READ | PROT.WRITE | PROT.EXEC);
  const [waiting, running] = [guest.spawnThread(), guest.spawnThread()];
  guest.call("pipe2", guest.scratch.address, 0);
  waiting.start({ kind: "call", name: "read", args: [3, guest.scratch.address, 1] });
  // jmp to itself
  for (const [offset, byte] of [0xeb, 0xfe].entries()) {
    running.start({ kind: "store", address: address + offset, value: byte });
    guest.settle();
  }
  running.start({ kind: "execute", address });
  const layer = new URL("../../src/guest/process/look.js", import.meta.url).href;
  const program = `
    const { Looker } = await import(${JSON.stringify(layer)});
    const { readFileSync } = await import("node:fs");
    const kinds = [${waiting.tid}, ${running.tid}].map((tid) => new Looker(${guest.pid}, tid).look().kind);
    let denied = false;
    try { readFileSync("/proc/${guest.pid}/task/${waiting.tid}/syscall"); } catch { denied = true; }
    console.log(JSON.stringify([denied, ...kinds, new Looker(${guest.pid}, 1).look().kind]));
  `;
  const stranger = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    uid: 65534,
    gid: 65534,
  });
  assert.equal(stranger.stderr, "");
  assert.equal(stranger.stdout.trim(), '[true,"waiting","running","gone"]');
  guest.kill();
});
