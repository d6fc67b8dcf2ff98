#!/usr/bin/env node
// What `minorfault` runs.

import { runProgram } from "./program.ts";

// A reader that has seen enough (`| head`) is no error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    // A full disk is no bug of ours: no stack trace.
    if (stream === process.stdout)
      process.stderr.write(`error: the result cannot be written: ${error.message}\n`);
    process.exit(1);
  });
}
const code = await runProgram(process.argv.slice(2));
if (code !== undefined) process.exitCode = code;
