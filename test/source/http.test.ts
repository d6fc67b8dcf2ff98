// HTTP sources: against a real nginx by the laws, and against servers that misbehave, one way each.

import assert from "node:assert/strict";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { HttpStore } from "../../src/source/http-store.ts";
import { FolderStore, hardenStore, openSource, openStore } from "../../src/source/index.ts";
import { objectStoreLaws, pageSourceLaws, type SourceSubject } from "../../src/testing/index.ts";
import { freePort } from "./fixtures/daemon.ts";
import { MisbehavingServer } from "./fixtures/misbehaving.ts";
import { type Nginx, nginxMissing, startNginx } from "./fixtures/nginx.ts";
import { code, contentOf, seedOf } from "./scene.ts";

const seed = seedOf();
const content = contentOf(seed, 40_000);
const missing = nginxMissing();
const options = missing === undefined ? {} : { skip: missing };

let nginx: Nginx;
const server = new MisbehavingServer(content);
let origin = "";

before(async () => {
  if (missing === undefined) nginx = await startNginx();
  origin = await server.start();
});
after(async () => {
  if (missing === undefined) await nginx.stop();
  await server.stop();
});

/** Written aside and moved, so that nginx sees a new file with a new time (its ETag is time and length). */
let written = 0;
const replace = async (bytes: Uint8Array): Promise<void> => {
  const path = join(nginx.root, "file");
  // Two replacements in the same second with the same length would have the same ETag: lengths differ here.
  const padding = new Uint8Array(++written % 7);
  writeFileSync(`${path}.new`, Buffer.concat([bytes, padding]));
  renameSync(`${path}.new`, path);
};

const subject = (path: string): SourceSubject => ({
  content,
  seed,
  open: async () => {
    writeFileSync(join(nginx.root, "constant"), content);
    return openSource(`${nginx.url}${path}/constant`);
  },
});

for (const [name, path] of Object.entries({ nginx: "", "nginx behind a redirect": "/gone" })) {
  for (const { law, check } of pageSourceLaws) {
    test(`${name}: ${law}`, options, () => check(subject(path)));
  }
}

for (const { law, check } of objectStoreLaws({ isReadOnly: true })) {
  test(`nginx as a store: ${law}`, options, async () => {
    const root = join(nginx.root, `store-${++written}`);
    const store = await openStore(`${nginx.url}/store-${written}`);
    try {
      await check({ store, writer: new FolderStore(root), isReadOnly: true, seed });
    } finally {
      await store.close();
    }
  });
}

test("nginx: a replaced file is refused, and read anew when it is opened again", options, async () => {
  await replace(content);
  const source = await openSource(`${nginx.url}/file`);
  await source.read(0, new Uint8Array(100));
  await replace(content.map((byte) => byte ^ 0xff));
  await assert.rejects(source.read(100, new Uint8Array(100)), code("ERR_SOURCE_CHANGED"));
  await source.close();
  rmSync(join(nginx.root, "file"));
});

test("nginx: a deleted file is missing", options, async () => {
  await replace(content);
  const source = await openSource(`${nginx.url}/file`);
  rmSync(join(nginx.root, "file"));
  await assert.rejects(source.read(0, new Uint8Array(1)), code("ERR_SOURCE_MISSING"));
  await source.close();
});

test("nginx: user and password of a URL are used and never printed", options, async () => {
  writeFileSync(join(nginx.root, "constant"), content);
  const url = nginx.url.replace("://", "://reader:hunter2@");
  const store = await openStore(`${url}/private`);
  assert.doesNotMatch(store.url, /hunter2/);
  const source = await store.open("constant");
  const target = new Uint8Array(100);
  await source.read(0, target);
  assert.deepEqual(target, content.slice(0, 100));
  assert.doesNotMatch(source.name, /hunter2/);
  await source.close();
  await store.close();

  const wrong = await openStore(`${nginx.url.replace("://", "://reader:swordfish@")}/private`);
  await assert.rejects(wrong.open("constant"), (error: Error) => {
    code("ERR_SOURCE_DENIED")(error);
    assert.doesNotMatch(JSON.stringify(error) + error.message + String(error.stack), /swordfish/);
    return true;
  });
  await wrong.close();
});

test("nginx: a redirect that goes round is ended", options, async () => {
  await assert.rejects(openSource(`${nginx.url}/loop/x`), code("ERR_SOURCE_FAILED"));
});

test("nginx: what it would compress is asked for as it is", options, async () => {
  const text = Buffer.from("compressible ".repeat(1000));
  writeFileSync(join(nginx.root, "text"), text);
  const source = await openSource(`${nginx.url}/gzip/text`);
  const target = new Uint8Array(text.byteLength);
  await source.read(0, target);
  assert.ok(Buffer.compare(target, text) === 0);
  await source.close();
});

