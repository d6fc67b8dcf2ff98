// S3 stores against a real server that checks signatures: Swift's s3api.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { openSource, openStore, type S3Options } from "../../src/source/index.ts";
import { S3Store } from "../../src/source/s3-store.ts";
import { objectStoreLaws, pageSourceLaws } from "../../src/testing/index.ts";
import { freePort } from "./fixtures/daemon.ts";
import { ACCESS_KEY, credentials, REGION, type Swift, startSwift, swiftMissing } from "./fixtures/swift.ts";
import { withoutPool } from "./fixtures/without-pool.ts";
import { code, contentOf, seedOf } from "./scene.ts";

const seed = seedOf();
const content = contentOf(seed, 40_000);
const missing = swiftMissing();
const options = missing === undefined ? {} : { skip: missing };

let swift: Swift;
let s3: S3Options;

before(async () => {
  if (missing !== undefined) return;
  swift = await startSwift();
  s3 = { endpoint: swift.endpoint, region: REGION, credentials, partBytes: 5 * 2 ** 20 };
  await swift.createBucket("images");
});
after(async () => {
  if (missing === undefined) await swift.stop();
});

for (const { law, check } of pageSourceLaws) {
  test(`S3: ${law}`, options, async () => {
    const store = await openStore("s3://images/sources", { s3 });
    try {
      const replace = (bytes: Uint8Array) => store.put("object", bytes);
      await replace(content);
      await check({ content, seed, open: () => store.open("object"), replace });
    } finally {
      await store.close();
    }
  });
}

let stores = 0;
for (const { law, check } of objectStoreLaws({ isIfAbsentAtomic: false })) {
  test(`S3 as a store: ${law}`, options, async () => {
    const store = await openStore(`s3://images/store/${++stores}`, { s3 });
    try {
      await check({ store, writer: store, isReadOnly: false, seed });
    } finally {
      await store.close();
    }
  });
}

test("a store says when its server has no conditional writes", options, async () => {
  const store = await S3Store.open("s3://images/conditional", s3);
  assert.equal(store.ifAbsentAtomicity, undefined);
  await store.put("object", content, { ifAbsent: true });
  assert.equal(store.ifAbsentAtomicity, "checked");
  await store.close();
});

test("a long stream is a multipart upload: there when it is complete, and not before", options, async () => {
  const store = await openStore("s3://images/multipart", { s3 });
  const piece = contentOf(seed, 1_000_003);
  async function* long(): AsyncIterable<Uint8Array> {
    for (let count = 0; count < 12; count++) {
      if (count === 11) await assert.rejects(store.open("object"), code("ERR_SOURCE_MISSING"));
      yield piece;
    }
  }
  await store.put("object", long());
  const source = await store.open("object");
  assert.equal(source.byteLength, 12_000_036);
  const target = new Uint8Array(3_000_000);
  // Across the border of the first two parts.
  await source.read(4_000_012, target);
  const wanted = Buffer.concat([piece, piece, piece]).subarray(0, 3_000_000);
  assert.ok(Buffer.compare(target, wanted) === 0);
  await source.close();
  await assert.rejects(store.put("object", long(), { ifAbsent: true }), code("ERR_STORE_EXISTS"));
  await store.delete("object");
  await assert.rejects(store.open("object"), code("ERR_SOURCE_MISSING"));
  await store.close();
});

test("a long stream that breaks leaves no object and no parts", options, async () => {
  const store = await openStore("s3://images/broken", { s3 });
  const reason = new Error("the stream broke");
  async function* breaking(): AsyncIterable<Uint8Array> {
    yield new Uint8Array(11 * 2 ** 20);
    throw reason;
  }
  await assert.rejects(store.put("object", breaking()), (error) => error === reason);
  await assert.rejects(store.open("object"), code("ERR_SOURCE_MISSING"));
  await store.close();

  const { ListMultipartUploadsCommand } = await import("@aws-sdk/client-s3");
  const client = await swift.client();
  const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: "images" }));
  client.destroy();
  assert.deepEqual(Uploads, []);
});

