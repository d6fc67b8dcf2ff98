// A file as a source.
//
// Every read is a pread(2) made by the calling thread, straight into the target: `node:fs` makes its synchronous
// calls itself and only hands the asynchronous ones to libuv's four threads. Those may all be standing in faults
// that this very read would end, so they are never used here, not even by `read` (law 3 of ARCHITECTURE.md).
//
// The descriptor pins the inode: a file that is replaced or deleted goes on to be read as it was. Writing into the
// file itself shows in its length or its time of modification, which are compared after each read.

import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";
import { MinorfaultError } from "../base/errors.ts";
import { noteRead } from "./disk-reads.ts";
import { fileCall } from "./file-failure.ts";
import { checkRead, closedSource, type PageSource } from "./page-source.ts";
import { readAhead } from "./read-ahead.ts";

/** LIMIT: bytes of one pread; the kernel itself stops a little below 2 GiB. */
const READ_BYTES_MAX = 2 ** 30;

export class FileSource implements PageSource {
  readonly name: string;
  readonly byteLength: number;
  readonly identity: string;
  readonly #stats: Stats;
  #fd: number;

  private constructor(name: string, fd: number, plain: Stats, stats: BigIntStats) {
    this.name = name;
    this.byteLength = Number(stats.size);
    this.identity = identity(stats);
    this.#stats = plain;
    this.#fd = fd;
  }

  /** Opens a regular file for reading. `name` is for messages, by default the path. */
  static open(path: string, name: string = path): FileSource {
    // O_NONBLOCK so that a FIFO in the file's place cannot hold us; O_CLOEXEC is node's default.
    const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
    const fd = fileCall("open", name, () => openSync(path, flags));
    try {
      // In this order: what is written in between is refused.
      const plain = fileCall("fstat", name, () => fstatSync(fd));
      const stats = fileCall("fstat", name, () => fstatSync(fd, { bigint: true }));
      if (!stats.isFile()) {
        throw new MinorfaultError("ERR_SOURCE_MISSING", `${name} is not a regular file`);
      }
      return new FileSource(name, fd, plain, stats);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.readSync(offset, target);
  }

  readSync(offset: number, target: Uint8Array): void {
    if (this.#fd === -1) throw closedSource(this.name);
    checkRead(this, offset, target.byteLength);
    const began = performance.now();
    const length = this.#fill(offset, target);
    noteRead(performance.now() - began, length);
    const now = fileCall("fstat", this.name, () => fstatSync(this.#fd));
    if (!isSame(now, this.#stats)) {
      throw new MinorfaultError("ERR_SOURCE_CHANGED", `${this.name} was written to while it was open`);
    }
    if (length < target.byteLength) {
      throw new MinorfaultError(
        "ERR_SOURCE_SHORT",
        `${this.name} ended after ${length} of ${target.byteLength} bytes at ${offset}`,
      );
    }
  }

  expect(offset: number, byteLength: number): void {
    if (this.#fd !== -1) readAhead()?.expect(this.#fd, offset, byteLength);
  }

  isCached(offset: number): boolean | undefined {
    return this.#fd === -1 ? undefined : readAhead()?.isCached(this.#fd, offset);
  }

  #fill(offset: number, target: Uint8Array): number {
    let length = 0;
    while (length < target.byteLength) {
      const wanted = Math.min(target.byteLength - length, READ_BYTES_MAX);
      const count = fileCall("read", this.name, () =>
        readSync(this.#fd, target, length, wanted, offset + length),
      );
      if (count === 0) break;
      length += count;
    }
    return length;
  }

  async close(): Promise<void> {
    if (this.#fd === -1) return;
    const fd = this.#fd;
    this.#fd = -1;
    closeSync(fd);
  }
}

function identity(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}`;
}

/** The same at a quarter of the price: asked after every read. Times are exact to less than a microsecond. */
function isSame(a: Stats, b: Stats): boolean {
  return a.size === b.size && a.mtimeMs === b.mtimeMs && a.ino === b.ino && a.dev === b.dev;
}