test("nginx: a slow server ends at the time limit, and at once when it is aborted", options, async () => {
  writeFileSync(join(nginx.root, "constant"), content);
  // Opening has to come through within the limit, on a busy machine too; the read would take fifteen seconds.
  const source = await openSource(`${nginx.url}/slow/constant`, { http: { timeoutMs: 1500 } });
  await assert.rejects(source.read(0, new Uint8Array(30_000)), (error: MinorfaultError) => {
    code("ERR_SOURCE_TIMEOUT")(error);
    return error.retryable;
  });
  await source.close();
});

const OUTCOMES: Readonly<Record<string, readonly [expected: string, retryable: boolean]>> = {
  short: ["ERR_SOURCE_SHORT", true],
  stops: ["ERR_SOURCE_SHORT", true],
  changes: ["ERR_SOURCE_CHANGED", false],
  grows: ["ERR_SOURCE_CHANGED", false],
  slow: ["ERR_SOURCE_TIMEOUT", true],
  long: ["ERR_SOURCE_TOO_LONG", false],
  chunked: ["ERR_SOURCE_TOO_LONG", false],
  elsewhere: ["ERR_SOURCE_RANGE_IGNORED", false],
  before: ["ERR_SOURCE_RANGE_IGNORED", false],
  wordless: ["ERR_SOURCE_RANGE_IGNORED", false],
  packed: ["ERR_SOURCE_RANGE_IGNORED", false],
  failing: ["ERR_SOURCE_FAILED", true],
  tired: ["ERR_SOURCE_FAILED", true],
  forbidden: ["ERR_SOURCE_DENIED", false],
  garbage: ["ERR_SOURCE_FAILED", false],
};

for (const [kind, [expected, retryable]] of Object.entries(OUTCOMES)) {
  test(`a server that is "${kind}" is refused with ${expected}`, async () => {
    // Who is slow would need a minute and a half. The others are refused for what they are, whatever time it takes.
    const http = kind === "slow" ? { timeoutMs: 1500 } : {};
    const source = await openSource(`${origin}/${kind}/object?signature=hunter2`, { http });
    await assert.rejects(source.read(1000, new Uint8Array(2000)), (error: MinorfaultError) => {
      code(expected)(error);
      assert.equal(error.retryable, retryable);
      assert.match(error.message, new RegExp(`/${kind}/object`));
      assert.doesNotMatch(`${error.message}${error.stack}`, /hunter2|secret-body/);
      return true;
    });
    await source.close();
  });
}

test("a server that ignores ranges is refused when it is opened", async () => {
  await assert.rejects(openSource(`${origin}/ignores/object`), code("ERR_SOURCE_RANGE_IGNORED"));
});

test("a new ETag is noticed by the server (412) and nothing of the new content is taken", async () => {
  const source = await openSource(`${origin}/honest/object`);
  const target = new Uint8Array(100);
  await source.read(0, target);
  assert.deepEqual(target, content.slice(0, 100));
  server.version++;
  await assert.rejects(source.read(0, target.fill(0xa5)), code("ERR_SOURCE_CHANGED"));
  assert.ok(target.every((byte) => byte === 0xa5));
  assert.equal(server.refusals, 1);
  await source.close();
});

test("a silent server ends by the signal, at once", async () => {
  const reason = new Error("enough");
  const controller = new AbortController();
  const store = new HttpStore(`${origin}/silent`);
  const opening = store.open("object", controller.signal);
  setImmediate(() => controller.abort(reason));
  await assert.rejects(opening, (error) => error === reason);
  await store.close();
});

test("closing a source or its store ends the reads that are under way", async () => {
  const store = new HttpStore(origin);
  const slow = await store.open("slow/object");
  const reading = slow.read(0, new Uint8Array(1000));
  await Promise.all([assert.rejects(reading, code("ERR_CLOSED")), slow.close()]);
  const other = await store.open("slow/object");
  const again = other.read(0, new Uint8Array(1000));
  await Promise.all([assert.rejects(again, code("ERR_CLOSED")), store.close()]);
  await assert.rejects(store.open("honest/object"), code("ERR_CLOSED"));
});

test("requests beyond the connections wait, and an aborted one in the queue ends at once", async () => {
  const store = new HttpStore(origin, { connections: 1 });
  const slow = await store.open("slow/object");
  const first = new AbortController();
  const blocking = slow.read(0, new Uint8Array(1000), first.signal);
  const second = new AbortController();
  const queued = slow.read(0, new Uint8Array(1000), second.signal);
  second.abort(new Error("second"));
  await assert.rejects(queued, /second/);
  first.abort(new Error("first"));
  await assert.rejects(blocking, /first/);
  const honest = await store.open("honest/object");
  await honest.read(0, new Uint8Array(1000));
  await store.close();
});

