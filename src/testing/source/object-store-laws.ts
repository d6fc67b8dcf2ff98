// The laws of object stores (src/source/object-store.ts), for any implementation, writable or not.

import assert from "node:assert/strict";
import { MinorfaultError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";
import type { ObjectStore } from "../../source/object-store.ts";
import type { Law } from "./law.ts";

export interface StoreSubject {
  /** The store under test; the laws write below keys of their own and expect it empty of those. */
  readonly store: ObjectStore;
  /** Who can write into it: the store itself, or another way to the same place. */
  readonly writer: ObjectStore;
  readonly isReadOnly: boolean;
  readonly seed: number;
}

function code(expected: string) {
  return (error: unknown) => {
    assert.ok(error instanceof MinorfaultError, `not an error of the catalogue: ${error}`);
    assert.equal(error.code, expected);
    return true;
  };
}

function randomBytes(seed: number, byteLength: number): Uint8Array {
  const random = new Random(seed);
  return Uint8Array.from({ length: byteLength }, () => random.uint32());
}

function equal(actual: Uint8Array, expected: Uint8Array): void {
  assert.ok(Buffer.compare(actual, expected) === 0, "the bytes are others");
}

async function keys(store: ObjectStore, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of store.list(prefix)) found.push(key);
  return found;
}

async function* pieces(bytes: Uint8Array, ...lengths: number[]): AsyncIterable<Uint8Array> {
  let start = 0;
  for (const length of lengths) {
    yield bytes.subarray(start, start + length);
    start += length;
  }
  yield bytes.subarray(start);
}

const ATOMIC_LAWS: readonly Law<StoreSubject>[] = [
  {
    law: "of several writers who all put if absent exactly one wins, and its bytes are there",
    check: async ({ store }) => {
      const outcomes = await Promise.allSettled(
        Array.from({ length: 5 }, (_, index) =>
          store.put("race/object", randomBytes(100 + index, 2000), { ifAbsent: true }),
        ),
      );
      const winners = outcomes.flatMap(({ status }, index) => (status === "fulfilled" ? [index] : []));
      assert.equal(winners.length, 1, `${winners.length} winners`);
      for (const outcome of outcomes)
        if (outcome.status === "rejected") code("ERR_STORE_EXISTS")(outcome.reason);
      equal(await store.get("race/object", 2000), randomBytes(100 + (winners[0] ?? 0), 2000));
    },
  },
];

const WRITABLE_LAWS: readonly Law<StoreSubject>[] = [
  {
    law: "a put replaces the whole object",
    check: async ({ store }) => {
      await store.put("replaced/object", randomBytes(1, 5000));
      await store.put("replaced/object", randomBytes(2, 300));
      equal(await store.get("replaced/object", 5000), randomBytes(2, 300));
    },
  },
  {
    law: "a stream is put as its pieces joined",
    check: async ({ store, seed }) => {
      const bytes = randomBytes(seed, 70_001);
      await store.put("stream/object", pieces(bytes, 1, 0, 65_536));
      equal(await store.get("stream/object", 100_000), bytes);
    },
  },
  {
    law: "a stream that fails leaves nothing, and what was there stays",
    check: async ({ store }) => {
      const reason = new Error("the stream broke");
      async function* breaking(): AsyncIterable<Uint8Array> {
        yield randomBytes(3, 100_000);
        throw reason;
      }
      await assert.rejects(store.put("broken/new", breaking()), (error) => error === reason);
      await assert.rejects(store.open("broken/new"), code("ERR_SOURCE_MISSING"));
      await store.put("broken/old", randomBytes(4, 100));
      await assert.rejects(store.put("broken/old", breaking()), (error) => error === reason);
      equal(await store.get("broken/old", 1000), randomBytes(4, 100));
      assert.deepEqual(await keys(store, "broken/"), ["broken/old"]);
    },
  },
  {
    law: "put if absent refuses a key that is taken, for a stream too",
    check: async ({ store }) => {
      await store.put("taken/object", randomBytes(5, 10), { ifAbsent: true });
      const again = store.put("taken/object", pieces(randomBytes(6, 10), 5), { ifAbsent: true });
      await assert.rejects(again, code("ERR_STORE_EXISTS"));
      equal(await store.get("taken/object", 10), randomBytes(5, 10));
    },
  },
  {
    law: "a deleted object is missing; deleting it again is no error",
    check: async ({ store }) => {
      await store.put("deleted/object", randomBytes(7, 10));
      await store.delete("deleted/object");
      await store.delete("deleted/object");
      await assert.rejects(store.open("deleted/object"), code("ERR_SOURCE_MISSING"));
      assert.deepEqual(await keys(store, "deleted/"), []);
    },
  },
  {
    law: "a listing has the keys with the prefix, in byte order, with their lengths",
    check: async ({ store }) => {
      const wanted = ["list/a-b", "list/a/b", "list/a/c/d", "list/ab", "list/é", "list/z"];
      for (const key of [...wanted].reverse()) await store.put(key, randomBytes(8, key.length));
      await store.put("listing", randomBytes(8, 1));
      const found: { key: string; byteLength: number }[] = [];
      for await (const object of store.list("list/")) found.push(object);
      const order = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
      assert.deepEqual(
        found,
        wanted.sort(order).map((key) => ({ key, byteLength: key.length })),
      );
      assert.deepEqual(await keys(store, "list/a/"), ["list/a/b", "list/a/c/d"]);
      assert.deepEqual(await keys(store, "list/ab"), ["list/ab"]);
      assert.deepEqual(await keys(store, "list/nothing"), []);
    },
  },
  {
    law: "an aborted put leaves nothing",
    check: async ({ store }) => {
      const controller = new AbortController();
      const reason = new Error("enough");
      async function* aborting(): AsyncIterable<Uint8Array> {
        yield randomBytes(9, 1000);
        controller.abort(reason);
        yield randomBytes(9, 1000);
      }
      const put = store.put("aborted/object", aborting(), { signal: controller.signal });
      await assert.rejects(put, (error) => error === reason);
      await assert.rejects(store.open("aborted/object"), code("ERR_SOURCE_MISSING"));
    },
  },
];

