// One lazy memory, worked on by several threads: each makes its own view of it, one pager brings the pages.
//
//   node examples/threads.mjs

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { attach, open } from "minorfault";

const THREADS = 4;

if (isMainThread) {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-example-"));
  const file = join(folder, "numbers.bin");
  writeFileSync(
    file,
    Uint32Array.from({ length: 2 ** 22 }, (_, index) => index),
  );
  const memory = await open(file, { mode: "private" });
  const handle = memory.share();
  const sums = await Promise.all(
    Array.from({ length: THREADS }, async (_, part) => {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { handle, part } });
      return await new Promise((resolve, reject) => worker.on("message", resolve).on("error", reject));
    }),
  );
  console.log(`the sum is ${sums.reduce((sum, part) => sum + part)}`);
  const numbers = new Uint32Array(memory.buffer);
  const marks = sums.map((_, part) => numbers[(part * numbers.length) / THREADS]);
  console.log(`each thread has left its mark: ${marks.join(" ")}`);
  await memory.close();
  rmSync(folder, { recursive: true });
} else {
  const { handle, part } = workerData;
  const numbers = new Uint32Array(attach(handle).buffer);
  const length = numbers.length / THREADS;
  let sum = 0;
  for (let index = part * length; index < (part + 1) * length; index++) sum += numbers[index];
  // Stays in this memory: the file is not written in mode "private".
  numbers[part * length] = part + 100;
  parentPort.postMessage(sum);
}
