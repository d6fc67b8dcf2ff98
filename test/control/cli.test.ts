// The commands that ask a page server: what they print for people and for programs, how they end, and `top` and `report`.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Crowd } from "./crowd.ts";
import { FakeGuest } from "./fake-table.ts";
import { openScene, type Scene, TOKEN } from "./scene.ts";

const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "minorfault-control-cli-"));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number | null;
}

async function run(args: readonly string[], { stopAt = "" } = {}): Promise<Ended> {
  const child = spawn(process.execPath, [main, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    if (stopAt !== "" && stdout.includes(stopAt)) child.kill("SIGINT");
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const [status] = (await once(child, "close")) as [number | null];
  return { stdout, stderr, status };
}

const at = ({ socket }: Scene) => ["--control", socket];

test("minorfault guests prints a line a guest, and the same as JSON", async (t) => {
  const scene = await openScene(t);
  assert.equal((await run(["guests", ...at(scene)])).stdout, "no guests\n");
  scene.table.arrive(new FakeGuest("g1", "web", { name: "vm-1" })).fault(0);
  await scene.client.expectGuest({ image: "web", name: "vm-2" });
  const { stdout, status } = await run(["guests", ...at(scene)]);
  assert.equal(status, 0);
  const [heads, first, second] = stdout.trimEnd().split("\n");
  assert.match(heads!, /^ID\s+NAME\s+IMAGE\s+STATE/);
  assert.match(first!, /^g1\s+vm-1\s+web\s+serving\s+4001\s+64 KiB\s+4 MiB\s+1 /);
  assert.match(second!, /^expected-1\s+vm-2\s+web\s+expected /);
  const { guests } = JSON.parse((await run(["guests", "--json", ...at(scene)])).stdout) as {
    guests: { id: string }[];
  };
  assert.deepEqual(
    guests.map(({ id }) => id),
    ["g1"],
  );
});

test("minorfault guest expect, show, drain and drop do what they say, by id or by name", async (t) => {
  const scene = await openScene(t);
  const { table } = scene;
  const path = "/srv/jailer/firecracker/vm-7/root/uffd.sock";
  const expected = await run([
    "guest",
    "expect",
    "web",
    "--name",
    "vm-7",
    "--uid",
    "7",
    "--path",
    path,
    ...at(scene),
  ]);
  assert.equal(expected.stdout, `${path}\n`);
  assert.deepEqual(
    [...table.tickets.values()].map(({ name, uid, replay }) => [name, uid, replay]),
    [["vm-7", 7, undefined]],
  );
  assert.match((await run(["guest", "drop", "vm-7", ...at(scene)])).stdout, /not expected any more/);
  table.arrive(new FakeGuest("g1", "web", { name: "vm-1" })).fault(0);
  const { stdout } = await run(["guest", "show", "vm-1", ...at(scene)]);
  assert.match(stdout, /^vm-1: serving, 64 KiB of 4 MiB resident\n {2}id +g1\n/);
  assert.match(stdout, / {2}region +4 MiB at 0x00007f0000000000/);
  assert.match((await run(["guest", "drain", "vm-1", ...at(scene)])).stdout, /^g1 has all of its memory/);
  table.arrive(new FakeGuest("g2", "web"));
  await run(["guest", "drop", "g2", "--reason", "host is full", "--quiet", ...at(scene)]);
  assert.deepEqual(table.calls, ["drain g1", "drop g2: host is full"]);
});

test("minorfault server shows health, images and limits, and changes them", async (t) => {
  const scene = await openScene(t);
  const health = await run(["server", "health", ...at(scene)]);
  assert.match(health.stdout, /^state +ready\n/);
  assert.match(health.stdout, /refused +2 ERR_BAD_HAND_OVER/);
  scene.table.isReady = false;
  assert.equal((await run(["server", "health", "--quiet", ...at(scene)])).status, 1);
  await run(["server", "add", "db", "/srv/images/db", "--deadline", "2s", ...at(scene)]);
  assert.match((await run(["server", "warm", "db", ...at(scene)])).stdout, /db +warm +1 GiB/);
  await run(["server", "remove", "db", ...at(scene)]);
  await run(["server", "add", "tools", "tools.mem", "--at-deadline", "kill", ...at(scene)]);
  const { source } = scene.table.served.get("tools")!;
  // The server has a working folder of its own.
  assert.deepEqual({ ...source }, { url: resolve("tools.mem"), atDeadline: "kill" });
  assert.doesNotMatch((await run(["server", "images", ...at(scene)])).stdout, /^db/m);
  const limits = await run([
    "server",
    "limits",
    "guestsMax=9",
    "guestBytesMax=64GiB",
    "handOverMs=2s",
    ...at(scene),
  ]);
  assert.match(limits.stdout, /^guestsMax +9$/m);
  assert.match(limits.stdout, /^guestBytesMax +68719476736$/m);
  assert.match(limits.stdout, /^handOverMs +2000$/m);
  const file = join(folder, "policy.json");
  writeFileSync(file, '{"rules":[{"uid":7,"images":["/srv/*"]}]}');
  assert.equal((await run(["server", "policy", file, ...at(scene)])).stdout, "1 rules hold from now on\n");
  await run(["server", "stop", ...at(scene)]);
  assert.deepEqual(scene.table.calls, ["policy of 1 rules", "shutdown"]);
});

test("errors have their exit codes: usage 2, no server 3, no such guest 2; and --json prints them", async (t) => {
  const scene = await openScene(t);
  const none = await run(["guests", "--control", join(folder, "none.sock")]);
  assert.deepEqual([none.status, none.stdout], [3, ""]);
  assert.match(
    none.stderr,
    /No page server answers at .*none\.sock \(ENOENT\)\nhint: .*\ncode: ERR_NO_SERVER/,
  );
  assert.equal((await run(["server", "limits", "guestsMax", ...at(scene)])).status, 2);
  assert.equal((await run(["server", "limits", "colour=1", ...at(scene)])).status, 2);
  assert.equal((await run(["guest", "expect", "web", "--uid", "root", ...at(scene)])).status, 2);
  const missing = await run(["guest", "show", "nobody", "--json", ...at(scene)]);
  assert.equal(missing.status, 2);
  assert.equal((JSON.parse(missing.stdout) as { error: { code: string } }).error.code, "ERR_NO_SUCH");
});

test("every command has help with an example", async () => {
  const commands = [
    ["guests"],
    ...["expect", "show", "drain", "drop"].map((verb) => ["guest", verb]),
    ...["health", "images", "warm", "add", "remove", "limits", "policy", "stop"].map((verb) => [
      "server",
      verb,
    ]),
    ["top"],
    ["report"],
  ];
  const helps = await Promise.all(commands.map((words) => run([...words, "--help"])));
  for (const [index, { stdout, status }] of helps.entries()) {
    const words = commands[index]!.join(" ");
    assert.equal(status, 0);
    assert.match(stdout, new RegExp(`Examples:\\n {2}\\$ minorfault ${words}`), words);
  }
});

test("completion knows the commands, their verbs and their options", async () => {
  const { stdout } = await run(["completion", "bash"]);
  assert.match(stdout, /"guest"\) words="expect show drain drop/);
  assert.match(stdout, /"server"\) words="health images warm add remove limits policy stop/);
  assert.match(
    stdout,
    /"guest expect"\) words="--folder --control --url --token-file --json --quiet --name --uid/,
  );
});

test("over TCP the token comes from a file", async (t) => {
  const { control } = await openScene(t, { tcp: true });
  const file = join(folder, "token");
  writeFileSync(file, `${TOKEN}\n`, { mode: 0o600 });
  const url = ["--url", `http://127.0.0.1:${control.port}`];
  assert.equal((await run(["guests", ...url, "--token-file", file])).status, 0);
  assert.equal((await run(["guests", ...url])).status, 2);
  writeFileSync(file, "another-token-than-the-server's-own");
  assert.equal((await run(["guests", ...url, "--token-file", file])).status, 5);
});

test("minorfault top prints one picture of 80 columns where there is no terminal", async (t) => {
  const scene = await openScene(t);
  const crowd = new Crowd(scene.table, 30);
  crowd.step(0);
  const { stdout, status } = await run(["top", ...at(scene)]);
  assert.equal(status, 0);
  const lines = stdout.trimEnd().split("\n");
  assert.match(lines[0]!, /^minorfault {2}ready {3}30 guests/);
  assert.match(lines[2]!, /^GUEST +IMAGE +MEMORY +RESIDENT +FAULTS\/S +P99 +WAIT$/);
  assert.equal(lines.length, 3 + 30);
  for (const line of lines.slice(2)) assert.ok(line.length <= 80, line);
  assert.ok(!stdout.includes("\x1b"));
  const { guests } = JSON.parse((await run(["top", "--json", ...at(scene)])).stdout) as { guests: unknown[] };
  assert.equal(guests.length, 30);
});

test("minorfault top in a terminal draws again and again, and Ctrl-C gives the screen back", async (t) => {
  if (!existsSync("/usr/bin/script")) return t.skip("script(1) is not here, which makes a terminal");
  const scene = await openScene(t);
  const guest = scene.table.arrive(new FakeGuest("g1", "web", { name: "evil\x1b[2Jname" }));
  guest.fault(0);
  const command = [process.execPath, main, "top", "--every", "100ms", ...at(scene)].join(" ");
  const child = spawn("script", ["-qefc", `stty rows 24 cols 80; exec ${command}`, "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, TERM: "xterm-256color", LANG: "C.UTF-8" },
  });
  let seen = "";
  let isStopped = false;
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    seen += text;
    if (!isStopped && seen.split("\x1b[H").length > 3) {
      isStopped = true;
      child.stdin.write("\x03");
    }
  });
  await once(child, "close");
  assert.ok(seen.startsWith("\x1b[?1049h\x1b[?25l\x1b[H"));
  assert.ok(seen.trimEnd().endsWith("\x1b[?25h\x1b[?1049l"), JSON.stringify(seen.slice(-40)));
  assert.match(seen, /evil\?\[2Jna/);
  assert.ok(!seen.includes("\x1b[2J"));
});

