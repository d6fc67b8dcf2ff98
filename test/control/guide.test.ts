// docs/server.md, done: every block that is marked with `run` is run as it stands, in its order, with our stand-in for
// Firecracker where the guide has Firecracker. And what the guide says of files, paths and names is there.

import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { Random } from "../../src/base/random.ts";
import { createClient } from "../../src/client/index.ts";
import { DEFAULT_LIMITS } from "../../src/daemon/config.ts";
import { CHANNELS } from "../../src/daemon/control/channels.ts";
import { ROUTES } from "../../src/daemon/control/routes.ts";
import { parsePolicy } from "../../src/daemon/policy-file.ts";
import { guardServer } from "../daemon/guard.ts";
import { startVmm } from "../daemon/vmm.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { openScene } from "./scene.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const guide = readFileSync(join(root, "docs", "server.md"), "utf8");
const PAGES = 512;

interface Block {
  readonly kind: string;
  readonly text: string;
}

const blocks: readonly Block[] = [...guide.matchAll(/^```sh run ?(\w*)\n(.*?)^```$/gms)].map(
  ([, kind = "", text = ""]) => ({ kind, text }),
);

interface Workshop {
  readonly folder: string;
  readonly env: NodeJS.ProcessEnv;
}

/** A folder with a snapshot in it, where `minorfault` is a command. */
function openWorkshop(t: TestContext): Workshop {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-guide-"));
  // Whatever is left of the server then, and of the folder.
  t.after(guardServer(join(folder, "run"), folder));
  const random = new Random(3);
  writeFileSync(
    join(folder, "vm.mem"),
    Uint32Array.from({ length: (PAGES * PAGE_SIZE) / 4 }, () => random.uint32()),
  );
  writeFileSync(join(folder, "vm.state"), "state");
  const bin = join(folder, "bin");
  mkdirSync(bin);
  const main = join(root, "dist", "src", "cli", "main.js");
  writeFileSync(join(bin, "minorfault"), `#!/bin/sh\nexec ${process.execPath} ${main} "$@"\n`);
  chmodSync(join(bin, "minorfault"), 0o755);
  return { folder, env: { ...process.env, PATH: `${bin}:${process.env.PATH}` } };
}

function run({ folder, env }: Workshop, { text }: Block): string {
  const { status, stdout, stderr } = spawnSync("bash", ["-euc", text], {
    cwd: folder,
    env,
    encoding: "utf8",
  });
  assert.equal(status, 0, `${text}\n${stdout}${stderr}`);
  return stdout;
}

