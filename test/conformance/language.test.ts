// The case language: what it accepts, how it complains, and that docs/cases.md says the same as the interpreter.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { System } from "../../src/abi/index.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { KINDS } from "../../src/testing/conformance/kinds.ts";
import { VERBS } from "../../src/testing/conformance/verbs/index.ts";
import { CASES, MASK_NAMES, MASKS, parseCases, resultLines, runCase } from "../../src/testing/index.ts";
import { createSystem } from "../../src/uffd/software/index.ts";

const ROOT = new URL("../../../", import.meta.url);

function one(text: string) {
  const cases = parseCases(text, "test");
  assert.equal(cases.length, 1);
  return cases[0]!;
}

/** The message of the ERR_BAD_CASE that a text gives. */
function complaint(text: string): string {
  try {
    parseCases(text, "my.txt");
  } catch (error) {
    assert.ok(error instanceof MinorfaultError, String(error));
    assert.equal(error.code, "ERR_BAD_CASE");
    return error.message;
  }
  return assert.fail(`No complaint about ${text}`);
}

test("the built-in cases are the 256 of the specification, section by section", () => {
  const sections = new Map<string, number>();
  for (const { id } of CASES) sections.set(id[0]!, (sections.get(id[0]!) ?? 0) + 1);
  const expected = { A: 27, B: 38, C: 38, D: 12, E: 31, F: 10, G: 6, H: 29, I: 13, J: 9, K: 12, L: 25, N: 6 };
  assert.deepEqual(Object.fromEntries(sections), expected);
  assert.equal(new Set(CASES.map((found) => found.id)).size, 256);
});

test("parseCases() reads tags, set-up, actions and tokens of a line", () => {
  const found = one(
    'E15 seed skip kernel "no; -> | reason" | std; t1: read 0 | copy 0; (?t1) -> OK/4096 blocked',
  );
  assert.equal(found.id, "E15");
  assert.equal(found.era, "seed");
  assert.deepEqual([...found.skips], [["kernel", "no; -> | reason"]]);
  assert.deepEqual(
    [...found.setUp, ...found.actions].map(({ text, silent, thread }) => ({ text, silent, thread })),
    [
      { text: "std", silent: true, thread: undefined },
      { text: "t1: read 0", silent: true, thread: "t1" },
      { text: "copy 0", silent: false, thread: undefined },
      { text: "(?t1)", silent: true, thread: undefined },
    ],
  );
  assert.deepEqual(found.expected, ["OK/4096", "blocked"]);
});

test("parseCases() takes indented lines as continuation, and skips comments and blank lines", () => {
  const text =
    "# first\n\nX1 | std | copy 0; # why\n     copy 1\n\n  -> OK/4096\n     OK/4096 @4.3 ok\nX2 | uffd | poll -> poll=0\n";
  const [first, second] = parseCases(text, "f");
  assert.deepEqual(first?.expected, ["OK/4096", "OK/4096"]);
  assert.deepEqual(first?.expectedSeed, ["ok"]);
  assert.equal(first?.actions.length, 2);
  assert.equal(first?.where, "f:3");
  assert.equal(second?.where, "f:8");
});

test("parseCases() knows what a case needs of the host", () => {
  assert.deepEqual([...one("X | a = hugetlb 1; std | zeropage 0 -> EINVAL/-22").needs], ["hugetlb"]);
  assert.deepEqual([...one("X | drop ptrace | open u -> EPERM").needs], ["restricted"]);
  assert.deepEqual([...one("X | std | copy 0 -> OK/4096").needs], []);
});

test("the name of an area needs no spaces around its =", () => {
  const [tight] = one("X | b=anon 2; std | copy b.1 -> ENOENT/-2").setUp;
  const [spaced] = one("X | b = anon 2; std | copy b.1 -> ENOENT/-2").setUp;
  assert.equal(tight?.action.kind, spaced?.action.kind);
  const system = createSystem();
  const run = (text: string) => runCase(system, one(text)).status;
  assert.equal(run("X | b=anon 2; std | copy b.1 -> ENOENT/-2"), "ok");
  assert.equal(run("X | b= anon 2; std | copy b.1 -> ENOENT/-2"), "ok");
  system.close();
});

