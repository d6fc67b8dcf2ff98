// Law 3: nothing that serves a fault waits for a libuv thread, since all of them may stand in faults.
// (S3 is in s3.test.ts, beside its server.)

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { MisbehavingServer } from "./fixtures/misbehaving.ts";
import { withoutPool } from "./fixtures/without-pool.ts";
import { contentOf } from "./scene.ts";

const skip = process.platform === "linux" ? {} : { skip: "FIFOs that block are Linux's" };
const folder = mkdtempSync(join(tmpdir(), "minorfault-pool-"));
after(() => rmSync(folder, { recursive: true, force: true }));

test("a file is read while all libuv threads stand still", skip, async () => {
  writeFileSync(join(folder, "file"), contentOf(1, 20_000));
  await withoutPool(["source", join(folder, "file")]);
});

test("a web server is read, over new connections to a host's name too", skip, async () => {
  const server = new MisbehavingServer(contentOf(2, 20_000));
  const url = (await server.start()).replace("127.0.0.1", "localhost");
  try {
    await withoutPool(["source", `${url}/honest/object`]);
  } finally {
    await server.stop();
  }
});

test("a folder store writes, lists, reads and deletes", skip, async () => {
  await withoutPool(["folder", join(folder, "store")]);
});

test("the cache on disk writes and reads", skip, async () => {
  await withoutPool(["cache", join(folder, "cache")]);
});

test("zstd compresses and decompresses", skip, async () => {
  await withoutPool(["codec"]);
});
