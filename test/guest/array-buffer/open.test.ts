// open() over local files: every mode, what is refused, what is said, and how it ends.

import assert from "node:assert/strict";
import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { attach, type LazyMemory, type OpenMemoryOptions, open } from "../../../src/index.ts";
import { skipUnlessLinux, skipUnlessUserfaultfd } from "../../linux/host.ts";
import { countWrong, numberedFile, numberOf, ownFolder, PACKAGE, PAGE, say } from "./files.ts";

const skip = skipUnlessUserfaultfd;
const folder = ownFolder();
const PAGES = 2048;
const path = numberedFile(folder, "numbers", PAGES, 100);

async function using<T>(
  options: OpenMemoryOptions,
  use: (memory: LazyMemory) => Promise<T> | T,
  file = path,
): Promise<T> {
  const memory = await open(file, options);
  try {
    return await use(memory);
  } finally {
    await memory.close();
  }
}

test("a plain local file that is only read is mapped by the kernel, and says so", {
  skip: skipUnlessLinux,
}, async () => {
  await using({}, (memory) => {
    assert.equal(memory.how, "mmap");
    assert.match(memory.why, /no pager is faster/);
    assert.equal(memory.byteLength, PAGES * PAGE + 100);
    assert.equal(countWrong(memory.buffer), 0);
    assert.equal(new Uint8Array(memory.buffer).at(-1), 0xee);
    assert.equal(memory.resident().pages, PAGES + 1);
  });
});

const LAZY: readonly OpenMemoryOptions[] = [
  { implementation: "kernel" },
  { mode: "private" },
  { mode: "write-back" },
  { budget: "4MiB" },
  { mode: "private", budget: "4MiB" },
  { mode: "write-back", budget: 4 * 2 ** 20 },
];
for (const options of LAZY) {
  test(`pages come as they are touched, with the file's bytes: ${JSON.stringify(options)}`, {
    skip,
  }, async () => {
    await using(options, (memory) => {
      assert.equal(memory.how, "userfaultfd");
      assert.equal(memory.resident().pages, 0);
      const bytes = new Uint8Array(memory.buffer);
      assert.equal(bytes[5 * PAGE], numberOf(5) & 0xff);
      const { pages } = memory.resident();
      assert.ok(pages >= 1 && pages <= 32, `${pages} pages after one touch`);
      // Twice: what was evicted comes again.
      assert.equal(countWrong(memory.buffer) + countWrong(memory.buffer), 0);
      assert.equal(bytes.at(-1), 0xee);
      const budget = options.budget === undefined ? Number.POSITIVE_INFINITY : 4 * 2 ** 20;
      assert.ok(memory.resident().bytes <= budget, `${memory.resident().bytes} bytes are resident`);
      if (options.budget !== undefined) assert.ok(memory.statistics().bytesEvicted > 0);
    });
  });
}

test("private: writes stay in the memory, also when their pages have been evicted", { skip }, async () => {
  for (const budget of [undefined, "4MiB"]) {
    await using({ mode: "private", ...(budget === undefined ? {} : { budget }) }, (memory) => {
      const words = new Uint32Array(memory.buffer, 0, (PAGES * PAGE) / 4);
      for (let round = 0; round < 3; round++) {
        for (let page = 0; page < PAGES; page += 3) words[page * 1024 + 7] = page + round;
        for (let page = 0; page < PAGES; page++) {
          const expected = page % 3 === 0 ? page + round : 0;
          assert.deepEqual([words[page * 1024 + 7], words[page * 1024]], [expected, numberOf(page)]);
        }
      }
      assert.equal(memory.statistics().bytesSwapped > 0, budget !== undefined);
    });
  }
  assert.equal(countWrong(readFileSync(path).buffer as ArrayBuffer), 0);
});

for (const budget of [undefined, "4MiB"] as const) {
  test(`write-back: flush writes the pages that were written, no others (budget ${budget})`, {
    skip,
  }, async () => {
    const own = numberedFile(folder, `back-${budget}`, PAGES, 100);
    const options: OpenMemoryOptions = { mode: "write-back", ...(budget === undefined ? {} : { budget }) };
    await using(
      options,
      async (memory) => {
        const words = new Uint32Array(memory.buffer, 0, (PAGES * PAGE) / 4);
        for (let page = 1; page < PAGES; page += 4) words[page * 1024 + 9] = page;
        assert.equal(countWrong(memory.buffer), 0);
        const before = readFileSync(own);
        assert.equal(before.readUInt32LE(PAGE + 36), 0, "nothing is in the file before the flush");
        assert.deepEqual(await memory.flush(), { bytesWritten: (PAGES / 4) * PAGE, ranges: PAGES / 4 });
        const after = readFileSync(own);
        for (let page = 0; page < PAGES; page++) {
          const expected = page % 4 === 1 ? page : 0;
          assert.equal(after.readUInt32LE(page * PAGE + 36), expected);
        }
        assert.deepEqual(await memory.flush(), { bytesWritten: 0, ranges: 0 });
        // Written again: the next flush has it, and only it.
        words[1024 + 9] = 77;
        assert.deepEqual(await memory.flush(), { bytesWritten: PAGE, ranges: 1 });
        for (let page = 1; page < PAGES; page += 4)
          assert.equal(words[page * 1024 + 9], page === 1 ? 77 : page);
        new Uint8Array(memory.buffer)[PAGES * PAGE + 99] = 5;
      },
      own,
    );
    // Closing has flushed the last byte, and the file has kept its length.
    assert.equal(statSync(own).size, PAGES * PAGE + 100);
    assert.equal(readFileSync(own).at(-1), 5);
  });
}

