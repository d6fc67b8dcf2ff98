// Which packs a reader keeps open: those that were used last.

import assert from "node:assert/strict";
import { test } from "node:test";
import { packKey } from "../../src/image/names.ts";
import { PackReader } from "../../src/image/pack-reader.ts";
import { MemorySource } from "../../src/source/index.ts";
import { MemoryStore } from "./memory-store.ts";

const name = (pack: number) => pack.toString(16).padStart(64, "0");

test("a pack that is read again and again without waiting stays open, whatever is opened beside it", async () => {
  const opened: string[] = [];
  const store = Object.assign(new MemoryStore(), {
    openSync(key: string): MemorySource {
      opened.push(key);
      return new MemorySource(new Uint8Array(1));
    },
  });
  const reader = new PackReader(store);
  for (let pack = 1; pack <= 300; pack++) {
    reader.atHand(name(pack));
    reader.atHand(name(0));
  }
  await reader.close();
  assert.equal(opened.filter((key) => key === packKey(name(0))).length, 1);
  assert.equal(opened.length, 301);
});
