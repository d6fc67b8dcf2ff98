// A memory that a page server fills: it shares what it has read with its other guests, and survives its own crash.
//
//   node examples/served.mjs

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { open } from "minorfault/array-buffer";

const folder = await mkdtemp(join(tmpdir(), "minorfault-served-"));
const file = join(folder, "table");
await writeFile(
  file,
  new Float64Array(1 << 20).map((_, index) => index),
);

// What `minorfault serve` would be in a terminal; it says what it does, one JSON object a line.
const program = fileURLToPath(
  import.meta.resolve("minorfault/package.json").replace("package.json", "dist/src/cli/main.js"),
);
const run = join(folder, "run");
const server = spawn(process.execPath, [program, "serve", `table=${file}`, "--folder", run, "--json"]);
const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
const next = async (name) => {
  for (;;) {
    const { value: line } = await lines.next();
    const event = JSON.parse(line);
    if (event.event === name) return event;
  }
};

const { pid } = await next("serving");
await next("spare");
const memory = await open(file, { server: join(run, "images", "table.sock") });
const table = new Float64Array(memory.buffer);
console.log(`table[123456] is ${table[123456]}`);

process.kill(pid, "SIGKILL");
console.log(`the pager is killed, and table[654321] is ${table[654321]}`);

await memory.close();
server.kill("SIGTERM");
await once(server, "exit");
await rm(folder, { recursive: true });
