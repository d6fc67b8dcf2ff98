// A real server, seen from outside: virtual machines are announced, restored, listed, measured and drained by the control
// API, before and after its pager is killed; all of it by a user without any privilege.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { Random } from "../../src/base/random.ts";
import { type Client, createClient } from "../../src/client/index.ts";
import { startVmm } from "../daemon/vmm.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { raw, TOKEN } from "./scene.ts";

const skip = skipUnlessUserfaultfd;
const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const PAGES = 1024;
const NOBODY = 65_534;

interface Served {
  readonly client: Client;
  /** What it has said on stderr so far. */
  log(): string;
  readonly image: string;
  readonly folder: string;
}

/** `minorfault serve` with one raw image, run by nobody in particular, who has no capability. */
async function serve(t: TestContext, args: readonly string[] = []): Promise<Served> {
  const place = mkdtempSync(join(tmpdir(), "minorfault-served-"));
  const image = join(place, "memory");
  const random = new Random(11);
  const words = Uint32Array.from({ length: (PAGES * PAGE_SIZE) / 4 }, () => random.uint32());
  writeFileSync(image, words);
  const policy = join(place, "policy.json");
  writeFileSync(policy, JSON.stringify({ rules: [{ uid: 0, images: [`${place}/*`], guestsMax: 3 }] }));
  chownSync(place, NOBODY, NOBODY);
  chmodSync(place, 0o755);
  const folder = join(place, "run");
  const as = [
    `--reuid=${NOBODY}`,
    `--regid=${NOBODY}`,
    "--clear-groups",
    "--bounding-set=-all",
    "--no-new-privs",
  ];
  const command = [
    process.execPath,
    main,
    "serve",
    `web=${image}`,
    "--folder",
    folder,
    "--policy",
    policy,
    ...args,
  ];
  const child = spawn("setpriv", [...as, ...command], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, MINORFAULT_TOKEN: TOKEN },
  });
  let told = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    told += text;
  });
  t.after(async () => {
    if (child.exitCode === null) {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
    rmSync(place, { recursive: true, force: true });
  });
  for await (const line of createInterface({ input: child.stdout })) {
    if (/ serves 0 guests /.test(line)) {
      child.stdout.resume();
      return {
        client: createClient({ socket: join(folder, "control.sock") }),
        log: () => told,
        image,
        folder,
      };
    }
  }
  throw new Error(`The server did not serve: ${told}`);
}

