// The control API as its clients see it: every operation, every refusal, and the document that describes them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Validator } from "@seriousme/openapi-schema-validator";
import * as v from "valibot";
import { MinorfaultError } from "../../src/base/errors.ts";
import { createClient } from "../../src/client/index.ts";
import { ROUTES, type Route } from "../../src/daemon/control/routes.ts";
import { FakeGuest } from "./fake-table.ts";
import { openScene, raw, TOKEN } from "./scene.ts";

const code = (wanted: string) => (error: unknown) =>
  error instanceof MinorfaultError && error.code === wanted;

test("a client lists guests, and sees one with its regions", async (t) => {
  const { client, table } = await openScene(t);
  assert.deepEqual(await client.listGuests(), { guests: [], expected: [] });
  const one = table.arrive(new FakeGuest("g1", "web", { name: "vm-1" }));
  table.arrive(new FakeGuest("g2", "other"));
  one.fault(0);
  const { guests } = await client.listGuests({ image: "web" });
  assert.deepEqual(
    guests.map(({ id, name, residentBytes, statistics }) => [id, name, residentBytes, statistics.faults]),
    [["g1", "vm-1", 65_536, 1]],
  );
  const details = await client.getGuest({ id: "g1" });
  assert.deepEqual(details.regions, one.status.regions);
  await assert.rejects(client.getGuest({ id: "nobody" }), code("ERR_NO_SUCH"));
});

test("what is answered is what the schemas say, field for field", async (t) => {
  const { client, table } = await openScene(t);
  table.arrive(new FakeGuest("g1", "web", { name: "vm-1" })).fault(0);
  await client.expectGuest({ image: "web" });
  const answers = {
    health: await client.health(),
    listGuests: await client.listGuests(),
    getGuest: await client.getGuest({ id: "g1" }),
    guestHistory: await client.guestHistory({ id: "g1" }),
    listImages: await client.listImages(),
    warmImage: await client.warmImage({ name: "web" }),
    getLimits: await client.getLimits(),
  };
  for (const [name, answer] of Object.entries(answers)) {
    const route: Route = ROUTES[name as keyof typeof ROUTES];
    assert.deepEqual(v.parse(route.answer, answer), answer, name);
  }
});

test("an announced guest gets a socket of its own, and can be forgotten again", async (t) => {
  const { client } = await openScene(t);
  const path = "/srv/jailer/firecracker/7/root/uffd.sock";
  const { id, socket, until } = await client.expectGuest({ image: "web", name: "vm-7", uid: 7, path });
  assert.equal(socket, path);
  assert.ok(Date.parse(until) > Date.now());
  assert.equal((await client.listGuests()).expected[0]?.name, "vm-7");
  assert.deepEqual(await client.dropGuest({ id }), { id, was: "expected" });
  assert.deepEqual((await client.listGuests()).expected, []);
  await assert.rejects(client.expectGuest({ image: "none" }), code("ERR_NO_SUCH"));
});

test("draining answers when all is installed; who hangs up stops it; wait: false answers at once", async (t) => {
  const { client, table } = await openScene(t);
  for (const id of ["g1", "g2", "g3"]) table.arrive(new FakeGuest(id, "web"));
  assert.deepEqual(await client.drainGuest({ id: "g1" }), { id: "g1", done: true });
  assert.equal(table.get("g1"), undefined);
  let finish = (): void => undefined;
  table.drained = new Promise((resolve) => {
    finish = resolve;
  });
  const giveUp = new AbortController();
  const draining = client.drainGuest({ id: "g2" }, { signal: giveUp.signal });
  while (!table.calls.includes("drain g2")) await client.health();
  giveUp.abort();
  await assert.rejects(draining, { name: "AbortError" });
  while (!table.calls.includes("drain g2 aborted")) await client.health();
  assert.deepEqual(await client.drainGuest({ id: "g3", wait: false }), { id: "g3", done: false });
  assert.ok(table.get("g3") !== undefined);
  finish();
});

test("a dropped guest is dropped with the reason that was given", async (t) => {
  const { client, table } = await openScene(t);
  table.arrive(new FakeGuest("g1", "web"));
  assert.deepEqual(await client.dropGuest({ id: "g1", reason: "host is full" }), {
    id: "g1",
    was: "serving",
  });
  assert.deepEqual(table.calls, ["drop g1: host is full"]);
  await assert.rejects(client.dropGuest({ id: "g1" }), code("ERR_NO_SUCH"));
});

test("images are added, warmed, listed and removed", async (t) => {
  const { client } = await openScene(t);
  const added = await client.addImage({ name: "db", url: "/srv/images/db", deadlineMs: 500 });
  assert.equal(added.socket, "/run/minorfault/images/db.sock");
  await assert.rejects(client.addImage({ name: "db", url: "/x" }), code("ERR_BUSY"));
  const warm = await client.warmImage({ name: "db" });
  assert.deepEqual([warm.state, warm.workingSets], ["warm", ["boot"]]);
  await client.removeImage({ name: "db" });
  assert.deepEqual(
    (await client.listImages()).images.map(({ name }) => name),
    ["web"],
  );
  await assert.rejects(client.warmImage({ name: "db" }), code("ERR_NO_SUCH"));
});

