// The client's connections, where the server at the other end is none: one that dies, one that has no control API.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createClient } from "../../src/client/index.ts";
import { standIn } from "../../src/daemon/control/stand-in.ts";
import { Throttle } from "../../src/daemon/throttle.ts";
import { listen, local } from "../../src/linux/index.ts";

const LIMITS = {
  guestsMax: 1,
  connectionsMax: 2,
  messageBytesMax: 3,
  regionsMax: 4,
  guestBytesMax: 5,
  handOverMs: 6,
};

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-connection-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Hangs up on the first `broken` requests, and answers the others. */
async function serverThatBreaks(t: TestContext, broken: number): Promise<{ path: string; asked: string[] }> {
  const path = join(folderFor(t), "control.sock");
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("data", (bytes) => {
      asked.push(bytes.toString().split(" ", 1)[0]!);
      if (asked.length <= broken) socket.destroy();
      else {
        const text = JSON.stringify(LIMITS);
        socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n${text}`);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { path, asked };
}

test("what only asks is asked again when the connection breaks, once", async (t) => {
  const { path, asked } = await serverThatBreaks(t, 1);
  assert.deepEqual(await createClient({ socket: path }).getLimits(), LIMITS);
  assert.deepEqual(asked, ["GET", "GET"]);
  const dead = await serverThatBreaks(t, 10);
  await assert.rejects(createClient({ socket: dead.path }).getLimits(), { code: "ERR_NO_SERVER" });
  assert.equal(dead.asked.length, 2);
});

test("what changes something is sent once", async (t) => {
  const { path, asked } = await serverThatBreaks(t, 1);
  await assert.rejects(createClient({ socket: path }).setLimits({ guestsMax: 2 }), { code: "ERR_NO_SERVER" });
  assert.deepEqual(asked, ["PATCH"]);
});

test("where there is no control API, who calls is told why", async (t) => {
  const path = join(folderFor(t), "control.sock");
  const server = standIn(listen(local, path), "It could not be made");
  t.after(() => server.close());
  const client = createClient({ socket: path });
  await assert.rejects(client.health(), { code: "ERR_BUG", message: "It could not be made" });
});

test("a flood is told as a number", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const counts: number[] = [];
  const throttle = new Throttle((count) => counts.push(count));
  let told = 0;
  for (let index = 0; index < 10_000; index++) if (throttle.admits()) told++;
  assert.ok(told < 100, `${told} were told one by one`);
  t.mock.timers.tick(1000);
  assert.deepEqual(counts, [10_000 - told]);
  assert.equal(throttle.admits(), true);
  t.mock.timers.tick(60_000);
  assert.equal(counts.length, 1);
});
