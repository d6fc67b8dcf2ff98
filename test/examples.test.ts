// The examples are programs: each is run as it stands there, and says what it should.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { skipUnlessUserfaultfd } from "./linux/host.ts";

const folder = fileURLToPath(new URL("../../examples", import.meta.url));
const hasSqlite = existsSync(join(dirname(folder), "node_modules", "sql.js"));

interface Example {
  readonly args?: readonly string[];
  readonly says: RegExp;
  readonly skip?: string | false;
}

const EXAMPLES: Readonly<Record<string, Example>> = {
  "array-buffer.mjs": {
    says: /^64 MiB by userfaultfd: .+\nfloats\[1234567\] is 567, and \d+ KiB are in memory\ntheir mean is 499\.49\d+\nafter all of them at most 16 MiB are in memory: true\n$/,
  },
  "process.mjs": { says: /^page 77 of the guest begins with 77\n1 fault, 16 pages installed\n$/ },
  "served.mjs": { says: /^table\[123456\] is 123456\nthe pager is killed, and table\[654321\] is 654321\n$/ },
  "sqlite.mjs": {
    args: ["20000"],
    says: /^20000 rows.+\nmade by SQL +\d+ ms.+item 4711 5888\.75\n.+item 4711 5888\.75\nmemory attached.+item 4711 5888\.75\nattached .+ × sooner than made/,
    skip: hasSqlite ? false : "sql.js is not installed",
  },
  "threads.mjs": {
    says: /^the sum is 8796090925056\neach thread has left its mark: 100 101 102 103\n$/,
  },
  "wasm-memory.mjs": {
    says: /^a memory of 1001 pages, of which 64 are not zeros\nload\(5 MiB\) is 1, top is 42\n\d+ of 16016 pages were brought for that\nfinished: load\(7 MiB\) is 1\n$/,
  },
  "write-back.mjs": { says: /^before: 0\nflushed 64 KiB in 16 ranges of 64 MiB\nafter: 1\n$/ },
};

for (const [name, { args = [], says, skip = false }] of Object.entries(EXAMPLES)) {
  test(`examples/${name}`, { skip: skip || skipUnlessUserfaultfd }, () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, name), ...args], {
      encoding: "utf8",
      timeout: 60_000,
    });
    assert.equal(status, 0, stderr);
    assert.match(stdout, says);
  });
}

test("every example is run by this test, or by one that is named after it", () => {
  const others = ["images"];
  const forgotten = readdirSync(folder)
    .filter((name) => name.endsWith(".mjs"))
    .filter((name) => !(name in EXAMPLES) && !others.some((other) => name.startsWith(other)));
  assert.deepEqual(forgotten, []);
});
