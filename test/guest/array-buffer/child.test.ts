// A pager in a process of its own: the same memory, and its death is an ordinary event.

import assert from "node:assert/strict";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { buildImage, openRawFile } from "../../../src/image/index.ts";
import { type MinorfaultError, open, storeWorkingSet } from "../../../src/index.ts";
import { openStore } from "../../../src/source/index.ts";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { countWrong, numberedFile, numberOf, ownFolder, PAGE, runChild, say } from "./files.ts";

const folder = ownFolder();
const PAGES = 4096;
const path = numberedFile(folder, "numbers", PAGES);

/** For a program: the pager's processes of this one. */
const PAGERS = `
  const pagers = () => fs.readdirSync("/proc").filter((name) => {
    try {
      const [, rest = ""] = /\\) (.*)/.exec(fs.readFileSync("/proc/" + name + "/stat", "latin1")) ?? [];
      const [state, parent] = rest.split(" ");
      return Number(parent) === process.pid && state !== "Z" &&
        fs.readFileSync("/proc/" + name + "/cmdline", "latin1").includes("pager-process");
    } catch { return false; }
  }).map(Number);
`;

async function image(): Promise<string> {
  const store = await openStore(join(folder, "store"));
  const { source } = openRawFile(path);
  await buildImage(store, "image", { regions: [{ name: "numbers", source }] });
  await source.close();
  await store.close();
  return join(folder, "store", "image");
}

test("files and images are served by another process, written pages are found, and nothing is left of it", {
  skip,
  timeout: 180_000,
}, async () => {
  for (const target of [path, await image()]) {
    const memory = await open(target, { pager: "process" });
    assert.equal(memory.how, "userfaultfd");
    assert.equal(memory.resident().pages, 0);
    assert.equal(countWrong(memory.buffer), 0);
    await memory.prefetch();
    assert.equal(memory.resident().pages, PAGES);
    await memory.close();
    await memory.close();
  }
  const own = numberedFile(folder, "own", 64);
  const memory = await open(own, { pager: "process", mode: "write-back" });
  new Uint32Array(memory.buffer)[3 * 1024 + 1] = 5;
  assert.deepEqual(await memory.flush(), { bytesWritten: PAGE, ranges: 1 });
  await memory.close();
  const said = say(
    `${PAGERS}
    const memory = await open(path, { pager: "process" });
    const during = pagers().length;
    await memory.close();
    say(during, pagers().length);`,
    { args: [path] },
  );
  assert.equal(said, "1 0");
});

test("killed while the main thread itself stands in faults: another process takes over, and no byte is wrong", {
  skip,
  timeout: 180_000,
}, async () => {
  const program = `
    ${PAGERS}
    const errors = [];
    const memory = await open(path, { mode: "private", pager: "process", onError: (error) => errors.push(error.code) });
    const words = new Uint32Array(memory.buffer);
    let wrong = 0;
    for (let page = 0; page < ${PAGES}; page++) {
      if (page % 1500 === 700) for (const pid of pagers()) process.kill(pid, "SIGKILL");
      if (words[page * 1024] !== ((page * 2654435761 + 12345) >>> 0)) wrong++;
    }
    await memory.prefetch();
    say(wrong, memory.resident().pages, errors.length, new Set(errors).size);
    await memory.close();
  `;
  for (const target of [path, await image()]) {
    assert.equal(say(program, { args: [target] }), `0 ${PAGES} 3 1`);
  }
});

test("the file is replaced and the pager killed: its successor serves the file that was opened", {
  skip,
}, () => {
  const own = numberedFile(folder, "replaced", 256);
  const other = join(folder, "other");
  writeFileSync(other, Buffer.alloc(256 * PAGE, 9));
  const program = `
    ${PAGERS}
    const memory = await open(path, { mode: "private", pager: "process", onError: () => {} });
    fs.renameSync(args[0], path);
    for (const pid of pagers()) process.kill(pid, "SIGKILL");
    say(new Uint32Array(memory.buffer)[200 * 1024]);
    await memory.close();
  `;
  assert.equal(say(program, { args: [own, other] }), String(numberOf(200)));
  assert.throws(() => renameSync(other, own), { code: "ENOENT" });
});

