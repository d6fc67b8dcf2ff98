// Sources and stores of this machine against the laws: memory, zeros, files, folders.

import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { Random } from "../../src/base/random.ts";
import { makeFolder } from "../../src/source/folders.ts";
import {
  FileSource,
  FolderStore,
  MemorySource,
  openSource,
  openStore,
  splitImageUrl,
  ZeroSource,
} from "../../src/source/index.ts";
import { objectStoreLaws, pageSourceLaws, type SourceSubject } from "../../src/testing/index.ts";
import { code, contentOf, seedOf } from "./scene.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-source-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const seed = seedOf();
const content = contentOf(seed, 40_000);
const file = join(folder, "file");
writeFileSync(file, content);

const replace = async (bytes: Uint8Array): Promise<void> => {
  writeFileSync(`${file}.new`, bytes);
  renameSync(`${file}.new`, file);
};
const subjects: Readonly<Record<string, SourceSubject>> = {
  memory: { content, seed, open: async () => new MemorySource(content) },
  zeros: { content: new Uint8Array(20_000), seed, open: async () => new ZeroSource(20_000) },
  "a file": { content, seed, open: async () => FileSource.open(file), replace },
  "a file by its URL": { content, seed, open: () => openSource(pathToFileURL(file).href), replace },
};

for (const [name, subject] of Object.entries(subjects)) {
  for (const { law, check } of pageSourceLaws) {
    test(`${name}: ${law}`, () => check(subject));
  }
}

for (const { law, check } of objectStoreLaws()) {
  test(`a folder: ${law}`, async () => {
    const store = await openStore(mkdtempSync(join(folder, "store-")));
    await check({ store, writer: store, isReadOnly: false, seed });
    await store.close();
  });
}

test("a file that is written to while it is open is refused: longer, shorter, or only newer", async () => {
  const changes: readonly ((path: string) => void)[] = [
    (path) => writeFileSync(path, content.subarray(0, 100), { flag: "a" }),
    (path) => truncateSync(path, 30_000),
    (path) => utimesSync(path, 1, 1),
  ];
  for (const change of changes) {
    const path = join(folder, "changing");
    writeFileSync(path, content);
    const source = FileSource.open(path);
    await source.read(0, new Uint8Array(100));
    change(path);
    await assert.rejects(source.read(35_000, new Uint8Array(100)), code("ERR_SOURCE_CHANGED"));
    await source.close();
  }
});

test("what is not a file is not a source: a folder, a FIFO's like, nothing", () => {
  assert.throws(() => FileSource.open(folder), code("ERR_SOURCE_MISSING"));
  assert.throws(() => FileSource.open("/dev/null"), code("ERR_SOURCE_MISSING"));
  assert.throws(() => FileSource.open(join(folder, "nothing")), code("ERR_SOURCE_MISSING"));
});

test("a folder is made where one may write and not read", {
  skip: process.getuid?.() !== 0 && "nobody but root can become somebody else",
}, () => {
  const parent = mkdtempSync(join(tmpdir(), "minorfault-unreadable-"));
  chmodSync(parent, 0o733);
  process.seteuid?.(65_534);
  try {
    assert.throws(() => readdirSync(parent), { code: "EACCES" });
    makeFolder(join(parent, "one", "two"));
  } finally {
    process.seteuid?.(0);
  }
  assert.ok(existsSync(join(parent, "one", "two")));
  rmSync(parent, { recursive: true });
});

test("a link within the store is followed, one that leaves it is refused for reading and for writing", async () => {
  const root = mkdtempSync(join(folder, "links-"));
  const outside = mkdtempSync(join(folder, "outside-"));
  writeFileSync(join(outside, "secret"), "secret");
  const store = new FolderStore(root);
  await store.put("inside/object", Buffer.from("object"));
  symlinkSync(join(root, "inside"), join(root, "within"));
  symlinkSync(outside, join(root, "climbs"));
  symlinkSync(join(outside, "secret"), join(root, "leaf"));
  symlinkSync(join(folder, "nowhere"), join(root, "dangling"));

  assert.deepEqual(Buffer.from(await store.get("within/object", 10)), Buffer.from("object"));
  for (const key of ["climbs/secret", "leaf"]) {
    await assert.rejects(store.open(key), code("ERR_STORE_PATH"), key);
  }
  await assert.rejects(store.put("climbs/new", new Uint8Array(1)), code("ERR_STORE_PATH"));
  await assert.rejects(store.delete("climbs/secret"), code("ERR_STORE_PATH"));
  await assert.rejects(store.open("dangling"), code("ERR_SOURCE_MISSING"));
  // A link in an object's place is replaced or removed itself, not what it points to.
  await store.put("leaf", Buffer.from("mine"));
  assert.equal(readFileSync(join(outside, "secret"), "utf8"), "secret");
  assert.deepEqual(readdirSync(outside), ["secret"]);
});