test("an upload whose writer died is taken back when it is old", options, async () => {
  const { CreateMultipartUploadCommand, ListMultipartUploadsCommand } = await import("@aws-sdk/client-s3");
  const client = await swift.client();
  for (const Key of ["left/object", "elsewhere/object"]) {
    await client.send(new CreateMultipartUploadCommand({ Bucket: "images", Key }));
  }
  const store = await openStore("s3://images/left", { s3 });
  assert.equal(await store.removeUnfinished?.(3_600_000), 0);
  assert.equal(await store.removeUnfinished?.(-3_600_000), 1);
  const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: "images" }));
  assert.deepEqual(
    Uploads.map(({ Key }) => Key),
    ["elsewhere/object"],
  );
  const all = await openStore("s3://images", { s3 });
  assert.equal(await all.removeUnfinished?.(-3_600_000), 1);
  await store.close();
  await all.close();
  client.destroy();
});

test(
  "endpoint, region and credentials come from the environment, and an image's URL is enough",
  options,
  async () => {
    const { environment } = swift;
    Object.assign(process.env, environment);
    try {
      const store = await openStore("s3://images/environment");
      await store.put("object", content);
      await store.close();
      const source = await openSource("s3://images/environment/object");
      const target = new Uint8Array(1000);
      await source.read(500, target);
      assert.deepEqual(target, content.slice(500, 1500));
      assert.equal(source.name, "s3://images/environment/object");
      await source.close();
    } finally {
      for (const name of Object.keys(environment)) delete process.env[name];
    }
  },
);

test("an object is read while all libuv threads stand still", options, async () => {
  const store = await openStore("s3://images/pool", { s3 });
  await store.put("object", content);
  await store.close();
  await withoutPool(["source", "s3://images/pool/object"], {
    ...swift.environment,
    AWS_ENDPOINT_URL_S3: swift.endpoint.replace("127.0.0.1", "localhost"),
  });
});

test("a wrong secret is denied, and neither it nor the key is in the error", options, async () => {
  const wrong = { accessKeyId: ACCESS_KEY, secretAccessKey: "hunter2-wrong" };
  const store = await openStore("s3://images/x", { s3: { ...s3, credentials: wrong } });
  for (const request of [
    () => store.open("object"),
    () => store.get("object", 10),
    () => store.put("o", content),
  ]) {
    await assert.rejects(request, (error: Error) => {
      code("ERR_SOURCE_DENIED")(error);
      const shown = `${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`;
      assert.doesNotMatch(shown, /hunter2|test:tester|Signature=|StringToSign/);
      return true;
    });
  }
  await store.close();
});

test("no bucket: missing. Nobody there: unreachable, and worth another try", options, async () => {
  const nowhere = await openStore("s3://no-such-bucket", { s3 });
  await assert.rejects(nowhere.open("object"), code("ERR_SOURCE_MISSING"));
  await nowhere.close();
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const store = await openStore("s3://images", { s3: { ...s3, endpoint } });
  await assert.rejects(store.open("object"), (error: MinorfaultError) => {
    code("ERR_SOURCE_UNREACHABLE")(error);
    return error.retryable;
  });
  await store.close();
});

test("what is no s3 URL is refused", async () => {
  for (const url of ["s3://", "s3://B", "s3://key:hunter2@bucket", "s3://bucket/a?x=1"]) {
    await assert.rejects(openStore(url), (error: Error) => {
      code("ERR_STORE_URL")(error);
      assert.doesNotMatch(error.message, /hunter2/);
      return true;
    });
  }
  await assert.rejects(openStore("s3://bucket/../x"), code("ERR_STORE_PATH"));
  assert.ok(MinorfaultError.prototype instanceof Error);
});
