// Writing a file so that it is there wholly or not at all, also after a power cut.
//
//   write .put-xyz ── fsync ──▶ rename (or link, which refuses to replace) ──▶ fsync of the folder
//   a crash here leaves a file with a dot,      a crash here leaves the old file, or the new one
//   which is nobody's object
//
// All calls are synchronous: an eviction may wait for a write, a fault for the eviction, and the threads of libuv
// for the fault.

import { randomBytes } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { MinorfaultError } from "../base/errors.ts";
import { beginWriteback } from "../linux/descriptors.ts";
import { local } from "../linux/local.ts";
import { fileCall, fileFailure } from "./file-failure.ts";

/** How names of unfinished files begin. */
export const UNFINISHED = ".put-";

export interface DurableOptions {
  readonly ifAbsent?: boolean;
  readonly signal?: AbortSignal;
  /** Skips both fsyncs: for a cache, whose content may be lost but never be half. Default false. */
  readonly volatile?: boolean;
}

/** Writes `bytes` to `path`, whose folder exists. Answers their number. */
export async function writeDurably(
  path: string,
  bytes: Uint8Array | AsyncIterable<Uint8Array>,
  options: DurableOptions = {},
): Promise<number> {
  const file = new UnfinishedFile(path);
  try {
    if (bytes instanceof Uint8Array) file.write(bytes);
    else {
      for await (const piece of bytes) {
        options.signal?.throwIfAborted();
        file.write(piece);
      }
    }
    options.signal?.throwIfAborted();
    file.finish(options);
    return file.byteLength;
  } finally {
    file.discard();
  }
}

/** A file that nobody sees before it is finished. */
export class UnfinishedFile {
  readonly #path: string;
  readonly #temporary: string;
  #fd: number;
  byteLength = 0;

  constructor(path: string) {
    this.#path = path;
    this.#temporary = join(dirname(path), `${UNFINISHED}${randomBytes(12).toString("hex")}`);
    this.#fd = fileCall("create", path, () => openSync(this.#temporary, "wx", 0o644));
  }

  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.byteLength; ) {
      const count = fileCall("write", this.#path, () =>
        writeSync(this.#fd, bytes, done, bytes.byteLength - done),
      );
      done += count;
      this.byteLength += count;
    }
  }

  /** Has the disk begin with what was written from an offset on, where that can be said: less is left to wait for at the end. */
  beginWriteback(from: number): void {
    if (process.platform === "linux") beginWriteback(local, this.#fd, from, this.byteLength - from);
  }

  /** `path`: its name, where that was not known before; in the same file system. */
  finish(options: DurableOptions, path: string = this.#path): void {
    if (!options.volatile) fileCall("fsync", path, () => fsyncSync(this.#fd));
    if (options.ifAbsent) linkAbsent(this.#temporary, path);
    else fileCall("rename", path, () => renameSync(this.#temporary, path));
    if (!options.volatile) syncFolder(dirname(path));
  }

  /** Closes, and removes what was not finished. */
  discard(): void {
    if (this.#fd === -1) return;
    closeSync(this.#fd);
    this.#fd = -1;
    rmSync(this.#temporary, { force: true });
  }
}

function linkAbsent(from: string, path: string): void {
  try {
    linkSync(from, path);
  } catch (error) {
    const failure = fileFailure(error, "link", path);
    if (failure instanceof MinorfaultError && failure.code === "ERR_STORE_EXISTS") {
      throw new MinorfaultError("ERR_STORE_EXISTS", `${path} is there already`);
    }
    throw failure;
  }
}

/** Makes names in a folder survive a power cut. Not every platform can open a folder; there is nothing to do then. */
export function syncFolder(path: string): void {
  if (process.platform === "win32") return;
  const fd = fileCall("open", path, () => openSync(path, "r"));
  try {
    fileCall("fsync", path, () => fsyncSync(fd));
  } finally {
    closeSync(fd);
  }
}

/** Removes what writers that died have left in one folder for longer than `ageMs`. Answers how many. */
export function removeUnfinished(folder: string, ageMs: number, nowMs: number): number {
  let removed = 0;
  for (const name of fileCall("readdir", folder, () => readdirSync(folder))) {
    if (!name.startsWith(UNFINISHED)) continue;
    const path = join(folder, name);
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined || nowMs - stats.mtimeMs < ageMs) continue;
    rmSync(path, { force: true });
    removed++;
  }
  return removed;
}
