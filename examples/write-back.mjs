// A file changed in memory, and written back: all of what was changed or nothing, whatever happens meanwhile.
//
//   node examples/write-back.mjs

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { open } from "minorfault";

const folder = mkdtempSync(join(tmpdir(), "minorfault-example-"));
const file = join(folder, "counters.bin");
writeFileSync(file, Buffer.alloc(64 * 2 ** 20));

const memory = await open(file, { mode: "write-back" });
const counters = new Uint32Array(memory.buffer);
for (let index = 0; index < counters.length; index += 2 ** 20) counters[index] += 1;
console.log(`before: ${readFileSync(file).readUInt32LE(4 * 2 ** 20)}`);
const { bytesWritten, ranges } = await memory.flush();
console.log(`flushed ${bytesWritten / 1024} KiB in ${ranges} ranges of ${memory.byteLength / 2 ** 20} MiB`);
console.log(`after: ${readFileSync(file).readUInt32LE(4 * 2 ** 20)}`);
await memory.close();
rmSync(folder, { recursive: true });