/** Text, and the beginning and an essential word of the complaint. */
const COMPLAINTS: readonly (readonly [string, string, RegExp])[] = [
  ["X1 | std | copy 0", "my.txt:1:18", /"->" and the expected tokens/],
  ["X1 | std | copy 0 ->", "my.txt:1:21", /expected tokens/],
  ["X1 std copy 0 -> OK", "my.txt:1:15", /actions/],
  ["X1 | a | b | c -> OK", "my.txt:1:12", /set-up/],
  ["9 | std | copy 0 -> OK", "my.txt:1:1", /an id/],
  ["  copy 0 -> OK", "my.txt:1:3", /start of a line/],
  ["X1 sed | std | copy 0 -> OK", "my.txt:1:4", /seed, later/],
  ["X1 skip kernel | std | copy 0 -> OK", "my.txt:1:9", /reason in quotes/],
  ['X1 skip linux "no" | std | copy 0 -> OK', "my.txt:1:9", /kernel or software/],
  ["X1 | std | -> OK", "my.txt:1:12", /an action/],
  ["X1 | std | cpoy 0 -> OK", "my.txt:1:12", /a verb.*"cpoy"/],
  ["X1 | std | copy -> OK", "my.txt:1:16", /a place/],
  ["X1 | std | copy 0 dontwak -> OK", "my.txt:1:19", /end of the step.*"dontwak"/],
  ["X1 | std | copy [4,2) -> OK", "my.txt:1:17", /a place/],
  ["X1 | std | copy b.0 -> OK", "my.txt:1:17", /an area that the case has set up \(a, s\)/],
  ["X1 | std | copy 0 via=v -> OK", "my.txt:1:23", /a descriptor that the case has opened \(u\)/],
  ["X1 | std | copy 0 arg=good -> OK", "my.txt:1:23", /arg=bad or readonly/],
  ["X1 | std | copy 0 mode=x -> OK", "my.txt:1:24", /a number/],
  ["X1 | std | copy 0 mode=$NOPE -> OK", "my.txt:1:24", /a number/],
  ["X1 | std | move 0 -> OK", "my.txt:1:18", /from=PLACE/],
  ["X1 | std | (copy 0 -> OK", "my.txt:1:18", /ends with "\)"/],
  ["X1 | std | ?t1 -> OK", "my.txt:1:13", /a thread that the case has started \(none so far\)/],
  ["X1 | std | c: read 0 -> OK", "my.txt:1:12", /a process that the case has forked/],
  ["X1 | std | t1: poll -> OK", "my.txt:1:12", /a thread can be told/],
  ["X1 | std | t1: read 0 as=x -> OK", "my.txt:1:12", /\?t1 as=x/],
  ["X1 | b = clay 8; std | copy 0 -> OK", "my.txt:1:10", /a kind of memory/],
  ["X1 | b = anon x; std | copy 0 -> OK", "my.txt:1:15", /a number of pages/],
  ["X1 | std | madvise nicely 0 -> OK", "my.txt:1:20", /an advice/],
  ["X1 | std | fork t1 -> OK", "my.txt:1:17", /a name such as c/],
  ["X1 | std | copy 0 -> $NOPE", "my.txt:1:22", /a mask/],
  ["X1 | std | copy 0 -> OK @4.3", "my.txt:1:25", /tokens after @4.3/],
  ["X1 | std | copy 0 -> OK\nX1 | std | copy 1 -> OK", "my.txt:2:1", /an id other than/],
  ["X1 | std | copy 0;\n  copy 1;\n  cpoy 2 -> OK", "my.txt:3:3", /a verb/],
];

for (const [text, where, what] of COMPLAINTS) {
  test(`parseCases() complains about ${JSON.stringify(text)} at ${where}`, () => {
    const message = complaint(text);
    assert.ok(message.startsWith(`${where}: expected `), message);
    assert.match(message, what);
  });
}

test("runCase() reports a system that breaks instead of throwing", () => {
  const broken: System = {
    name: "software",
    spawnProcess() {
      throw new Error("no process today");
    },
    close() {},
  };
  const result = runCase(broken, one("X1 | std | copy 0 -> OK/4096"));
  assert.equal(result.status, "fail");
  assert.match(result.reason ?? "", /no process today/);
  assert.equal(result.differs, 0);
});

test("runCase() counts a case as skipped, with its reason, where it can't be expressed", () => {
  const never: System = { name: "software", spawnProcess: () => assert.fail("spawned"), close() {} };
  const skipped = runCase(never, one('X1 skip software "no vDSO" | std | copy 0 -> OK/4096'));
  assert.deepEqual([skipped.status, skipped.reason], ["skip", "no vDSO"]);
  const lacks = new Map([["hugetlb", "no pool"] as const]);
  const huge = runCase(never, one("X1 | a = hugetlb 1 | uffd -> OK"), { lacks });
  assert.deepEqual([huge.status, huge.reason], ["skip", "no pool"]);
  const later = runCase(never, one("X1 | std | poison 0 -> OK/4096"), { profile: "linux-4.3" });
  assert.equal(later.status, "skip");
});

test("resultLines() puts both sides under each other and marks the first difference", () => {
  const base = {
    id: "X1",
    system: "kernel",
    reason: undefined,
    milliseconds: 1,
    text: "X1 | ...",
    where: "f:1",
  } as const;
  const lines = resultLines({
    ...base,
    status: "fail",
    expected: ["OK/4096", "blocked", "OK"],
    got: ["OK/4096", "done=1"],
    differs: 1,
  }).split("\n");
  assert.deepEqual(lines, [
    "FAIL X1   kernel   f:1: X1 | ...",
    "     expected  OK/4096 blocked OK",
    "     got       OK/4096 done=1",
    "                       ^",
  ]);
});

test("every release's table of masks has every name", () => {
  for (const masks of Object.values(MASKS))
    assert.deepEqual(Object.keys(masks).sort(), [...MASK_NAMES].sort());
});

test("docs/cases.md lists the verbs and the kinds of memory that the interpreter has, with the same words", () => {
  const text = readFileSync(fileURLToPath(new URL("docs/cases.md", ROOT)), "utf8");
  const section = (title: string) => text.split(`\n## ${title}\n`)[1]?.split("\n## ")[0] ?? "";
  const listed = (title: string) =>
    [...section(title).matchAll(/^- `([^`]+)`: (.*)$/gm)]
      .map(([, usage, about]) => `${usage}: ${about}`)
      .sort();
  const known = (table: Readonly<Record<string, { usage: string; about: string }>>) =>
    Object.values(table)
      .map(({ usage, about }) => `${usage}: ${about}`)
      .sort();
  assert.deepEqual(listed("Verbs"), known(VERBS));
  assert.deepEqual(listed("Kinds of memory"), known(KINDS));
  for (const [name, { usage }] of Object.entries({ ...VERBS, ...KINDS })) assert.ok(usage.startsWith(name));
});
