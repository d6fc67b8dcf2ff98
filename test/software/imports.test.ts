// The software implementation runs in a browser: it may import nothing but itself, base and abi.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("../../../src/uffd/software/", import.meta.url));
const sources = readdirSync(FOLDER)
  .filter((name) => name.endsWith(".ts"))
  .map((name) => ({ name, text: readFileSync(FOLDER + name, "utf8") }));

test("the software implementation imports only itself, base and abi, so nothing of Node", () => {
  assert.ok(sources.length > 20);
  for (const { name, text } of sources) {
    for (const [, from] of text.matchAll(/from "([^"]+)"/g)) {
      assert.match(from ?? "", /^(\.\/|\.\.\/\.\.\/(base|abi)\/)[a-z-]+\.ts$/, `${name} imports ${from}`);
    }
  }
});

test("the software implementation uses no global that only Node has", () => {
  for (const { name, text } of sources) {
    const code = text.replaceAll(/\/\/.*|\/\*[\s\S]*?\*\//g, "");
    assert.doesNotMatch(
      code,
      /\b(Buffer|require|__dirname|setImmediate)\b|\bprocess\.(env|nextTick|hrtime|on)\b/,
      name,
    );
  }
});