test("a key below an object, and one that others lie below, is refused", async () => {
  const store = new FolderStore(mkdtempSync(join(folder, "below-")));
  await store.put("a/b", new Uint8Array(1));
  await assert.rejects(store.put("a", new Uint8Array(1)), code("ERR_STORE_PATH"));
  await assert.rejects(store.put("a/b/c", new Uint8Array(1)), code("ERR_STORE_PATH"));
});

test("a put that was cut off leaves a file that is nobody's object", async () => {
  const root = mkdtempSync(join(folder, "cut-"));
  const store = new FolderStore(root);
  mkdirSync(join(root, "images"));
  // What a writer that was killed in the middle leaves behind.
  writeFileSync(join(root, "images", ".put-0123"), "half");
  await store.put("images/whole", new Uint8Array(3));
  const found: string[] = [];
  for await (const { key } of store.list("")) found.push(key);
  assert.deepEqual(found, ["images/whole"]);
});

test("what writers that died have left is removed when it is old, and nothing else", async () => {
  const root = mkdtempSync(join(folder, "left-"));
  const store = new FolderStore(root);
  await store.put("a/b/object", new Uint8Array(1));
  for (const path of [".put-1", "a/.put-2", "a/b/.put-3", "a/b/.other"]) {
    writeFileSync(join(root, path), "half");
    if (path !== "a/.put-2") utimesSync(join(root, path), 1000, 1000);
  }
  assert.equal(await store.removeUnfinished(3_600_000), 2);
  assert.deepEqual(readdirSync(join(root, "a", "b")).sort(), [".other", "object"]);
  assert.deepEqual(readdirSync(join(root, "a")).sort(), [".put-2", "b"]);
  assert.equal(await new FolderStore(join(root, "nothing")).removeUnfinished(0), 0);
});

test("a put leaves no file of its own behind, whether it wins, loses or fails", async () => {
  const root = mkdtempSync(join(folder, "tidy-"));
  const store = new FolderStore(root);
  async function* breaking(): AsyncIterable<Uint8Array> {
    yield new Uint8Array(100);
    throw new Error("the stream broke");
  }
  await store.put("object", new Uint8Array(1), { ifAbsent: true });
  await assert.rejects(store.put("object", new Uint8Array(1), { ifAbsent: true }));
  await assert.rejects(store.put("object", breaking()));
  await store.put("object", new Uint8Array(2));
  assert.deepEqual(readdirSync(root), ["object"]);
});

test("listings of random trees are the sorted keys", async () => {
  const random = new Random(seed);
  const root = mkdtempSync(join(folder, "tree-"));
  const store = new FolderStore(root);
  const names = ["a", "a-", "a.b", "b", "é", "~", "A0"];
  const keys = new Set<string>();
  for (let count = 0; count < 60; count++) {
    const parts = Array.from({ length: 1 + random.below(3) }, () => names[random.below(names.length)] ?? "a");
    // A name is either a folder or an object: the last part says that it is an object.
    keys.add([...parts.map((part) => `${part}d`), `${parts[0]}`].join("/"));
  }
  for (const key of keys) await store.put(key, new Uint8Array(1));
  const sorted = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const prefix of ["", "a", "ad/", "a-d/a", "b", "éd/"]) {
    const found: string[] = [];
    for await (const { key } of store.list(prefix)) found.push(key);
    assert.deepEqual(
      found,
      sorted.filter((key) => key.startsWith(prefix)),
      `seed ${seed}, prefix ${prefix}`,
    );
  }
});

test("an image's URL is a store and a name", () => {
  const splits: Readonly<Record<string, readonly [string, string]>> = {
    "folder/name": ["folder", "name"],
    name: [".", "name"],
    "/name": ["/", "name"],
    "/srv/images/name": ["/srv/images", "name"],
    "file:///srv/images/name": ["/srv/images", "name"],
    "https://host/name": ["https://host", "name"],
    "https://user:secret@host:81/a/b/name": ["https://user:secret@host:81/a/b", "name"],
    "s3://bucket/name": ["s3://bucket", "name"],
    "s3://bucket/prefix/name": ["s3://bucket/prefix", "name"],
  };
  for (const [url, [store, name]] of Object.entries(splits)) {
    assert.deepEqual(splitImageUrl(url), { store, name }, url);
  }
  for (const url of [
    "",
    "folder/",
    "s3://bucket",
    "https://host",
    "https://host/",
    "http:///x",
    "s3://b/n?q=1",
  ]) {
    assert.throws(() => splitImageUrl(url), code("ERR_STORE_URL"), url);
  }
  assert.throws(() => splitImageUrl("folder/.."), code("ERR_STORE_PATH"));
});

test("a URL of no known kind is refused, without the secret in it", async () => {
  await assert.rejects(openStore("ftp://user:hunter2@host/x"), (error: Error) => {
    code("ERR_STORE_URL")(error);
    assert.doesNotMatch(error.message, /hunter2/);
    return true;
  });
  await assert.rejects(openStore(""), code("ERR_STORE_URL"));
});