const READ_ONLY_LAWS: readonly Law<StoreSubject>[] = [
  {
    law: "it refuses to write and to delete, and says that it can only be read",
    check: async ({ store }) => {
      await assert.rejects(store.put("some/object", new Uint8Array(1)), code("ERR_STORE_READ_ONLY"));
      await assert.rejects(store.delete("some/object"), code("ERR_STORE_READ_ONLY"));
    },
  },
  {
    law: "it lists, or says that it cannot",
    check: async ({ store, writer }) => {
      await writer.put("list/a", new Uint8Array(1));
      try {
        assert.deepEqual(await keys(store, "list/"), ["list/a"]);
      } catch (error) {
        code("ERR_STORE_UNLISTED")(error);
      }
    },
  },
];

const READING_LAWS: readonly Law<StoreSubject>[] = [
  {
    law: "what was put is read back: empty, small, large, at any offset",
    check: async ({ store, writer, seed }) => {
      for (const byteLength of [0, 1, 4096, 200_001]) {
        const bytes = randomBytes(seed + byteLength, byteLength);
        await writer.put(`read/${byteLength}`, bytes);
        equal(await store.get(`read/${byteLength}`, 300_000), bytes);
        const source = await store.open(`read/${byteLength}`);
        try {
          assert.equal(source.byteLength, byteLength);
          const target = new Uint8Array(byteLength >> 1);
          await source.read(byteLength - target.byteLength, target);
          equal(target, bytes.subarray(byteLength - target.byteLength));
        } finally {
          await source.close();
        }
      }
    },
  },
  {
    law: "what is opened by reading some of it is as if it had been opened first",
    check: async ({ store, writer, seed }) => {
      if (store.openAt === undefined) return;
      const bytes = randomBytes(seed, 5000);
      await writer.put("opened/object", bytes);
      await writer.put("opened/empty", new Uint8Array(0));
      for (const [start, end] of [
        [0, 1],
        [0, 5000],
        [4999, 5000],
        [1000, 3000],
      ] as const) {
        const target = new Uint8Array(end - start);
        const source = await store.openAt("opened/object", start, target);
        try {
          equal(target, bytes.subarray(start, end));
          assert.equal(source.byteLength, 5000);
          const rest = new Uint8Array(5000);
          await source.read(0, rest);
          equal(rest, bytes);
        } finally {
          await source.close();
        }
      }
      const target = new Uint8Array(2);
      await assert.rejects(store.openAt("opened/object", 4999, target), code("ERR_OUT_OF_RANGE"));
      await assert.rejects(store.openAt("opened/object", 6000, target), code("ERR_OUT_OF_RANGE"));
      await assert.rejects(store.openAt("opened/empty", 0, target), code("ERR_OUT_OF_RANGE"));
      await assert.rejects(store.openAt("opened/nothing", 0, target), code("ERR_SOURCE_MISSING"));
      await assert.rejects(store.openAt("../opened", 0, target), code("ERR_STORE_PATH"));
      const reason = new Error("enough");
      const aborted = AbortSignal.abort(reason);
      await assert.rejects(store.openAt("opened/object", 0, target, aborted), (error) => error === reason);
    },
  },
  {
    law: "keys with characters that URLs and shells know are keys like others",
    check: async ({ store, writer }) => {
      for (const key of ["odd/a b", "odd/100%25", "odd/q?x=1&y", "odd/#1", "odd/ä+~€", "odd/a;b'c\"d"]) {
        await writer.put(key, Buffer.from(key));
        equal(await store.get(key, 100), Buffer.from(key));
      }
    },
  },
  {
    law: "a missing object is ERR_SOURCE_MISSING, also where a folder or an object is in its way",
    check: async ({ store, writer, isReadOnly }) => {
      await writer.put("way/object", new Uint8Array(1));
      for (const key of ["nothing", "nothing/at/all", "way/object/below"]) {
        await assert.rejects(store.open(key), code("ERR_SOURCE_MISSING"), key);
        await assert.rejects(store.get(key, 10), code("ERR_SOURCE_MISSING"), key);
      }
      // A web server may rather not say what is in a folder.
      await assert.rejects(store.open("way"), code(isReadOnly ? "ERR_SOURCE_DENIED" : "ERR_SOURCE_MISSING"));
    },
  },
  {
    law: "get refuses more than its limit, and takes exactly it",
    check: async ({ store, writer }) => {
      await writer.put("limit/object", randomBytes(10, 1000));
      await assert.rejects(store.get("limit/object", 999), code("ERR_SOURCE_TOO_LONG"));
      equal(await store.get("limit/object", 1000), randomBytes(10, 1000));
    },
  },
  {
    law: "keys that leave the store, or that some store cannot hold, are refused by every call",
    check: async ({ store }) => {
      const bad = ["", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/.", ".a", "a\0b", "a\\b", "a\nb"];
      for (const key of [...bad, "\ud800", "x".repeat(201), `${"y/".repeat(600)}z`]) {
        await assert.rejects(store.open(key), code("ERR_STORE_PATH"), JSON.stringify(key));
        await assert.rejects(store.get(key, 10), code("ERR_STORE_PATH"), JSON.stringify(key));
        await assert.rejects(store.put(key, new Uint8Array(1)), code("ERR_STORE_PATH"), JSON.stringify(key));
        await assert.rejects(store.delete(key), code("ERR_STORE_PATH"), JSON.stringify(key));
      }
      await assert.rejects(keys(store, "../"), code("ERR_STORE_PATH"));
    },
  },
  {
    law: "an aborted signal rejects with its reason",
    check: async ({ store, writer }) => {
      await writer.put("signal/object", new Uint8Array(10));
      const reason = new Error("enough");
      const aborted = AbortSignal.abort(reason);
      await assert.rejects(store.open("signal/object", aborted), (error) => error === reason);
      await assert.rejects(store.get("signal/object", 10, aborted), (error) => error === reason);
    },
  },
  {
    law: "its URL has no credentials",
    check: async ({ store }) => assert.doesNotMatch(store.url, /@|\?/),
  },
];

export interface StoreKind {
  readonly isReadOnly?: boolean;
  /** Whether one of several writers wins for sure: false for servers without conditional writes. Default true. */
  readonly isIfAbsentAtomic?: boolean;
}

/** The laws that hold for a store of that kind. */
export function objectStoreLaws(kind: StoreKind = {}): readonly Law<StoreSubject>[] {
  if (kind.isReadOnly) return [...READING_LAWS, ...READ_ONLY_LAWS];
  const atomic = kind.isIfAbsentAtomic === false ? [] : ATOMIC_LAWS;
  return [...READING_LAWS, ...WRITABLE_LAWS, ...atomic];
}
