// The page of errors is the catalogue's, and every code of the catalogue is thrown somewhere.

import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { errorsPage } from "../../scripts/errors-page.ts";
import { ERRORS, MinorfaultError } from "../../src/base/errors.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));

function sourceText(folder: string): string {
  return readdirSync(folder)
    .map((name) => join(folder, name))
    .map((path) => (statSync(path).isDirectory() ? sourceText(path) : readFileSync(path, "utf8")))
    .join("\n");
}

test("docs/errors.md is what the catalogue makes of it", () => {
  assert.equal(readFileSync(join(root, "docs", "errors.md"), "utf8"), errorsPage());
});

test("every code is used outside the catalogue", () => {
  const text = sourceText(join(root, "src"));
  const unused = Object.keys(ERRORS).filter((code) => text.split(`"${code}"`).length < 2);
  assert.deepEqual(unused, []);
});

test("an error carries its catalogue entry, its cause and where it happened", () => {
  const cause = new Error("below");
  const error = new MinorfaultError("ERR_SYSCALL", "UFFDIO_COPY failed", {
    cause,
    errno: 17,
    operation: "UFFDIO_COPY",
    address: 4096,
  });
  assert.deepEqual(
    [error.code, error.kind, error.exitCode, error.errno, error.operation, error.address, error.cause],
    ["ERR_SYSCALL", "kernel", 1, 17, "UFFDIO_COPY", 4096, cause],
  );
  assert.ok(error.hint.length > 0);
});