test("minorfault report writes one file that needs nothing else, also of a guest that has ended", async (t) => {
  const scene = await openScene(t);
  const since = Date.now() - 500;
  const guest = scene.table.arrive(new FakeGuest("g1", "web", { name: "vm-<1>", since, pages: 4096 }));
  for (let page = 0; page < 4096; page += 64) {
    guest.fault(page, { us: 5 + page / 100 });
    await scene.client.guestHistory({ id: "g1" });
  }
  scene.table.leave("g1", "exited", "exit code 0");
  const out = join(folder, "report.html");
  const { stdout, status } = await run(["report", "vm-<1>", "--out", out, ...at(scene)]);
  assert.equal(status, 0);
  assert.ok(stdout.startsWith(`${out}: `));
  const html = readFileSync(out, "utf8");
  assert.match(html, /<title>Restore of vm-&lt;1&gt;<\/title>/);
  assert.match(html, /<dt>Faults<\/dt><dd>64<\/dd>/);
  assert.match(html, /<dt>Ended<\/dt><dd>exit code 0<\/dd>/);
  for (const name of ["map", "heat", "latency", "waits"])
    assert.ok(html.includes(`class="figure ${name}"`), name);
  assert.ok(!/<script|src=|href=|url\(/.test(html));
  assert.ok(html.length < 500_000);
  const nobody = await run(["report", "nobody", "--out", join(dirname(out), "no.html"), ...at(scene)]);
  assert.equal(nobody.status, 2);
});