test("write-back: closing without a flush leaves the file alone", { skip }, async () => {
  const own = numberedFile(folder, "left", 16);
  const memory = await open(own, { mode: "write-back" });
  new Uint8Array(memory.buffer).fill(1);
  await memory.close({ flush: false });
  assert.equal(countWrong(readFileSync(own).buffer as ArrayBuffer), 0);
});

test("windows are views of their own over the same memory", { skip }, async () => {
  await using({ mode: "private" }, (memory) => {
    const [a, b] = [memory.window(PAGE, 2 * PAGE), memory.window(2 * PAGE, PAGE)];
    new Uint8Array(b)[3] = 99;
    assert.equal(new Uint8Array(a)[PAGE + 3], 99);
    assert.equal(new Uint8Array(memory.buffer)[2 * PAGE + 3], 99);
    assert.throws(() => memory.window(0, memory.byteLength + 1), { code: "ERR_OUT_OF_RANGE" });
    assert.throws(() => memory.window(-1, 1), { code: "ERR_OUT_OF_RANGE" });
    assert.throws(() => memory.window(0.5, 1), { code: "ERR_BAD_ARGUMENT" });
  });
});

test("prefetch brings a range and no more; read answers a copy", { skip }, async () => {
  await using({ implementation: "kernel" }, async (memory) => {
    await Promise.all([memory.prefetch(100 * PAGE, 10 * PAGE), memory.prefetch(200 * PAGE + 5, 1)]);
    assert.equal(memory.resident().pages, 11);
    const copy = await memory.read(300 * PAGE, 4);
    assert.equal(Buffer.from(copy).readUInt32LE(0), numberOf(300));
    assert.equal(memory.resident().pages, 12);
    await assert.rejects(memory.prefetch(0, memory.byteLength + 1), { code: "ERR_OUT_OF_RANGE" });
    await memory.prefetch();
    assert.equal(memory.statistics().faults, 0);
    assert.equal(memory.resident().pages, PAGES + 1);
  });
  await using({ budget: "4MiB" }, async (memory) => {
    await assert.rejects(memory.prefetch(), { code: "ERR_LIMIT" });
  });
});

test("more than an ArrayBuffer can have: a typed error with a hint, and windows work", { skip }, async () => {
  const own = join(folder, "sparse");
  writeFileSync(own, "begin");
  const big = 6 * 2 ** 30;
  truncateSync(own, big);
  for (const options of [{ mode: "private" }, {}] as const) {
    await using(
      options,
      (memory) => {
        assert.equal(memory.byteLength, big);
        if (Number(process.versions.node.split(".")[0]) < 22) {
          assert.throws(
            () => memory.buffer,
            (error: { code: string; hint: string }) =>
              error.code === "ERR_OUT_OF_RANGE" && /window/.test(error.hint),
          );
        } else {
          assert.equal(memory.buffer.byteLength, big);
        }
        assert.equal(Buffer.from(memory.window(0, 5)).toString(), "begin");
        assert.equal(new Uint8Array(memory.window(big - 10, 10)).at(-1), 0);
      },
      own,
    );
  }
});

test("what can't be opened is refused with a code", { skip: skipUnlessLinux }, async () => {
  const empty = join(folder, "empty");
  writeFileSync(empty, "");
  await assert.rejects(open(join(folder, "nowhere")), { code: "ERR_SOURCE_MISSING" });
  await assert.rejects(open(empty), { code: "ERR_BAD_ARGUMENT" });
  await assert.rejects(open(path, { mode: "append" as never }), { code: "ERR_BAD_ARGUMENT" });
  await assert.rejects(open(path, { implementation: "magic" as never }), { code: "ERR_BAD_ARGUMENT" });
  await assert.rejects(open(path, { budget: "lots" }), { code: "ERR_BAD_ARGUMENT" });
  await assert.rejects(open(path, { budget: "1MiB" }), { code: "ERR_OUT_OF_RANGE" });
  await assert.rejects(open(path, { implementation: "mmap", mode: "private" }), { code: "ERR_BAD_ARGUMENT" });
});

