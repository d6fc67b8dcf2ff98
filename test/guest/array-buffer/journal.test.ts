// Flushing into a file: whatever stops it, the file is the old one or the new one.

import assert from "node:assert/strict";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  type JournalStep,
  journalPath,
  recoverFile,
  writeThroughJournal,
} from "../../../src/guest/array-buffer/journal.ts";
import { open } from "../../../src/index.ts";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { numberedFile, ownFolder, PAGE, runChild } from "./files.ts";

const folder = ownFolder();
const PAGES = 96;
const RANGES = Array.from({ length: 40 }, (_, index) => ({
  offset: index * 2 * PAGE,
  byteLength: PAGE * (1 + (index % 2)),
}));
const read = (offset: number, target: Uint8Array): void => {
  for (let at = 0; at < target.byteLength; at++) target[at] = Math.floor((offset + at) / PAGE) % 251;
};

function newContent(old: Buffer): Buffer {
  const fresh = Buffer.from(old);
  for (const { offset, byteLength } of RANGES) read(offset, fresh.subarray(offset, offset + byteLength));
  return fresh;
}

/** Flushes in a copy of the folder's state and stops dead after `steps` steps; answers how many there were. */
async function flushUntil(path: string, steps: number): Promise<JournalStep[]> {
  const done: JournalStep[] = [];
  const stop = new Error("the power has failed");
  // Whoever has lost power does not clean up either.
  const before = (): string[] => readdirSync(folder);
  const saved = new Map<string, Buffer>();
  const keep = (): void => {
    saved.clear();
    for (const name of before()) saved.set(name, readFileSync(join(folder, name)));
  };
  try {
    await writeThroughJournal(path, RANGES, read, (step) => {
      done.push(step);
      if (done.length === steps) {
        keep();
        throw stop;
      }
    });
  } catch (error) {
    assert.equal(error, stop);
    for (const name of before()) rmSync(join(folder, name));
    for (const [name, bytes] of saved) writeFileSync(join(folder, name), bytes);
  }
  return done;
}

test("at every step a crash leaves the old content or the new one, and the next open ends what was begun", async () => {
  const path = numberedFile(folder, "file", PAGES);
  const old = readFileSync(path);
  const fresh = newContent(old);
  const seen = new Set<string>();
  for (let steps = 1; ; steps++) {
    writeFileSync(path, old);
    const done = await flushUntil(path, steps);
    if (done.length < steps) break;
    const isNamed = done.includes("named");
    await recoverFile(path);
    const now = readFileSync(path);
    assert.ok(now.equals(isNamed ? fresh : old), `after ${done.join(", ")}`);
    assert.ok(!existsSync(journalPath(path)));
    seen.add(done.at(-1)!);
    for (const name of readdirSync(folder).filter((name) => name.endsWith(".tmp")))
      rmSync(join(folder, name));
  }
  assert.deepEqual([...seen], ["begun", "written", "named", "applying", "applied", "removed"]);
  assert.ok(readFileSync(path).equals(fresh));
});

test("a journal that is damaged in any byte, too short, or of another file is refused, and the file left alone", async () => {
  const path = numberedFile(folder, "file", PAGES);
  const old = readFileSync(path);
  await flushUntil(path, 3);
  const journal = readFileSync(journalPath(path));
  const check = async (bytes: Buffer): Promise<void> => {
    writeFileSync(journalPath(path), bytes);
    await assert.rejects(recoverFile(path), { code: "ERR_SOURCE_CORRUPT" });
    assert.ok(readFileSync(path).equals(old));
  };
  for (let at = 0; at < journal.length; at += Math.ceil(journal.length / 40)) {
    const bytes = Buffer.from(journal);
    bytes[at]! ^= 1 << (at % 8);
    await check(bytes);
  }
  for (const length of [0, 10, 31, 32, 60, journal.length - 1]) await check(journal.subarray(0, length));
  writeFileSync(journalPath(path), journal);
  truncateSync(path, (PAGES + 1) * PAGE);
  await assert.rejects(recoverFile(path), { code: "ERR_SOURCE_CORRUPT" });
  truncateSync(path, PAGES * PAGE);
  await assert.rejects(writeThroughJournal(path, RANGES, read), { code: "ERR_BUSY" });
  await recoverFile(path);
  assert.ok(readFileSync(path).equals(newContent(old)));
});

test("killed at any moment of a flush: all of it or nothing, 12 times", {
  skip,
  timeout: 120_000,
}, async () => {
  const own = ownFolder();
  const path = numberedFile(own, "file", 1024);
  const old = readFileSync(path);
  const outcomes = { old: 0, new: 0 };
  for (let round = 0; round < 12; round++) {
    const copy = join(own, "copy");
    cpSync(path, copy);
    rmSync(journalPath(copy), { force: true });
    // The child kills itself while the flush is under way, a little later each time.
    const program = `
      const memory = await open(path, { mode: "write-back" });
      new Uint8Array(memory.buffer).fill(7);
      const flushed = memory.flush();
      const until = performance.now() + ${round * 6};
      while (performance.now() < until) await new Promise(setImmediate);
      process.kill(process.pid, "SIGKILL");
    `;
    const { signal } = runChild(program, { args: [copy] });
    assert.equal(signal, "SIGKILL");
    const memory = await open(copy);
    await memory.close();
    const now = readFileSync(copy);
    const isNew = now.every((byte) => byte === 7);
    assert.ok(isNew || now.equals(old), `round ${round}: neither old nor new`);
    outcomes[isNew ? "new" : "old"]++;
  }
  console.log(JSON.stringify(outcomes));
});