test("touches are recorded, those of a process that was killed with them; a replay says how it ended", {
  skip,
  timeout: 180_000,
}, async () => {
  const target = await image();
  const program = `
    ${PAGERS}
    const memory = await open(path, { pager: "process", trace: true, onError: () => {} });
    const bytes = new Uint8Array(memory.buffer);
    let sum = 0;
    for (const page of [900, 3, 77]) sum += bytes[page * 4096];
    // Without a turn of the event loop in between: it is all there.
    const first = memory.trace();
    for (const pid of pagers()) process.kill(pid, "SIGKILL");
    for (const page of [2000, 3, 5]) sum += bytes[page * 4096];
    const { touches, dropped } = memory.trace();
    say(first.touches.map(({ offset }) => offset / 4096), touches.map(({ offset }) => offset / 4096), dropped);
    say(touches.every(({ ms }, index) => index === 0 || ms >= touches[index - 1].ms), touches[0].access);
    await memory.close();
    say(await memory.replayed.then(() => "settled"));
  `;
  const [touched, order, settled] = say(program, { args: [target] }).split("\n");
  assert.deepEqual([touched, order, settled], ["[900,3,77] [900,3,77,2000,5] 0", 'true "read"', '"settled"']);
  const traced = await open(target, { pager: "process", trace: true });
  for (const page of [9, 8, 700]) assert.equal(new Uint32Array(traced.buffer)[page * 1024], numberOf(page));
  await storeWorkingSet(target, "start", [traced.trace()]);
  await traced.close();
  assert.throws(() => traced.trace(), { code: "ERR_CLOSED" });
  const memory = await open(target, { pager: "process" });
  const report = await memory.replayed;
  assert.deepEqual(
    [report?.workingSet, report?.bytesInstalled, report?.error, memory.resident().pages],
    ["start", 3 * PAGE, undefined, 3],
  );
  await memory.close();
  const plain = await open(path, { pager: "process" });
  assert.equal(await plain.replayed, undefined);
  await plain.close();
});

test("a pager that dies again and again is given up: who waits gets SIGBUS, and no zeros", { skip }, () => {
  const program = `
    ${PAGERS}
    const memory = await open(path, { mode: "private", pager: "process", onError: () => {} });
    const killer = new Worker(\`
      const fs = require("node:fs");
      \${args[0]}
      const { parentPort } = require("node:worker_threads");
      for (let isFirst = true;;) for (const pid of pagers()) {
        try { process.kill(pid, "SIGKILL"); } catch { continue; }
        if (isFirst) parentPort.postMessage("killed");
        isFirst = false;
      }
    \`, { eval: true, execArgv: [] });
    // From here on none lives long enough to serve: the first one might have served everything.
    await new Promise((done) => killer.once("message", done));
    const words = new Uint32Array(memory.buffer);
    for (let page = 0; page < ${PAGES}; page++) {
      if (words[page * 1024] !== ((page * 2654435761 + 12345) >>> 0)) say("WRONG");
    }
    say("all of it was served");
  `;
  const { signal, stdout } = runChild(program, { args: [path, PAGERS] });
  assert.deepEqual([signal, stdout], ["SIGBUS", ""]);
});

test("the process ends, in any way, and its pager with it", { skip }, async () => {
  for (const [end, expected] of [
    ["process.exit(3)", 3],
    ["process.kill(process.pid, 'SIGKILL')", null],
    ["0", 0],
  ] as const) {
    const program = `
      ${PAGERS}
      const memory = await open(path, { mode: "private", pager: "process" });
      say(pagers());
      new Uint8Array(memory.buffer)[0];
      ${end};
    `;
    const { status, stdout } = runChild(program, { args: [path] });
    assert.equal(status, expected);
    const [pid] = JSON.parse(stdout) as number[];
    assert.ok(pid !== undefined);
    const until = performance.now() + 5000;
    const isThere = (): boolean => {
      try {
        process.kill(pid, 0);
        return true;
      } catch {
        return false;
      }
    };
    while (isThere() && performance.now() < until) await new Promise(setImmediate);
    assert.ok(!isThere(), `after ${end}`);
  }
});

test("what a process of its own can't do is refused", { skip }, async () => {
  for (const options of [{ budget: "8MiB", mode: "private" }, { budget: "8MiB" }] as const) {
    await assert.rejects(open(path, { ...options, pager: "process" }), {
      code: "ERR_BAD_ARGUMENT",
      message: /no process drop the pages of another/,
    });
  }
  await assert.rejects(open(path, { pager: "thread-of-mine" as never }), { code: "ERR_BAD_ARGUMENT" });
  await assert.rejects(open(join(folder, "nobody"), { pager: "process" }), (error: MinorfaultError) => {
    return error.code === "ERR_SOURCE_MISSING";
  });
});
