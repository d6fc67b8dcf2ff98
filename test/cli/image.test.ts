// `minorfault image` as an operator runs it: every verb, what it prints, how it ends, what an interruption leaves.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  watch,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "minorfault-cli-image-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const MIB = 2 ** 20;
const low = Buffer.concat([randomBytes(MIB), Buffer.alloc(MIB), Buffer.alloc(5000, "text ")]);
writeFileSync(join(folder, "low.bin"), low);
writeFileSync(join(folder, "state"), "device state");
spawnSync("mkfifo", [join(folder, "fifo")]);

function image(...args: string[]): { stdout: string; stderr: string; status: number | null } {
  return spawnSync(process.execPath, [main, "image", ...args], {
    cwd: folder,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
  });
}

function json(...args: string[]): Record<string, unknown> {
  const { stdout, stderr, status } = image(...args, "--json");
  assert.equal(stderr, "", args.join(" "));
  assert.ok(status !== null && status < 2, `${args.join(" ")} ended with ${status}`);
  return JSON.parse(stdout) as Record<string, unknown>;
}

test("create, inspect, list, verify, diff, working-set, export, push, pull, remove and prune in the round", () => {
  writeFileSync(join(folder, "high.bin"), "");
  truncateSync(join(folder, "high.bin"), 8 * 2 ** 30);
  const created = json(
    ...["create", "store/vm", "--region", "name=low,address=0x1000", "low.bin"],
    ...["--region", "name=high,address=4GiB,page=2MiB", "high.bin"],
    ...["--note", "kernel=6.18", "--attach", "state=state", "--chunk", "64KiB", "--level", "3"],
  );
  assert.deepEqual(created.chunks, { zero: 16, known: 0, stored: 17 }, "holes are not even looked at");
  const inspected = json("inspect", "store/vm");
  assert.deepEqual(
    (inspected.regions as Record<string, unknown>[]).map(({ name, guestAddress, pageSize, dataBytes }) => ({
      name,
      guestAddress,
      pageSize,
      dataBytes,
    })),
    [
      { name: "low", guestAddress: 0x1000, pageSize: 4096, dataBytes: low.byteLength },
      { name: "high", guestAddress: 2 ** 32, pageSize: 2 * MIB, dataBytes: 8 * 2 ** 30 },
    ],
  );
  assert.deepEqual(inspected.notes, { kernel: "6.18" });
  writeFileSync(join(folder, "touched"), "# first\n8192\n0x1000\n");
  assert.equal(json("working-set", "store/vm", "boot", "--add", "touched").pages, 2);
  assert.equal((json("working-set", "store/vm") as unknown as unknown[]).length, 1);
  assert.equal(json("verify", "store/vm").right, true);
  assert.equal(json("verify", "store/vm", "--index").right, true);
  const pushed = json("push", "store/vm", "other");
  assert.deepEqual(pushed.chunks, { known: 0, moved: 17 });
  assert.deepEqual(json("pull", "other/vm", "store", "--as", "vm2").chunks, { known: 17, moved: 0 });
  assert.equal(json("diff", "store/vm", "other/vm").same, true);
  const exported = image("export", "other/vm", "out.raw", "--region", "low");
  assert.equal(exported.status, 0, exported.stderr);
  assert.equal(Buffer.compare(readFileSync(join(folder, "out.raw")), low), 0);
  assert.match(image("list", "store").stdout, /^vm .*low, high\nvm2 /);
  assert.equal(image("remove", "store/vm2").status, 0);
  const pruned = json("prune", "store", "--grace", "0s");
  assert.equal(pruned.images, 1);
  assert.ok((pruned.deletedPacks as number) > 0);
  assert.equal(json("verify", "store/vm").right, true);
});

test("import, a child by --parent, and diff's exit code", () => {
  assert.equal(image("import", "store/base", "low.bin", "--from", "raw", "--address", "4GiB").status, 0);
  const changed = Buffer.from(low);
  changed[0] = (changed[0] ?? 0) ^ 1;
  writeFileSync(join(folder, "memory"), changed);
  const child = json("create", "store/child", "memory", "--region", "name=memory", "--parent", "base");
  assert.deepEqual((child.chunks as Record<string, number>).stored, 1);
  const { status, stdout } = image("diff", "store/base", "store/child");
  assert.equal(status, 1);
  assert.match(
    stdout,
    /^1 page differs in 1 chunk: 1 changed, 0 added, 0 removed\n {2}0x0000000000000000 {2}4 KiB\n$/,
  );
});

test("prune --repack says what it does, and images are right afterwards", () => {
  writeFileSync(join(folder, "whole"), randomBytes(4 * MIB));
  assert.equal(image("create", "decayed/whole", "whole", "--chunk", "64KiB").status, 0);
  const part = readFileSync(join(folder, "whole"));
  part.fill(0, MIB);
  writeFileSync(join(folder, "part"), part);
  assert.equal(image("create", "decayed/part", "part").status, 0);
  assert.equal(image("remove", "decayed/whole").status, 0);
  const dry = image("prune", "decayed", "--repack", "--dry-run");
  assert.match(dry.stdout, /\n {2}1 pack of 4\.0 MiB would be rewritten to 1 MiB, for 1 image\n/);
  const wet = image("prune", "decayed", "--repack", "--grace", "0s");
  assert.match(wet.stdout, /\n {2}1 pack of 4\.0 MiB rewritten to 1 MiB, for 1 image\n/);
  const { repacked, liveBytes } = json("prune", "decayed", "--repack", "--grace", "0s") as {
    repacked: { packs: number };
    liveBytes: number;
  };
  assert.equal(repacked.packs, 0);
  assert.ok(liveBytes < 1.1 * MIB, `${liveBytes} bytes`);
  assert.equal(json("verify", "decayed/part").right, true);
  assert.equal(image("export", "decayed/part", "again").status, 0);
  assert.deepEqual(readFileSync(join(folder, "again")), part);
});

