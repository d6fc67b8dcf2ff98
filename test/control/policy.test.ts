// Who may use which image: rules, spellings that try to slip past them, and files that are refused.

import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { canonicalImage, ownPolicy, policyOf } from "../../src/daemon/policy.ts";
import { parsePolicy, readPolicy } from "../../src/daemon/policy-file.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-policy-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const code = (wanted: string) => (error: unknown) =>
  error instanceof MinorfaultError && error.code === wanted;

test("what no rule fits is refused, and the reason names peer and image", () => {
  const verdict = policyOf({ rules: [] }).check({ uid: 7, gid: 8 }, "/srv/images/web");
  assert.deepEqual(verdict, {
    allowed: false,
    reason: "No rule of the policy lets uid 7 use /srv/images/web",
  });
});

test("a rule fits by uid, by gid, by both or for everybody", () => {
  const policy = policyOf({
    rules: [
      { uid: 1, images: ["/one"] },
      { gid: 2, images: ["/two"] },
      { uid: 3, gid: 4, images: ["/both"] },
      { uid: "*", images: ["/all"] },
    ],
  });
  const allowed = (uid: number, gid: number, image: string) => policy.check({ uid, gid }, image).allowed;
  assert.equal(allowed(1, 9, "/one"), true);
  assert.equal(allowed(9, 1, "/one"), false);
  assert.equal(allowed(9, 2, "/two"), true);
  assert.equal(allowed(2, 9, "/two"), false);
  assert.equal(allowed(3, 4, "/both"), true);
  assert.equal(allowed(3, 9, "/both"), false);
  assert.equal(allowed(9, 4, "/both"), false);
  assert.equal(allowed(9, 9, "/all"), true);
  // Root is a user like any other here: what the policy does not say does not hold.
  assert.equal(allowed(0, 0, "/one"), false);
});

test("one star stays within a name, two cross slashes, and everything else means itself", () => {
  const allows = (pattern: string, image: string) =>
    policyOf({ rules: [{ uid: "*", images: [pattern] }] }).check({ uid: 1, gid: 1 }, image).allowed;
  assert.equal(allows("/srv/*", "/srv/a"), true);
  assert.equal(allows("/srv/*", "/srv/a/b"), false);
  assert.equal(allows("/srv/**", "/srv/a/b"), true);
  assert.equal(allows("/srv/a.b", "/srv/axb"), false);
  assert.equal(allows("/srv/a", "/srv/ab"), false);
  assert.equal(allows("/srv/(a|b)*", "/srv/a"), false);
  assert.equal(allows("file:///srv/*", "/srv/a"), true);
  assert.equal(allows("https://images.example/a/*", "https://images.example/a/x"), true);
  assert.equal(allows("https://images.example/a/*", "https://images.example.evil/a/x"), false);
  assert.equal(allows("**", "s3://bucket/x"), true);
});

test("no spelling of an image slips past a pattern", () => {
  const policy = policyOf({ rules: [{ uid: "*", images: ["/srv/mine/**", "https://host/mine/**"] }] });
  for (const image of [
    "/srv/mine/../theirs/x",
    "/srv/mine/./../theirs/x",
    "file:///srv/mine/../theirs/x",
    "file:///srv/mine/%2e%2e/theirs/x",
    "https://host/mine/../theirs/x",
    "https://host/mine/%2e%2e/theirs/x",
    "https://host/mine/..%2ftheirs/x",
    "https://user:secret@host/mine/x",
    "https://host/mine/x?alt=theirs",
    "https://host:444/mine/x",
    "http://host/mine/x",
    "/srv/mine/x\0",
    "",
    `/srv/mine/${"x".repeat(3000)}`,
    "mailto:x",
  ]) {
    assert.equal(policy.check({ uid: 1, gid: 1 }, image).allowed, false, JSON.stringify(image));
  }
  for (const image of ["/srv//mine/x", "FILE:///srv/mine/x", "HTTPS://HOST:443/mine/x"]) {
    assert.equal(policy.check({ uid: 1, gid: 1 }, image).allowed, true, image);
  }
});

test("canonicalImage() gives one spelling for one image, and no secret in its errors", () => {
  assert.equal(canonicalImage("/a/b/../c"), "/a/c");
  assert.equal(canonicalImage("file:///a/c"), "/a/c");
  assert.throws(
    () => canonicalImage("https://user:secret@host/x"),
    (error: Error) => !error.message.includes("secret"),
  );
});

test("guestsMax counts the guests that a uid has, and the widest rule that fits decides", () => {
  const policy = policyOf({
    rules: [
      { uid: 1, images: ["/a", "/b"], guestsMax: 2 },
      { uid: 1, images: ["/b"], guestsMax: 3 },
    ],
  });
  const check = (image: string, guests: number) => policy.check({ uid: 1, gid: 1 }, image, guests);
  assert.equal(check("/a", 1).allowed, true);
  assert.deepEqual(check("/a", 2), {
    allowed: false,
    reason: "The policy lets uid 1 have 2 guests at a time",
  });
  assert.equal(check("/b", 2).allowed, true);
  assert.equal(check("/b", 3).allowed, false);
});

test("without a file the owner and root may use everything, others nothing", () => {
  const policy = ownPolicy(1000);
  assert.equal(policy.check({ uid: 1000, gid: 5 }, "/x").allowed, true);
  assert.equal(policy.check({ uid: 0, gid: 0 }, "/x").allowed, true);
  assert.equal(policy.check({ uid: 1001, gid: 1000 }, "/x").allowed, false);
});

test("a policy that is not one is refused, and the error says where", () => {
  for (const [text, where] of [
    ["{", /not JSON/],
    ["[]", /Expected an object/],
    ['"rules"', /Expected Object/],
    ['{"rules":[{"images":["/a"]}]}', /rules\.0: A rule names a uid/],
    ['{"rules":[{"uid":-1,"images":["/a"]}]}', /rules\.0\.uid/],
    ['{"rules":[{"uid":1,"images":[]}]}', /rules\.0\.images/],
    ['{"rules":[{"uid":1,"images":["relative"]}]}', /rules\.0\.images\.0: A pattern is/],
    ['{"rules":[{"uid":1,"images":["/a*b*c*d*e*f*g*h"]}]}', /at most 6 stars/],
    ['{"rules":[{"uid":1,"images":["/a"],"guests":1}]}', /rules\.0/],
    ['{"rules":[],"allow":"all"}', /allow/],
  ] as const) {
    assert.throws(
      () => parsePolicy(text),
      (error: MinorfaultError) => code("ERR_BAD_ARGUMENT")(error) && where.test(error.message),
      text,
    );
  }
});

test("readPolicy() refuses a file that others may write to, and one that is not there", async () => {
  const path = join(folder, "policy.json");
  writeFileSync(path, '{"rules":[{"uid":5,"images":["/a"]}]}');
  chmodSync(path, 0o666);
  await assert.rejects(readPolicy(path), code("ERR_BAD_ARGUMENT"));
  chmodSync(path, 0o640);
  assert.equal((await readPolicy(path)).check({ uid: 5, gid: 5 }, "/a").allowed, true);
  await assert.rejects(readPolicy(join(folder, "none")), code("ERR_BAD_ARGUMENT"));
});