test("limits change one by one, within bounds", async (t) => {
  const { client } = await openScene(t);
  const before = await client.getLimits();
  assert.deepEqual(await client.setLimits({ guestsMax: 7 }), { ...before, guestsMax: 7 });
  await assert.rejects(client.setLimits({ guestsMax: -1 }), code("ERR_BAD_ARGUMENT"));
  await assert.rejects(client.setLimits({ messageBytesMax: 2 ** 40 }), code("ERR_BAD_ARGUMENT"));
  assert.equal((await client.getLimits()).guestsMax, 7);
});

test("the policy is replaced as a whole, if it is one", async (t) => {
  const { client, table } = await openScene(t);
  await client.setPolicy({ rules: [{ uid: 7, images: ["/srv/*"] }] });
  assert.deepEqual(table.calls, ["policy of 1 rules"]);
  for (const rule of [
    { images: ["/srv/*"] },
    { uid: -1, images: ["/srv/*"] },
    { uid: 7, images: ["relative"] },
  ]) {
    await assert.rejects(client.setPolicy({ rules: [rule] }), code("ERR_BAD_ARGUMENT"));
  }
  assert.equal(table.calls.length, 1);
});

test("health and readiness tell a server that serves from one that is ending", async (t) => {
  const { client, table, socket } = await openScene(t);
  const health = await client.health();
  assert.deepEqual(
    [health.ready, health.keeperPid, health.counters.refused],
    [true, 101, { ERR_BAD_HAND_OVER: 2 }],
  );
  assert.equal((await raw({ socket, path: "/readyz" })).status, 200);
  table.isReady = false;
  assert.deepEqual(await raw({ socket, path: "/readyz" }).then(({ status, text }) => [status, text]), [
    503,
    "it is ending\n",
  ]);
  assert.equal((await raw({ socket, path: "/healthz" })).status, 200);
  await client.shutdown();
  // It begins when the answer is there.
  while (table.calls.length === 0) await client.health();
  assert.deepEqual(table.calls, ["shutdown"]);
});

test("the OpenAPI document is valid, and has every operation with its schemas", async (t) => {
  const { socket } = await openScene(t);
  const { text } = await raw({ socket, path: "/openapi.json" });
  const document = JSON.parse(text) as {
    paths: Record<string, Record<string, { operationId: string; requestBody?: object }>>;
    components: { schemas: Record<string, object> };
  };
  const { valid, errors } = await new Validator().validate(JSON.parse(text) as Record<string, unknown>);
  assert.ok(valid, JSON.stringify(errors, null, 1));
  for (const [name, { path, method, body }] of Object.entries<Route>(ROUTES)) {
    const operation = document.paths[path]?.[method.toLowerCase()];
    assert.equal(operation?.operationId, name);
    assert.equal(operation?.requestBody !== undefined, body !== undefined, name);
  }
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    assert.ok("type" in schema, `${name} says what it is, and not only where to look`);
  }
  const references = [...text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name!);
  assert.ok(references.length > 20);
  for (const name of references) assert.ok(name in document.components.schemas, name);
});

test("requests that are not what they must be are refused, each with its code and a hint", async (t) => {
  const { socket, table } = await openScene(t);
  table.arrive(new FakeGuest("g1", "web"));
  const json = { "content-type": "application/json" };
  const post = (body: string, headers: Record<string, string> = json) =>
    raw({ socket, method: "POST", path: "/v1/guests", headers, body });
  for (const [answer, status, wanted] of [
    [await post("{"), 400, "ERR_BAD_ARGUMENT"],
    [await post("[]"), 400, "ERR_BAD_ARGUMENT"],
    [
      await raw({ socket, method: "PATCH", path: "/v1/limits", headers: json, body: "[]" }),
      400,
      "ERR_BAD_ARGUMENT",
    ],
    [await post("null"), 400, "ERR_BAD_ARGUMENT"],
    [await post("{}"), 400, "ERR_BAD_ARGUMENT"],
    [await post('{"image":"web","root":true}'), 400, "ERR_BAD_ARGUMENT"],
    [await post('{"image":"web","path":"relative"}'), 400, "ERR_BAD_ARGUMENT"],
    [await post('{"image":"web","__proto__":{"pid":1}}'), 400, "ERR_BAD_ARGUMENT"],
    [await post('{"image":"web"}', { "content-type": "text/plain" }), 415, "ERR_BAD_ARGUMENT"],
    [await post(`{"image":"${"x".repeat(70_000)}"}`), 413, "ERR_LIMIT"],
    [await raw({ socket, path: "/v1/guests?state=sleeping" }), 400, "ERR_BAD_ARGUMENT"],
    [await raw({ socket, path: "/v1/guests?colour=red" }), 400, "ERR_BAD_ARGUMENT"],
    [await raw({ socket, path: "/v1/stream?everyMs=1" }), 400, "ERR_BAD_ARGUMENT"],
    [await raw({ socket, path: `/v1/guests/${"x".repeat(65)}` }), 400, "ERR_BAD_ARGUMENT"],
    [await raw({ socket, path: "/v1/nothing" }), 404, "ERR_NO_SUCH"],
    [await raw({ socket, path: "/page/../../../etc/passwd" }), 404, "ERR_NO_SUCH"],
    [await raw({ socket, method: "PUT", path: "/v1/limits" }), 404, "ERR_NO_SUCH"],
    [
      await raw({ socket, path: "/v1/health", headers: { origin: "http://evil.example" } }),
      403,
      "ERR_DENIED",
    ],
  ] as const) {
    assert.deepEqual([answer.status, answer.json.error?.code], [status, wanted], answer.text);
    assert.ok(answer.json.error!.hint.length > 0);
  }
  assert.deepEqual(table.calls, []);
});

