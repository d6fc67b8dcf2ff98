// The linear memory of a WebAssembly instance: taken into a file, and restored lazily in another instance.
// examples/sqlite.mjs does the same with a program of some size.
//
//   node examples/wasm-memory.mjs

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { attachMemory, readGlobals, snapshotMemory, writeGlobals } from "minorfault";

// (module (memory (export "memory") 1 65536) (global (export "top") (mut i32) (i32.const 7))
//   (func (export "load") (param i32) (result i32) (i32.load (local.get 0))))
const code = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 5, 6, 1, 1, 1, 128, 128, 4, 6, 6, 1,
  127, 1, 65, 7, 11, 7, 23, 3, 6, 109, 101, 109, 111, 114, 121, 2, 0, 3, 116, 111, 112, 3, 0, 4, 108, 111, 97,
  100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 40, 2, 0, 11,
]);
const start = () => new WebAssembly.Instance(new WebAssembly.Module(code)).exports;

const folder = mkdtempSync(join(tmpdir(), "minorfault-example-"));
const file = join(folder, "memory");

const first = start();
first.memory.grow(1000);
new Uint32Array(first.memory.buffer).fill(1, 2 ** 20, 2 ** 21);
first.top.value = 42;
const globals = readGlobals(first);
const { byteLength, bytesWritten } = await snapshotMemory(first.memory, file);
console.log(`a memory of ${byteLength / 65536} pages, of which ${bytesWritten / 65536} are not zeros`);

const second = start();
const lazy = await attachMemory(second.memory, file);
writeGlobals(second, globals);
console.log(`load(5 MiB) is ${second.load(5 * 2 ** 20)}, top is ${second.top.value}`);
console.log(`${lazy.resident().pages} of ${lazy.resident().pagesTotal} pages were brought for that`);
await lazy.finish();
console.log(`finished: load(7 MiB) is ${second.load(7 * 2 ** 20)}`);
rmSync(folder, { recursive: true });
