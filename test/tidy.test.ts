// House rules that no linter knows: sizes, names, headers, dead files. A rule that lives only in prose is no rule.

import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const LINES_MAX = 500;
const BANNED_NAMES = /(^|\/)(utils?|helpers?|common|misc)(\.|\/)/;
/** Files that are run, not imported. */
const ENTRY_POINTS =
  /(^|\/)(main|index|test|setup|[a-z-]*worker)\.ts$|\.test\.ts$|^bench\/|^examples\/|fixtures\//;

function sources(...folders: string[]): string[] {
  const walk = (folder: string): string[] =>
    readdirSync(folder)
      .map((name) => join(folder, name))
      .flatMap((path) => (statSync(path).isDirectory() ? walk(path) : [path]));
  return folders
    .flatMap((folder) => walk(join(root, folder)))
    .map((path) => relative(root, path))
    .filter((path) => path.endsWith(".ts"))
    .sort();
}

const all = sources("src", "test", "bench", "scripts", "examples");
const read = (path: string): string => readFileSync(join(root, path), "utf8");

test(`no source file has more than ${LINES_MAX} lines`, () => {
  const long = all.filter((path) => read(path).split("\n").length > LINES_MAX);
  assert.deepEqual(long, []);
});

test("no file or folder is called utils, helpers, common or misc", () => {
  assert.deepEqual(
    all.filter((path) => BANNED_NAMES.test(path)),
    [],
  );
});

test("every source file says at its top what it is", () => {
  const silent = all.filter(
    (path) => !path.endsWith("index.ts") && !/^(#!.*\n)?(\/\/|\/\*)/.test(read(path)),
  );
  assert.deepEqual(silent, []);
});

test("every file is imported by another one, or is run", () => {
  const imported = new Set<string>();
  for (const path of all) {
    for (const [, target = ""] of read(path).matchAll(/(?:from|import|URL\()\s*\(?"(\.{1,2}\/[^"]+)"/g)) {
      imported.add(join(dirname(path), target.replace(/\.js$/, ".ts")));
    }
  }
  const dead = all.filter((path) => !imported.has(path) && !ENTRY_POINTS.test(path));
  assert.deepEqual(dead, []);
});

test("a TODO names its issue", () => {
  const loose = all.filter((path) => path !== "test/tidy.test.ts" && /TODO(?! #\d)/.test(read(path)));
  assert.deepEqual(loose, []);
});
