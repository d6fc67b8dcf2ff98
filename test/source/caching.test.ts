// The cache on disk: right bytes, a byte limit, least recently used first, many processes, damage, crashes.

import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { Random } from "../../src/base/random.ts";
import { cacheTotals, shareCacheTotals } from "../../src/source/cache-totals.ts";
import { CachingSource, DiskCache, MemorySource } from "../../src/source/index.ts";
import { pageSourceLaws } from "../../src/testing/index.ts";
import { TracedSource } from "./fixtures/traced-source.ts";
import { code, contentOf, seedOf } from "./scene.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-cache-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const seed = seedOf();
const content = contentOf(seed, 3_000_000);
const LIMIT = 2 ** 20;
const fresh = () => mkdtempSync(join(folder, "cache-"));

function blockFiles(cache: string): string[] {
  return readdirSync(cache, { recursive: true, encoding: "utf8" })
    .map((name) => join(cache, name))
    .filter((path) => /[0-9a-f]{64}$/.test(path));
}

const bytesOf = (paths: readonly string[]) => paths.reduce((sum, path) => sum + statSync(path).size, 0);

test("what caches do in any thread of a process is counted together", async () => {
  shareCacheTotals();
  const { hits, misses } = cacheTotals();
  const place = JSON.stringify(fresh());
  const script = `
    import { DiskCache } from ${JSON.stringify(new URL("../../src/source/index.js", import.meta.url).href)};
    const cache = DiskCache.open(${place}, { bytesMax: ${LIMIT} });
    cache.get("a", 3);
    cache.put("a", Uint8Array.of(1, 2, 3));
    cache.get("a", 3);
    cache.get("a", 3);`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`));
  const [exitCode] = await once(worker, "exit");
  assert.equal(exitCode, 0);
  const after = cacheTotals();
  assert.deepEqual([after.hits - hits, after.misses - misses], [2, 1]);
});

test("a cache whose folder can't be made is refused at once", { skip: process.platform !== "linux" }, () => {
  const open = () => DiskCache.open("/proc/no-such-folder/cache", { bytesMax: LIMIT });
  assert.throws(open, code("ERR_SOURCE_MISSING"));
});

for (const { law, check } of pageSourceLaws) {
  test(`caching: ${law}`, async () => {
    const cache = DiskCache.open(fresh(), { bytesMax: LIMIT });
    const open = async () => new CachingSource(new MemorySource(content), cache, { identity: law });
    await check({ content, seed, open });
  });
}

test("what was read once is not asked for again, also by another process's cache of the same folder", async () => {
  const place = fresh();
  const inner = new TracedSource(new MemorySource(content));
  const options = { identity: "object", blockBytes: 4096 };
  const first = new CachingSource(inner, DiskCache.open(place, { bytesMax: LIMIT }), options);
  await first.read(10_000, new Uint8Array(50_000));
  assert.deepEqual(inner.requests, [{ offset: 8192, byteLength: 53_248 }]);

  const second = new CachingSource(inner, DiskCache.open(place, { bytesMax: LIMIT }), options);
  const target = new Uint8Array(60_000);
  await second.read(5000, target);
  assert.ok(Buffer.compare(target, content.subarray(5000, 65_000)) === 0);
  // Only what was missing before and behind.
  assert.deepEqual(inner.requests.slice(1), [
    { offset: 4096, byteLength: 4096 },
    { offset: 61_440, byteLength: 4096 },
  ]);
});

test("random reads in a cache a third of the content's size: right bytes, and the limit holds", async () => {
  const random = new Random(seed);
  const place = fresh();
  const cache = DiskCache.open(place, { bytesMax: LIMIT });
  const source = new CachingSource(new MemorySource(content), cache, {
    identity: "object",
    blockBytes: 16_384,
  });
  for (let count = 0; count < 400; count++) {
    const offset = random.below(content.byteLength);
    const target = new Uint8Array(random.below(Math.min(60_000, content.byteLength - offset)));
    await source.read(offset, target);
    const wanted = content.subarray(offset, offset + target.byteLength);
    assert.ok(Buffer.compare(target, wanted) === 0, `seed ${seed}, read ${count}`);
    if (count % 50 === 0) assert.ok(bytesOf(blockFiles(place)) <= LIMIT, `seed ${seed}, read ${count}`);
  }
  assert.ok(cache.counters.evictions > 0 && cache.counters.hits > 0);
  assert.ok(bytesOf(blockFiles(place)) > LIMIT / 2);
});

test("the least recently used block goes first, and a hit counts as use", () => {
  const place = fresh();
  const cache = DiskCache.open(place, { bytesMax: LIMIT });
  const block = content.subarray(0, 200_000);
  // Five of them fit. Their times lie far enough back for a hit to renew one.
  for (const [index, key] of ["a", "b", "c", "d", "e"].entries()) {
    cache.put(key, block);
    const newest = blockFiles(place).find((path) => Date.now() - statSync(path).mtimeMs < 60_000);
    assert.ok(newest !== undefined);
    utimesSync(newest, 1000 + index, 1000 + index);
  }
  assert.ok(cache.get("a", block.byteLength) !== undefined);
  cache.put("f", block);
  const kept = ["a", "b", "c", "d", "e", "f"].filter((key) => cache.get(key, block.byteLength) !== undefined);
  assert.deepEqual(kept, ["a", "c", "d", "e", "f"]);
});

test("damage of any kind is a miss, never other bytes, and the damaged block is removed", () => {
  const random = new Random(seed);
  const place = fresh();
  const cache = DiskCache.open(place, { bytesMax: LIMIT });
  const block = content.subarray(0, 5000);
  const damages: readonly ((path: string) => void)[] = [
    (path) => truncateSync(path, random.below(5000)),
    (path) => appendFileSync(path, "x"),
    (path) => writeFileSync(path, ""),
    (path) => {
      const bytes = readFileSync(path);
      const at = random.below(bytes.byteLength);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
      writeFileSync(path, bytes);
    },
  ];
  for (let count = 0; count < 200; count++) {
    cache.put("key", block);
    const [path = ""] = blockFiles(place);
    damages[count % damages.length]?.(path);
    assert.equal(cache.get("key", block.byteLength), undefined, `seed ${seed}, damage ${count}`);
    assert.deepEqual(blockFiles(place), []);
  }
  assert.equal(cache.counters.damaged, 200);
});

test("a block that was moved to another one's place is not taken for it", () => {
  const place = fresh();
  const cache = DiskCache.open(place, { bytesMax: LIMIT });
  cache.put("one", content.subarray(0, 4096));
  const [one = ""] = blockFiles(place);
  cache.put("two", content.subarray(4096, 8192));
  const two = blockFiles(place).find((path) => path !== one) ?? "";
  renameSync(one, two);
  assert.equal(cache.get("two", 4096), undefined);
});

test("a disk that cannot be written makes no read fail", async () => {
  const place = fresh();
  const cache = DiskCache.open(place, { bytesMax: LIMIT });
  rmSync(place, { recursive: true });
  writeFileSync(place, "a file where the folder was");
  const source = new CachingSource(new MemorySource(content), cache, { identity: "object" });
  const target = new Uint8Array(100);
  await source.read(0, target);
  assert.deepEqual(target, content.slice(0, 100));
  assert.ok(cache.counters.unwritten > 0);
});

test("without an identity, without a sensible limit, with a forged layout: refused", () => {
  const place = fresh();
  assert.throws(() => DiskCache.open(place, { bytesMax: 1000 }), code("ERR_BAD_ARGUMENT"));
  const cache = DiskCache.open(place, { bytesMax: LIMIT });
  assert.throws(() => new CachingSource(new MemorySource(content), cache), code("ERR_BAD_ARGUMENT"));
  writeFileSync(join(place, "layout.json"), '{"version":1,"sets":0}\n');
  assert.throws(() => DiskCache.open(place, { bytesMax: LIMIT }), code("ERR_SOURCE_CORRUPT"));
});

test("processes that share a cache and are killed at any moment leave a cache within its limit", async () => {
  const place = fresh();
  const program = fileURLToPath(new URL("fixtures/cache-user.js", import.meta.url));
  const users: ChildProcess[] = [];
  const start = (index: number) => {
    const user = fork(program, [place, String(LIMIT), String(seed), String(index)]);
    users[index] = user;
    return user;
  };
  for (let index = 0; index < 3; index++) start(index);
  const random = new Random(seed);
  let exits = 0;
  try {
    for (let kills = 0; kills < 6; kills++) {
      const index = random.below(3);
      const victim = users[index];
      assert.ok(victim !== undefined);
      // It reports every few blocks: it is killed somewhere in the middle of the next ones.
      await Promise.all([once(victim, "message"), once(victim, "message")]);
      victim.kill("SIGKILL");
      const [status, signal] = await once(victim, "exit");
      assert.equal(signal, "SIGKILL", `it ended by itself: ${status}`);
      exits++;
      start(index);
    }
    await Promise.all(users.map((user) => once(user, "message")));
  } finally {
    for (const user of users) user.kill("SIGKILL");
    await Promise.all(
      users.map((user) => (user.exitCode === null && user.signalCode === null ? once(user, "exit") : 0)),
    );
  }
  assert.equal(exits, 6);

  const cache = DiskCache.open(place, { bytesMax: LIMIT });
  const source = new CachingSource(new MemorySource(content), cache, {
    identity: "object",
    blockBytes: 16_384,
  });
  const target = new Uint8Array(content.byteLength);
  await source.read(0, target);
  assert.ok(Buffer.compare(target, content) === 0, `seed ${seed}`);
  assert.ok(cache.counters.hits > 0);
  assert.equal(cache.counters.damaged, 0);
  assert.ok(bytesOf(blockFiles(place)) <= LIMIT);
});
