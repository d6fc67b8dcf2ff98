// The README's example is a program: it is run as it stands there.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const readme = readFileSync(join(root, "README.md"), "utf8");
const programs = [...readme.matchAll(/^```js run\n(.*?)^```$/gms)].map(([, program = ""]) => program);

test("the README's example runs and reads what its handler put there", () => {
  assert.equal(programs.length, 1);
  const [program = ""] = programs;
  // "import ... from 'minorfault'" finds this very package from inside its own folder.
  const file = join(root, "dist", `readme-${process.pid}.mjs`);
  writeFileSync(file, program);
  try {
    const run = spawnSync(process.execPath, [file], { encoding: "utf8", timeout: 60_000 });
    assert.equal(run.status, 0, run.stderr);
    assert.match(run.stdout, /^(kernel|software), because .+\nthe thread read 42\n$/);
  } finally {
    rmSync(file);
  }
});

test("every relative link of the documents leads to a file", () => {
  for (const document of ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/cases.md"]) {
    const text = readFileSync(join(root, document), "utf8");
    for (const [, target = ""] of text.matchAll(/\]\((?!https?:)([^)#]+)/g)) {
      assert.ok(existsSync(join(root, dirname(document), target)), `${document}: ${target}`);
    }
  }
});