test("with a cache on disk a second opening reads nothing over the network but what tells a replacement", async () => {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-http-cache-"));
  const target = new Uint8Array(content.byteLength);
  const readAll = async () => {
    const source = await openSource(`${origin}/honest/object`, { cache: { folder, bytesMax: "1MiB" } });
    await source.read(0, target.fill(0));
    await source.close();
    assert.ok(Buffer.compare(target, content) === 0);
  };
  process.env.MINORFAULT_CACHE = folder;
  try {
    await readAll();
    const before = server.requests;
    await readAll();
    assert.equal(server.requests, before + 1);
    // The same by the environment, in a store.
    const store = await openStore(`${origin}/honest`);
    const source = await store.open("object");
    await source.read(0, target.fill(0));
    assert.ok(Buffer.compare(target, content) === 0);
    assert.equal(server.requests, before + 2);
    await source.close();
    await store.close();
    // Another version is another content.
    server.version++;
    await readAll();
    assert.equal(server.requests, before + 4);
    process.env.MINORFAULT_CACHE_BYTES = "much";
    await assert.rejects(openStore(`${origin}/honest`), code("ERR_BAD_ARGUMENT"));
  } finally {
    delete process.env.MINORFAULT_CACHE;
    delete process.env.MINORFAULT_CACHE_BYTES;
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a hardened store tries again what failed for a moment, opening too", async () => {
  const store = hardenStore(await openStore(`${origin}/moody`), { retry: { pauseMs: 1 } });
  // The server fails its first two requests, and every third one afterwards.
  const source = await store.open("object");
  const target = new Uint8Array(10_000);
  for (let offset = 0; offset < content.byteLength; offset += target.byteLength) {
    await source.read(offset, target);
    assert.ok(Buffer.compare(target, content.subarray(offset, offset + target.byteLength)) === 0);
  }
  assert.ok(Buffer.compare(await store.get("object", 50_000), content) === 0);
  await source.close();
  assert.ok(server.moods > 3);
  for (let offset = 0; offset < 3 * target.byteLength; offset += target.byteLength) {
    const opened = await store.openAt!("object", offset, target);
    assert.equal(opened.byteLength, content.byteLength);
    assert.ok(Buffer.compare(target, content.subarray(offset, offset + target.byteLength)) === 0);
    await opened.close();
  }
  await store.close();

  const refusing = hardenStore(await openStore(`${origin}/forbidden`), { retry: { pauseMs: 1 } });
  const denied = await refusing.open("object");
  const before = server.requests;
  await assert.rejects(denied.read(1, new Uint8Array(1)), code("ERR_SOURCE_DENIED"));
  assert.equal(server.requests, before + 1);
  await refusing.close();
});

test("a folder needs no hardening and keeps its synchronous reads", async () => {
  const store = await openStore("/tmp");
  assert.equal(hardenStore(store), store);
});

test("nobody listening, no such host: unreachable", async () => {
  const port = await freePort();
  await assert.rejects(openSource(`http://127.0.0.1:${port}/x`), (error: MinorfaultError) => {
    code("ERR_SOURCE_UNREACHABLE")(error);
    return error.retryable;
  });
  await assert.rejects(openSource("http://name.invalid/x"), code("ERR_SOURCE_UNREACHABLE"));
});

test("a redirect to another origin is followed without the credentials of the first", async () => {
  let seen: string | undefined;
  const other = createServer((request, response) => {
    seen = request.headers.authorization;
    response.writeHead(307, { location: `${origin}/honest/object` }).end();
  });
  other.listen(0, "127.0.0.1");
  await new Promise((resolve) => other.once("listening", resolve));
  let leaked: string | undefined;
  const target = createServer((request, response) => {
    leaked = request.headers.authorization;
    response.writeHead(206, { "content-range": "bytes 0-0/1", "content-length": 1 }).end("x");
  });
  target.listen(0, "127.0.0.1");
  await new Promise((resolve) => target.once("listening", resolve));
  const first = createServer((_request, response) => {
    const { port } = target.address() as AddressInfo;
    response.writeHead(307, { location: `http://127.0.0.1:${port}/` }).end();
  });
  first.listen(0, "127.0.0.1");
  await new Promise((resolve) => first.once("listening", resolve));
  const portOf = (listening: typeof first) => (listening.address() as AddressInfo).port;

  const a = await openSource(`http://user:hunter2@127.0.0.1:${portOf(other)}/x`);
  assert.match(seen ?? "", /^Basic /);
  assert.equal(a.byteLength, content.byteLength);
  await a.close();
  const b = await openSource(`http://user:hunter2@127.0.0.1:${portOf(first)}/x`);
  assert.equal(leaked, undefined);
  await b.close();
  for (const listening of [other, target, first]) {
    listening.close();
    listening.closeAllConnections();
  }
});

test("what can't be a web store's URL is refused without its secret", async () => {
  for (const url of ["http://u:hunter2@host/x?y=hunter2", "http://", "https://u:hunter2@ho st/"]) {
    await assert.rejects(openStore(url), (error: Error) => {
      code("ERR_STORE_URL")(error);
      assert.doesNotMatch(error.message, /hunter2/);
      return true;
    });
  }
  assert.ok(MinorfaultError.prototype instanceof Error);
});
