// A buffer far larger than the memory that its process may use.

import assert from "node:assert/strict";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { skipUnlessUserfaultfd } from "../../linux/host.ts";
import { type MemoryCgroup, makeMemoryCgroup } from "./cgroup.ts";
import { numberOf, ownFolder, PAGE, runChild } from "./files.ts";

const MIB = 2 ** 20;
const LIMIT = 192 * MIB;
const BYTES = 1024 * MIB;
/** Writing takes twice as long as reading: half of it, or with MINORFAULT_BIG=1 all. */
const WRITTEN_BYTES = process.env.MINORFAULT_BIG === "1" ? BYTES : BYTES / 2;
const folder = ownFolder();

function bigFile(): string {
  const path = join(folder, "big");
  const fd = openSync(path, "w");
  const piece = Buffer.alloc(MIB, 0x5a);
  for (let at = 0; at < BYTES; at += MIB) {
    for (let page = 0; page < MIB / PAGE; page++)
      piece.writeUInt32LE(numberOf(at / PAGE + page), page * PAGE);
    writeSync(fd, piece, 0, MIB, at);
  }
  closeSync(fd);
  return path;
}

const WALKS: readonly { name: string; options: string; walked: number; write: boolean }[] = [
  { name: "read", options: `{ budget: "48MiB" }`, walked: BYTES, write: false },
  {
    name: "private and written",
    options: `{ mode: "private", budget: "48MiB" }`,
    walked: WRITTEN_BYTES,
    write: true,
  },
];
let path: string | undefined;

/** A test with a cgroup of LIMIT, and a file of BYTES. */
function limited(
  name: string,
  work: (cgroup: MemoryCgroup, path: string, context: TestContext) => void,
): void {
  test(name, { skip: skipUnlessUserfaultfd, timeout: 120_000 }, (context) => {
    const cgroup = makeMemoryCgroup(LIMIT);
    if (typeof cgroup === "string") {
      context.skip(cgroup);
      return;
    }
    try {
      path ??= bigFile();
      work(cgroup, path, context);
    } finally {
      cgroup.remove();
    }
  });
}

for (const { name, options, walked, write } of WALKS) {
  limited(
    `${walked / MIB} MiB walked twice in a cgroup of ${LIMIT / MIB} MiB, Node included: ${name}`,
    (cgroup, path, context) => {
      const program = `
        const memory = await open(path, { ...${options}, swapFolder: args[0] });
        const words = new Uint32Array(memory.buffer);
        let wrong = 0;
        for (let round = 0; round < 2; round++) {
          for (let page = 0; page < ${walked / PAGE}; page++) {
            const number = (page * 2654435761 + 12345) >>> 0;
            if (words[page * 1024] !== number) wrong++;
            if (${write}) {
              if (words[page * 1024 + 1] !== (round === 0 ? 0x5a5a5a5a : page)) wrong++;
              words[page * 1024 + 1] = page + round;
            }
          }
        }
        const { bytesEvicted, bytesSwapped } = memory.statistics();
        say({ how: memory.how, wrong, evicted: bytesEvicted, swapped: bytesSwapped });
        await memory.close();
      `;
      const result = runChild(program, {
        args: [path, folder],
        wrapper: cgroup.wrapper,
        deadlineMs: 110_000,
      });
      assert.equal(result.status, 0, `${result.signal} ${result.stderr}`);
      const { how, wrong, evicted, swapped } = JSON.parse(result.stdout);
      assert.deepEqual([how, wrong], ["userfaultfd", 0]);
      assert.ok(evicted >= 2 * walked - LIMIT, `${evicted} bytes were evicted`);
      assert.equal(swapped > walked, write);
      assert.equal(cgroup.oomKills, 0);
      context.diagnostic(`peak of the cgroup: ${Math.round(cgroup.peakBytes / MIB)} MiB`);
    },
  );
}

limited("without a budget the same walk is killed: the limit is real", (cgroup, path) => {
  const program = `
      const memory = await open(path, { implementation: "kernel" });
      const words = new Uint32Array(memory.buffer);
      let sum = 0;
      for (let at = 0; at < words.length; at += 1024) sum += words[at];
      say(sum);
    `;
  const result = runChild(program, { args: [path], wrapper: cgroup.wrapper, deadlineMs: 60_000 });
  assert.notEqual(result.status, 0);
  assert.ok(cgroup.oomKills > 0);
});