/** Asks until the answer is what is waited for. */
async function until<T>(ask: () => Promise<T>, isIt: (answer: T) => boolean): Promise<T> {
  for (;;) {
    const answer = await ask().catch((error: unknown) => error as Error);
    if (!(answer instanceof Error) && isIt(answer)) return answer;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("a machine is announced, restored, watched and drained, by a server without privileges", {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { client, image, folder } = await serve(t, ["--port", "0"]);
  const warm = await client.warmImage({ name: "web" });
  assert.deepEqual([warm.state, warm.byteLength], ["warm", PAGES * PAGE_SIZE]);
  const expected = await client.expectGuest({ image: "web", name: "vm-1" });
  assert.ok(expected.socket.startsWith(`${folder}/guests/`));
  const vmm = startVmm({ socket: expected.socket, regions: PAGES * PAGE_SIZE, image });
  t.after(() => vmm.close());
  const { wrong } = await vmm.touch({ count: PAGES / 2 });
  assert.deepEqual(wrong, []);
  const { guests } = await client.listGuests();
  assert.deepEqual(
    guests.map(({ name, pid, uid, byteLength }) => [name, pid, uid, byteLength]),
    [["vm-1", vmm.pid, 0, PAGES * PAGE_SIZE]],
  );
  const { id } = guests[0]!;
  // A fault is booked when its thread runs again already: the last one may be in some answers and not yet in others.
  const { guest, history, metrics } = await until(
    async () => ({
      guest: await client.getGuest({ id }),
      history: await client.guestHistory({ id }),
      metrics: await client.metrics(),
    }),
    ({ guest, history, metrics }) =>
      history.columns.reduce((sum, { faults }) => sum + faults, 0) === guest.statistics.faults &&
      metrics.includes(`minorfault_guest_resident_bytes{image="web"} ${guest.residentBytes}\n`),
  );
  assert.ok(guest.statistics.faults > 0 && guest.residentBytes >= (PAGES / 2) * PAGE_SIZE);
  assert.ok(history.columns.some(({ latencyUs }) => latencyUs !== undefined));
  assert.match(metrics, /minorfault_hand_overs_total 1\n/);
  assert.deepEqual(await client.drainGuest({ id }), { id, done: true });
  // It has all of its memory, and needs nobody any more.
  assert.deepEqual(await vmm.verify(), []);
  assert.deepEqual((await client.listGuests()).guests, []);
  assert.deepEqual((await client.guestHistory({ id })).ended?.reason, "installed");
});

test("the control API is back when a killed pager's place has been taken, with the same guests", {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { client, image, folder } = await serve(t);
  const vmm = startVmm({ socket: join(folder, "images", "web.sock"), regions: PAGES * PAGE_SIZE, image });
  t.after(() => vmm.close());
  await vmm.touch({ count: 64 });
  const before = await until(
    () => client.health(),
    ({ sparePid }) => sparePid !== undefined,
  );
  const [guest] = (await client.listGuests()).guests;
  process.kill(before.pid, "SIGKILL");
  assert.deepEqual((await vmm.touch({ from: 64, count: 256 })).wrong, []);
  const after = await until(
    () => client.health(),
    ({ pid }) => pid !== before.pid,
  );
  assert.equal(after.pid, before.sparePid);
  assert.equal(after.counters.takeovers, before.counters.takeovers + 1);
  const [same] = (await client.listGuests()).guests;
  assert.deepEqual([same?.id, same?.pid, same?.pagers], [guest!.id, vmm.pid, 2]);
  assert.match(await client.metrics(), /minorfault_takeovers_total 1\n/);
});

test("the policy refuses what it does not allow, and the refusal is counted", {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { client, image, folder } = await serve(t);
  const socket = join(folder, "images", "web.sock");
  const vmms = Array.from({ length: 3 }, () => startVmm({ socket, regions: PAGES * PAGE_SIZE, image }));
  t.after(() => {
    for (const vmm of vmms) vmm.close();
  });
  await until(
    () => client.listGuests(),
    ({ guests }) => guests.length === 3,
  );
  const fourth = startVmm({ socket, regions: PAGES * PAGE_SIZE, image });
  t.after(() => fourth.close());
  assert.match(await fourth.refusal(), /uid 0 have 3 guests at a time/);
  assert.deepEqual((await client.health()).counters.refused, { ERR_NOT_ALLOWED: 1 });
  await assert.rejects(client.addImage({ name: "typo", url: join(folder, "typo") }), {
    code: "ERR_SOURCE_MISSING",
    message: /There is no image and no file/,
  });
  assert.deepEqual(
    (await client.listImages()).images.map(({ name }) => name),
    ["web"],
  );
  await assert.rejects(
    client
      .addImage({ name: "other", url: "/etc/passwd" })
      .then(() => client.expectGuest({ image: "other", uid: 5 })),
  );
});

test("the page of a real server is at its port, for who has the token", {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { log } = await serve(t, ["--port", "0", "--log-level", "info"]);
  const port = await until(
    async () => /"url":"http:\/\/127\.0\.0\.1:(\d+)\/"/.exec(log())?.[1],
    (found) => found !== undefined,
  ).then(Number);
  const page = await raw({ port, path: "/" });
  assert.match(page.text, /<title>minorfault<\/title>/);
  assert.equal((await raw({ port, path: "/v1/guests" })).status, 401);
  const authorization = `Bearer ${TOKEN}`;
  assert.equal((await raw({ port, path: "/v1/guests", headers: { authorization } })).status, 200);
});
