#!/usr/bin/env node
// What `minorfault` runs.

import { runProgram } from "./program.ts";

// A reader that has seen enough (`| head`) is no error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}
const code = await runProgram(process.argv.slice(2));
if (code !== undefined) process.exitCode = code;
