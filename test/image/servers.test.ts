// Images where they will live: the command line against a real nginx and a real S3 store, with a round of everything.

import assert from "node:assert/strict";
import { type SpawnOptions, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { buildImage, copyImage, openImage, openImageIn, pruneStore } from "../../src/image/index.ts";
import { FolderStore, MemorySource, openStore } from "../../src/source/index.ts";
import { nginxMissing, startNginx } from "../source/fixtures/nginx.ts";
import { credentials, REGION, startSwift, swiftMissing } from "../source/fixtures/swift.ts";

const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "minorfault-image-servers-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const MIB = 2 ** 20;
const memory = Buffer.concat([randomBytes(MIB), Buffer.alloc(2 * MIB), Buffer.alloc(MIB, "compress")]);
writeFileSync(join(folder, "memory.raw"), memory);

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Without blocking this process: the servers' guards live in it. */
async function minorfault(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const options: SpawnOptions = { cwd: folder, env: { ...process.env, NO_COLOR: "1", ...env } };
  const child = spawn(process.execPath, [main, "image", ...args], options);
  let [stdout, stderr] = ["", ""];
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const status = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { status, stdout, stderr };
}

async function json(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Record<string, unknown>> {
  const { status, stdout, stderr } = await minorfault([...args, "--json"], env);
  assert.equal(status, 0, `${args.join(" ")}: ${stdout}${stderr}`);
  return JSON.parse(stdout) as Record<string, unknown>;
}

test("nginx: an image is verified, compared and pulled from a plain web server", async (t) => {
  const missing = nginxMissing();
  if (missing !== undefined) return t.skip(missing);
  const nginx = await startNginx();
  t.after(() => nginx.stop());
  await json(["create", "store/vm", "memory.raw", "--note", "of=nginx"]);
  cpSync(join(folder, "store"), join(nginx.root, "images"), { recursive: true });
  const url = `${nginx.url}/images/vm`;
  assert.equal((await json(["verify", url])).right, true);
  assert.deepEqual((await json(["inspect", url])).notes, { of: "nginx" });
  const pulled = await json(["pull", url, "pulled"]);
  assert.equal(
    (pulled.chunks as Record<string, number>).known,
    15,
    "of the text, all chunks but one are alike",
  );
  assert.equal((await json(["diff", "pulled/vm", url])).same, true);
  await json(["export", "pulled/vm", "again.raw"]);
  assert.equal(Buffer.compare(readFileSync(join(folder, "again.raw")), memory), 0);
  for (const [args, code] of [
    [["create", `${nginx.url}/images/new`, "memory.raw"], 2],
    [["list", `${nginx.url}/images`], 2],
    [["verify", `${nginx.url}/images/none`], 4],
  ] as const) {
    assert.equal((await minorfault(args)).status, code, args.join(" "));
  }
  const packs = join(nginx.root, "images", "packs");
  const largest = readdirSync(packs)
    .map((name) => ({ path: join(packs, name), bytes: readFileSync(join(packs, name)) }))
    .sort((a, b) => b.bytes.byteLength - a.bytes.byteLength)[0];
  assert.ok(largest !== undefined);
  largest.bytes[5] = (largest.bytes[5] ?? 0) ^ 1;
  writeFileSync(largest.path, largest.bytes);
  const { status, stdout } = await minorfault(["verify", url]);
  assert.equal(status, 4);
  assert.match(stdout, /ERR_WRONG_BYTES chunk 0 of/);
});

test("nginx: pages are read over the network where they are, a chunk each", async (t) => {
  const missing = nginxMissing();
  if (missing !== undefined) return t.skip(missing);
  const nginx = await startNginx();
  t.after(() => nginx.stop());
  await buildImage(new FolderStore(nginx.root), "it", {
    regions: [{ name: "ram", source: new MemorySource(memory) }],
  });
  const image = await openImage(`${nginx.url}/it`);
  const target = new Uint8Array(100_000);
  for (const offset of [0, 65_000, MIB - 50_000, 3 * MIB - 5, memory.byteLength - target.byteLength]) {
    await image.read(offset, target);
    assert.equal(Buffer.compare(target, memory.subarray(offset, offset + target.byteLength)), 0);
  }
  await image.close();
});

test("S3: built, pushed, resumed, listed, pulled and pruned in a bucket", async (t) => {
  const missing = swiftMissing();
  if (missing !== undefined) return t.skip(missing);
  const swift = await startSwift();
  t.after(() => swift.stop());
  await swift.createBucket("images");
  const env = swift.environment;
  const bucket = "s3://images/some/where";
  assert.deepEqual((await json(["create", `${bucket}/vm`, "memory.raw"], env)).chunks, {
    zero: 32,
    known: 15,
    stored: 17,
  });
  assert.equal((await json(["verify", `${bucket}/vm`], env)).right, true);
  await json(["pull", `${bucket}/vm`, "from-s3"], env);
  assert.equal((await json(["diff", "from-s3/vm", `${bucket}/vm`], env)).same, true);
  // The other way, in two attempts.
  const s3 = { endpoint: swift.endpoint, region: REGION, credentials };
  const to = await openStore("s3://images/elsewhere", { s3 });
  t.after(() => to.close());
  const from = new FolderStore(join(folder, "from-s3"));
  const abort = new AbortController();
  const onProgress = ({ doneBytes }: { doneBytes: number }) => {
    if (doneBytes > 0) abort.abort();
  };
  await assert.rejects(copyImage(from, "vm", to, { signal: abort.signal, onProgress }), {
    name: "AbortError",
  });
  const rest = await copyImage(from, "vm", to);
  assert.ok(rest.resumedPacks > 0);
  const image = await openImageIn(to, "vm");
  const target = new Uint8Array(memory.byteLength);
  await image.read(0, target);
  assert.equal(Buffer.compare(target, memory), 0);
  await image.close();
  const listed = (await json(["list", bucket], env)) as unknown as { name: string }[];
  assert.deepEqual(
    listed.map(({ name }) => name),
    ["vm"],
  );
  await json(["remove", `${bucket}/vm`], env);
  const pruned = await json(["prune", bucket, "--grace", "0s"], env);
  assert.equal(pruned.deletedPacks, 2);
  assert.equal((await pruneStore(to, { graceMs: 0 })).images, 1);
});