test("software: everything is loaded at once and the memory says so", async () => {
  await using({ implementation: "software" }, async (memory) => {
    assert.equal(memory.how, "eager");
    assert.equal(countWrong(memory.buffer), 0);
    await assert.rejects(memory.flush(), { code: "ERR_BAD_ARGUMENT" });
  });
  await assert.rejects(
    open(path, { implementation: "software", budget: "4MiB" }),
    (error: { code: string; hint: string }) => error.code === "ERR_LIMIT" && /PagedMemory/.test(error.hint),
  );
});

test("closed: every view reads zeros, using the memory is an error, closing again is none", {
  skip,
}, async () => {
  for (const options of [{}, { mode: "private" }] as const) {
    const memory = await open(path, options);
    const bytes = new Uint8Array(memory.buffer);
    const window = new Uint8Array(memory.window(PAGE, PAGE));
    assert.equal(bytes[PAGE], numberOf(1) & 0xff);
    await Promise.all([memory.close(), memory.close()]);
    assert.deepEqual([bytes[PAGE], window[0], bytes[900 * PAGE]], [0, 0, 0]);
    // Harmless: the pages belong to nobody else.
    bytes[PAGE] = 1;
    await assert.rejects(memory.read(0, 1), { code: "ERR_CLOSED" });
    await assert.rejects(memory.prefetch(), { code: "ERR_CLOSED" });
    assert.throws(() => memory.share(), { code: "ERR_CLOSED" });
    assert.throws(() => memory.window(0, 1), { code: "ERR_CLOSED" });
    await memory.close();
  }
});

test("several threads work on the same memory", { skip }, async () => {
  await using({ mode: "private", budget: "4MiB" }, async (memory) => {
    const program = `
      const { parentPort, workerData } = require("node:worker_threads");
      import(workerData.package).then(({ attach }) => {
        const { handle, first } = workerData;
        const words = new Uint32Array(attach(handle).buffer, 0, ${(PAGES * PAGE) / 4});
        let sum = 0;
        for (let page = first; page < ${PAGES}; page += 3) {
          sum += words[page * 1024];
          words[page * 1024 + 5] = page * 7;
        }
        parentPort.postMessage(sum);
      });`;
    const sums = await Promise.all(
      [0, 1, 2].map(async (first) => {
        const workerData = { package: PACKAGE, handle: memory.share(), first };
        const worker = new Worker(program, { eval: true, workerData });
        return await new Promise<number>((resolve, reject) => {
          worker.on("message", resolve);
          worker.on("error", reject);
        });
      }),
    );
    let expected = 0;
    for (let page = 0; page < PAGES; page++) expected += numberOf(page);
    assert.equal(
      sums.reduce((sum, part) => sum + part, 0),
      expected,
    );
    const words = new Uint32Array(memory.buffer, 0, (PAGES * PAGE) / 4);
    for (let page = 0; page < PAGES; page++) assert.equal(words[page * 1024 + 5], page * 7);
  });
  assert.throws(() => attach({} as never), { code: "ERR_BAD_ARGUMENT" });
});

test("the addresses go back when the last view in any thread has been collected", { skip }, () => {
  const program = `
    const mapped = (address) => fs.readFileSync("/proc/self/maps", "utf8").includes(address.toString(16) + "-");
    const collect = async () => { for (let i = 0; i < 8; i++) { gc(); await new Promise(setImmediate); } };
    let memory = await open(path, { mode: "private" });
    const { address } = memory.share().range;
    let bytes = new Uint8Array(memory.buffer);
    const first = bytes[0];
    // A buffer that is collected while the memory is open changes nothing.
    memory.window(4096, 4096);
    await collect();
    say(mapped(address), bytes[4096] === new Uint8Array(memory.window(4096, 1))[0]);
    await memory.close();
    memory = undefined;
    await collect();
    say(mapped(address), bytes[0]);
    bytes = undefined;
    await collect();
    say(mapped(address));
  `;
  // From Node 24 on a buffer may have been moved without our knowledge: the addresses stay.
  const isKept = Number(process.versions.node.split(".")[0]) >= 24;
  const said = say(program, { args: [path], nodeArgs: ["--expose-gc"] });
  assert.equal(said, `true true\ntrue 0\n${isKept}`);
});

test("an open memory does not keep the process alive", { skip }, () => {
  assert.equal(
    say(`const m = await open(path, { mode: "private" }); say(new Uint8Array(m.buffer)[0]);`, {
      args: [path],
    }),
    String(numberOf(0) & 0xff),
  );
});