async function background({ folder, env }: Workshop, { text }: Block): Promise<ChildProcess> {
  const child = spawn("bash", ["-euc", `exec ${text}`], {
    cwd: folder,
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  for await (const part of child.stdout) {
    said += String(part);
    if (said.includes(" serves 0 guests ")) break;
  }
  child.stdout.resume();
  return child;
}

const skip = skipUnlessUserfaultfd || (spawnSync("curl", ["--version"]).error ? "curl is not here" : false);

test("the guide's commands work as they stand, and end in a restored machine", {
  skip,
  timeout: 120_000,
}, async (t) => {
  const workshop = openWorkshop(t);
  const server = blocks.find(({ kind }) => kind === "background")!;
  const isOf = (kind: string) => blocks.filter((block) => block.kind === kind);
  const [create, look, stop] = isOf("");
  const [guests] = isOf("guest");
  const [control] = isOf("server");
  assert.ok(create && look && stop && guests && control, "the guide has other blocks than this test knows");
  assert.equal(blocks.length, 6);

  run(workshop, create);
  const first = await background(workshop, server);
  t.after(() => first.kill());
  assert.match(run(workshop, look), /^state +ready.*^web +(warm|warming|cold) .*\/run\/images\/web\.sock/ms);

  // What PUT /snapshot/load makes Firecracker do.
  const socket = join(workshop.folder, "run", "images", "web.sock");
  const vmm = startVmm({ socket, regions: PAGES * PAGE_SIZE, image: join(workshop.folder, "vm.mem") });
  t.after(() => vmm.close());
  assert.deepEqual((await vmm.touch({ count: PAGES / 2 })).wrong, []);
  const seen = run(workshop, guests);
  assert.match(seen, new RegExp(`^\\S+ +- +web +serving +${vmm.pid} `, "m"));
  assert.match(seen, /^minorfault {2}ready {3}1 guest /m);

  run(workshop, stop);
  if (first.exitCode === null) await once(first, "exit");
  assert.equal(first.exitCode, 0);
  // It was given all of its memory before the server went.
  assert.deepEqual(await vmm.verify(), []);

  const second = await background(workshop, server);
  t.after(() => second.kill());
  const told = run(workshop, control);
  assert.match(told, /^\{"ready":true/);
  assert.match(told, /guestsMax +200$/m);
  const document = JSON.parse(readFileSync(join(workshop.folder, "openapi.json"), "utf8")) as {
    openapi: string;
  };
  assert.equal(document.openapi, "3.1.0");
  await createClient({ socket: join(workshop.folder, "run", "control.sock") }).shutdown();
  if (second.exitCode === null) await once(second, "exit");
});

test("every operation, channel, metric and limit is in the guide, and nothing in it is made up", async (t) => {
  for (const { path } of Object.values(ROUTES)) {
    if (path.endsWith("/history")) continue;
    assert.ok(guide.includes(path), path);
  }
  for (const name of Object.values(CHANNELS)) {
    assert.ok(guide.includes(name) || guide.includes(`\`:${name.split(":")[2]}\``), name);
  }
  for (const name of Object.keys(DEFAULT_LIMITS)) assert.ok(guide.includes(`\`${name}\``), name);
  const { client } = await openScene(t);
  const text = await client.metrics();
  const known = new Set([...text.matchAll(/^# TYPE (minorfault_\S+)/gm)].map(([, name]) => name!));
  const named = new Set([...guide.matchAll(/`(minorfault_\w+)`/g)].map(([, name]) => name!));
  for (const name of named) assert.ok(known.has(name), name);
  for (const name of known) assert.ok(named.has(name), name);
  for (const [, path = ""] of guide.matchAll(/\]\((?!http)([^)#]+)\)/g)) {
    assert.ok(existsSync(join(root, "docs", path)), path);
  }
});

test("the policy of the guide is that of deploy/, and is one", () => {
  const [, written = ""] = /```json\n(.*?)```/s.exec(guide) ?? [];
  const shipped = readFileSync(join(root, "deploy", "policy.json"), "utf8");
  assert.deepEqual(JSON.parse(written), JSON.parse(shipped));
  const policy = parsePolicy(shipped);
  assert.equal(policy.check({ uid: 123, gid: 1 }, "/srv/images/web").allowed, true);
  assert.equal(policy.check({ uid: 124, gid: 1 }, "/srv/images/web").allowed, false);
});

test("systemd finds nothing wrong with the units, and how exposed the service is as the guide says", (t) => {
  if (spawnSync("systemd-analyze", ["--version"]).error !== undefined)
    return t.skip("systemd-analyze is not here");
  const folder = mkdtempSync(join(tmpdir(), "minorfault-units-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const unit = (name: string, as = name) => {
    const text = readFileSync(join(root, "deploy", name), "utf8").replaceAll(
      "/usr/bin/minorfault",
      "/bin/true",
    );
    writeFileSync(join(folder, as), text);
    return join(folder, as);
  };
  const service = unit("minorfault.service");
  const units = [
    service,
    unit("minorfault.socket"),
    unit("minorfault-image@.socket", "minorfault-image@web.socket"),
  ];
  const verified = spawnSync("systemd-analyze", ["verify", ...units], { encoding: "utf8" });
  const ours = verified.stderr.split("\n").filter((line) => line.includes("minorfault"));
  assert.deepEqual(ours, []);
  const args = ["security", "--offline=true", "--no-pager", service];
  const { stdout } = spawnSync("systemd-analyze", args, { encoding: "utf8" });
  const [, exposure] = /exposure level for minorfault\.service: ([\d.]+)/.exec(stdout) ?? [];
  if (exposure === undefined) return t.skip("this systemd-analyze rates no files");
  assert.ok(Number(exposure) <= 1.7, exposure);
});
