// The first lines, as they stand, against a folder, nginx and S3: an image's URL, a budget, a typed array.

import assert from "node:assert/strict";
import { cpSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { buildImage, openRawFile } from "../../../src/image/index.ts";
import { type LazyMemory, type OpenMemoryOptions, open, storeWorkingSet } from "../../../src/index.ts";
import { openStore } from "../../../src/source/index.ts";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { type Nginx, nginxMissing, startNginx } from "../../source/fixtures/nginx.ts";
import { type Swift, startSwift, swiftMissing } from "../../source/fixtures/swift.ts";
import { countWrong, numberedFile, numberOf, ownFolder, PAGE } from "./files.ts";

const folder = ownFolder();
const PAGES = 4096;
const path = numberedFile(folder, "numbers", PAGES);
// A second gigabyte that is a hole, and a last page.
const HOLE = 2 ** 30;
truncateSync(path, PAGES * PAGE + HOLE);
const BYTES = PAGES * PAGE + HOLE;

async function build(store: string, name: string): Promise<void> {
  const target = await openStore(store);
  const { source, extents } = openRawFile(path);
  const region = { name: "numbers", guestAddress: 0x1000, source };
  await buildImage(target, name, { regions: [{ ...region, ...(extents && { extents }) }], level: 1 });
  await source.close();
  await target.close();
}

async function using<T>(
  url: string,
  options: OpenMemoryOptions,
  use: (memory: LazyMemory) => Promise<T> | T,
): Promise<T> {
  const memory = await open(url, options);
  try {
    return await use(memory);
  } finally {
    await memory.close();
  }
}

/** What must be true of the image, wherever it lies. */
async function check(url: string): Promise<void> {
  await using(url, { budget: "8MiB" }, (memory) => {
    assert.equal(memory.how, "userfaultfd");
    assert.equal(memory.byteLength, BYTES);
    assert.deepEqual(memory.regions, [
      { name: "numbers", offset: 0, byteLength: BYTES, guestAddress: 0x1000 },
    ]);
    assert.equal(memory.resident().pages, 0);
    const words = new Uint32Array(memory.buffer);
    assert.equal(words[1000 * 1024], numberOf(1000));
    assert.ok(memory.resident().pages <= 64, `${memory.resident().pages} pages`);
    for (let round = 0; round < 2; round++) {
      assert.equal(countWrong(memory.buffer.slice(0, PAGES * PAGE)), 0);
      for (let at = PAGES * 1024; at < words.length; at += 2 ** 18) assert.equal(words[at], 0);
    }
    assert.ok(memory.resident().bytes <= 8 * 2 ** 20);
    assert.ok(memory.statistics().bytesEvicted > 0);
  });
}

let nginx: Nginx | undefined;
let swift: Swift | undefined;

before(async () => {
  if (skip) return;
  await build(join(folder, "store"), "image");
  if (nginxMissing() === undefined) {
    nginx = await startNginx();
    cpSync(join(folder, "store"), join(nginx.root, "store"), { recursive: true });
    cpSync(path, join(nginx.root, "raw"));
  }
  if (swiftMissing() === undefined) {
    swift = await startSwift();
    // As an operator gives it: by the environment.
    Object.assign(process.env, swift.environment);
    await swift.createBucket("bucket");
    await build("s3://bucket/images", "model");
  }
});
after(async () => {
  await nginx?.stop();
  await swift?.stop();
});

test("a folder", { skip }, async () => {
  await check(join(folder, "store", "image"));
  await check(new URL(`file://${join(folder, "store", "image")}`).href);
});

test("nginx: an image, and a raw object", { skip: skip || nginxMissing() }, async () => {
  assert.ok(nginx !== undefined);
  await check(`${nginx.url}/store/image`);
  await using(`${nginx.url}/raw`, { mode: "private" }, (memory) => {
    assert.equal(memory.regions[0]?.name, "object");
    assert.equal(countWrong(memory.buffer.slice(0, PAGES * PAGE)), 0);
    assert.equal(new Uint8Array(memory.buffer).at(-1), 0);
  });
});

test("S3", { skip: skip || swiftMissing() }, async () => {
  await check("s3://bucket/images/model");
});

test("what a run touches is recorded, stored with the image, and there before the next run asks", {
  skip,
}, async () => {
  await build(join(folder, "store"), "traced");
  const url = join(folder, "store", "traced");
  const pages = [4000, 17, 2500, 18, 3, 1024];
  const touch = (memory: LazyMemory): void => {
    const words = new Uint32Array(memory.buffer);
    for (const page of pages) {
      assert.equal(words[page * 1024], numberOf(page));
      if (page === 2500) words[page * 1024 + 1] = 5;
    }
  };
  const traces = await Promise.all(
    [0, 1].map(() =>
      using(url, { mode: "private", trace: true }, (memory) => {
        touch(memory);
        return memory.trace();
      }),
    ),
  );
  for (const { touches, dropped } of traces) {
    assert.deepEqual([touches.map(({ offset }) => offset / PAGE), dropped], [pages, 0]);
    assert.ok(touches.every(({ ms }, index) => index === 0 || ms >= touches[index - 1]!.ms));
  }
  await assert.rejects(storeWorkingSet(url, "nothing", []), { code: "ERR_BAD_ARGUMENT" });
  const stored = await storeWorkingSet(url, "start", traces, { runsMin: 2 });
  assert.equal(stored.pages, pages.length);
  await using(url, {}, async (memory) => {
    await memory.replayed;
    assert.equal(memory.resident().pages, pages.length);
    touch(memory.mode === "read" ? ({ buffer: memory.buffer.slice(0, PAGES * PAGE) } as LazyMemory) : memory);
  });
  await using(url, { fetch: { replay: false } }, (memory) => {
    assert.equal(memory.resident().pages, 0);
    assert.throws(() => memory.trace(), { code: "ERR_BAD_ARGUMENT" });
  });
});

for (const budget of [undefined, "8MiB"] as const) {
  test(`write-back makes a new image under the same name, whole or not at all (budget ${budget})`, {
    skip,
  }, async () => {
    const name = `written-${budget}`;
    await build(join(folder, "store"), name);
    const url = join(folder, "store", name);
    await using(url, { mode: "write-back", ...(budget === undefined ? {} : { budget }) }, async (memory) => {
      const words = new Uint32Array(memory.buffer);
      for (let round = 1; round <= 2; round++) {
        for (let page = 0; page < PAGES; page += 64) words[page * 1024 + 3] = page + round;
        words[words.length - 1] = round;
        await using(url, {}, (other) => {
          assert.equal(new Uint32Array(other.buffer)[words.length - 1], round - 1, "not before the flush");
        });
        await memory.flush();
        await using(url, {}, (other) => {
          const stored = new Uint32Array(other.buffer);
          assert.equal(stored[words.length - 1], round);
          for (let page = 0; page < PAGES; page += 32) {
            const expected = page % 64 === 0 ? page + round : 0;
            assert.deepEqual([stored[page * 1024 + 3], words[page * 1024 + 3]], [expected, expected]);
            assert.equal(stored[page * 1024], numberOf(page));
          }
        });
      }
    });
  });
}

test("what can't be written back says so before anything is opened", {
  skip: skip || nginxMissing(),
}, async () => {
  assert.ok(nginx !== undefined);
  for (const url of [`${nginx.url}/store/image`, `${nginx.url}/raw`]) {
    await assert.rejects(open(url, { mode: "write-back" }), { code: "ERR_STORE_READ_ONLY" });
  }
});

test("names of nothing are ERR_SOURCE_MISSING", { skip }, async () => {
  await assert.rejects(open(join(folder, "store", "nobody")), { code: "ERR_SOURCE_MISSING" });
  await assert.rejects(open(join(folder, "no-store", "nobody")), { code: "ERR_SOURCE_MISSING" });
  if (nginx !== undefined) await assert.rejects(open(`${nginx.url}/nobody`), { code: "ERR_SOURCE_MISSING" });
  const text = join(folder, "plain");
  writeFileSync(text, "x");
  await assert.rejects(open(text, { implementation: "mmap", mode: "private" }), { code: "ERR_BAD_ARGUMENT" });
});