test("an export goes through a link to the file behind it, and leaves devices alone", () => {
  writeFileSync(join(folder, "target"), "old");
  symlinkSync("target", join(folder, "link"));
  assert.equal(image("export", "store/base", "link").status, 0);
  assert.equal(readlinkSync(join(folder, "link")), "target");
  assert.deepEqual(readFileSync(join(folder, "target")), low);
});

test("what is wrong ends with the exit code of its kind and a hint, or as JSON", () => {
  for (const [args, status, said] of [
    [["create", "store/vm", "low.bin"], 1, /ERR_STORE_EXISTS/],
    [["create", "store/new", "nothing.bin"], 4, /ERR_SOURCE_MISSING/],
    [["create", "store/new", "low.bin", "--chunk", "5KiB"], 2, /ERR_BAD_ARGUMENT/],
    [["create", "store/new", "low.bin", "--level", "99"], 2, /from 1 to 19, or none/],
    [["create", "store/new"], 2, /missing required argument/],
    [["create", "low.bin/vm", "low.bin"], 2, /ERR_STORE_PATH/],
    [["create", "http://127.0.0.1:1/store/vm", "low.bin"], 2, /ERR_STORE_READ_ONLY/],
    [["push", "store/vm", "http://127.0.0.1:1/store"], 2, /ERR_STORE_READ_ONLY/],
    [
      ["verify", "store/none"],
      4,
      /There is no image none in .*store.*\n.*image list.*\n.*ERR_SOURCE_MISSING/,
    ],
    [["verify", "store/vm", "--digest", "12"], 2, /64 hexadecimal digits/],
    [["list", "nowhere"], 4, /There is no store .*nowhere/],
    [["prune", "nowhere"], 4, /There is no store .*nowhere/],
    [["export", "store/base", "fifo"], 2, /fifo is there, and is not a regular file/],
    [["export", "store/base", "store"], 2, /store is there, and is not a regular file/],
    [["inspect", "ftp://host/vm"], 2, /ERR_STORE_URL/],
    [["export", "store/vm", "x.raw"], 2, /several regions/],
    [["working-set", "store/vm", "x", "--add", "low.bin"], 2, /not an offset/],
  ] as const) {
    const result = image(...args);
    assert.equal(result.status, status, `${args.join(" ")}: ${result.stderr}`);
    assert.match(result.stderr, said);
    assert.equal(result.stdout, "");
  }
  const { stdout, status } = image("verify", "store/none", "--json");
  assert.equal(status, 4);
  assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, "ERR_SOURCE_MISSING");
  assert.equal(existsSync(join(folder, "x.raw")), false);
});

test("verify of a damaged image says where, and exits with 4", () => {
  assert.equal(image("create", "hurt/vm", "low.bin").status, 0);
  const packs = join(folder, "hurt", "packs");
  const [largest] = readdirSync(packs)
    .map((name) => ({ name, bytes: readFileSync(join(packs, name)) }))
    .sort((a, b) => b.bytes.byteLength - a.bytes.byteLength);
  assert.ok(largest !== undefined);
  largest.bytes[70_000] = (largest.bytes[70_000] ?? 0) ^ 1;
  writeFileSync(join(packs, largest.name), largest.bytes);
  const { stdout, status } = image("verify", "hurt/vm");
  assert.equal(status, 4);
  assert.match(stdout, /WRONG in 1 places/);
  assert.match(stdout, /ERR_WRONG_BYTES chunk 1 of/);
});

test("Ctrl-C in a build ends with 130 and leaves the store as it was", async () => {
  const store = join(folder, "interrupted");
  mkdirSync(store);
  writeFileSync(join(folder, "large.bin"), randomBytes(160 * MIB));
  const child = spawn(
    process.execPath,
    [main, "image", "create", "interrupted/vm", "large.bin", "--level", "9"],
    {
      cwd: folder,
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  // The first pack is on its way.
  await new Promise<void>((resolve) => {
    const watcher = watch(store, () => {
      watcher.close();
      resolve();
    });
  });
  child.kill("SIGINT");
  assert.equal(await ended, 130, stderr);
  assert.match(stderr, /ended by SIGINT, the store is as it was/);
  const left = existsSync(join(store, "packs")) ? readdirSync(join(store, "packs")) : [];
  assert.deepEqual(left, []);
  assert.equal(existsSync(join(store, "manifests")), false);
});

test("every verb has help with examples", () => {
  const verbs = [...image("--help").stdout.matchAll(/^ {2}([a-z-]+) /gm)].map(([, verb = ""]) => verb);
  assert.ok(verbs.length >= 12);
  for (const verb of verbs.filter((each) => each !== "help")) {
    const { stdout, status } = image(verb, "--help");
    assert.equal(status, 0);
    assert.match(stdout, /Examples:\n {2}\$ minorfault image /, verb);
  }
});
