// Files and child processes of these tests.

import assert from "node:assert/strict";
import { type SpawnSyncOptions, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

export const PAGE = 4096;
/** The package, for a program of a child process. */
export const PACKAGE: string = new URL("../../../src/index.js", import.meta.url).href;

/** A folder that goes away after the tests of the file. */
export function ownFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-test-"));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** What the first word of a page of `numberedFile` is. */
export function numberOf(page: number): number {
  return (page * 2654435761 + 12345) >>> 0;
}

/** A file whose pages begin with a number each, and have another at their end. */
export function numberedFile(folder: string, name: string, pages: number, extraBytes = 0): string {
  const bytes = Buffer.alloc(pages * PAGE + extraBytes);
  for (let page = 0; page < pages; page++) {
    bytes.writeUInt32LE(numberOf(page), page * PAGE);
    bytes.writeUInt32LE((numberOf(page) ^ 0xffff) >>> 0, page * PAGE + PAGE - 4);
  }
  bytes.fill(0xee, pages * PAGE);
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** How many of the pages of a numbered file are wrong in `bytes`. */
export function countWrong(buffer: ArrayBuffer): number {
  const words = new Uint32Array(buffer, 0, Math.floor(buffer.byteLength / PAGE) * (PAGE / 4));
  let wrong = 0;
  for (let page = 0; page < words.length / 1024; page++) {
    const number = numberOf(page);
    if (words[page * 1024] !== number || words[page * 1024 + 1023] !== (number ^ 0xffff) >>> 0) wrong++;
  }
  return wrong;
}

export interface ChildResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ChildOptions {
  readonly args?: readonly string[];
  readonly nodeArgs?: readonly string[];
  /** What to run node with, such as setpriv and its arguments. */
  readonly wrapper?: readonly string[];
  readonly deadlineMs?: number;
}

/**
 * Runs a program in a process of its own, with a deadline: `package` and what Node has are imported already.
 * A child that does not end in time is killed, and that is a failure.
 */
export function runChild(program: string, options: ChildOptions = {}): ChildResult {
  const { args = [], nodeArgs = [], wrapper = [], deadlineMs = 60_000 } = options;
  const head = `
    import { open, attach } from ${JSON.stringify(PACKAGE)};
    import * as fs from "node:fs";
    import { Worker } from "node:worker_threads";
    const [path, ...args] = process.argv.slice(1);
    const say = (...values) => fs.writeSync(1, values.map((value) => JSON.stringify(value)).join(" ") + "\\n");
  `;
  const [command = "", ...before] = [...wrapper, process.execPath];
  const all = [...before, ...nodeArgs, "--input-type=module", "-e", head + program, "--", ...args];
  const spawnOptions: SpawnSyncOptions = { encoding: "utf8", timeout: deadlineMs, killSignal: "SIGKILL" };
  const { status, signal, stdout, stderr } = spawnSync(command, all, spawnOptions);
  return { status, signal, stdout: String(stdout).trim(), stderr: String(stderr) };
}

/** The same, and it must have gone well; answers what it said. */
export function say(program: string, options?: ChildOptions): string {
  const result = runChild(program, options);
  assert.deepEqual(
    { status: result.status, signal: result.signal, stderr: result.stderr },
    { status: 0, signal: null, stderr: "" },
  );
  return result.stdout;
}