test("over TCP there is no way past Host, Origin and token", async (t) => {
  const { control, client: _ } = await openScene(t, { tcp: true });
  const { port } = control;
  assert.ok(port !== undefined);
  const own = `127.0.0.1:${port}`;
  const authorization = `Bearer ${TOKEN}`;
  const get = async (headers: Record<string, string>, path = "/v1/health") =>
    (await raw({ port, path, headers })).status;
  assert.equal(await get({ authorization }), 200);
  assert.equal(await get({ authorization, host: "localhost:1" }), 200);
  assert.equal(await get({}), 401);
  assert.equal(await get({ authorization: `Bearer ${TOKEN}x` }), 401);
  assert.equal(await get({ authorization: `Basic ${TOKEN}` }), 401);
  assert.equal(await get({ cookie: `token=${TOKEN}` }), 401);
  // DNS rebinding: a name of the attacker's that points to 127.0.0.1.
  assert.equal(await get({ authorization, host: `evil.example:${port}` }), 403);
  assert.equal(await get({ authorization, host: "127.0.0.1.evil.example" }), 403);
  assert.equal(await get({ authorization, host: own, origin: "http://evil.example" }), 403);
  assert.equal(await get({ authorization, host: own, origin: "null" }), 403);
  assert.equal(await get({ authorization, host: own, origin: `http://${own}` }), 200);
  assert.equal(await get({ authorization, host: own, "sec-fetch-site": "cross-site" }), 403);
  assert.equal(await get({ authorization, host: own, "sec-fetch-site": "same-origin" }), 200);
  // What holds nothing secret needs no token, but the right Host all the same.
  for (const path of ["/healthz", "/readyz", "/openapi.json", "/"]) {
    assert.equal(await get({}, path), 200, path);
    assert.equal(await get({ host: "evil.example" }, path), 403, path);
  }
  for (const path of ["/metrics", "/v1/stream", "/v1/guests", "/v1/guests/x/history"]) {
    assert.equal(await get({}, path), 401, path);
  }
});

test("a client over TCP needs the token, and a server that is not there is an error of its own", async (t) => {
  const { control } = await openScene(t, { tcp: true });
  const url = `http://127.0.0.1:${control.port}`;
  assert.equal((await createClient({ url, token: TOKEN }).health()).ready, true);
  await assert.rejects(createClient({ url, token: "not-the-token-at-all" }).health(), code("ERR_DENIED"));
  assert.throws(() => createClient({ url }), code("ERR_BAD_ARGUMENT"));
  await assert.rejects(createClient({ socket: "/nowhere/control.sock" }).health(), code("ERR_NO_SERVER"));
});

test("client.watch() gives frames until its loop is left", async (t) => {
  const { client, table } = await openScene(t);
  const guest = table.arrive(new FakeGuest("g1", "web", { name: "vm" }));
  guest.fault(0, { count: 512 });
  let frames = 0;
  for await (const { guests, history } of client.watch({ guest: "g1", everyMs: 100 })) {
    assert.equal(guests[0]?.id, "g1");
    assert.equal(history?.id, "g1");
    assert.equal(guests[0]?.residentBytes, 512 * 4096);
    if (++frames === 2) break;
  }
  assert.equal(frames, 2);
});

test("more watchers than the limit are refused, and a place is free again when one goes", async (t) => {
  const { client } = await openScene(t);
  const watchers = Array.from({ length: 16 }, () => client.watch());
  for (const watcher of watchers) await watcher.next();
  await assert.rejects(client.watch().next(), code("ERR_LIMIT"));
  await watchers[0]!.return();
  // The server notices a moment later.
  const next = async (): Promise<void> => {
    const another = client.watch();
    try {
      await another.next();
      await another.return();
    } catch (error) {
      if (!code("ERR_LIMIT")(error)) throw error;
      await client.health();
      await next();
    }
  };
  await next();
  for (const watcher of watchers) await watcher.return();
});
