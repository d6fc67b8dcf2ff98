// A raw file as the content of a region: what it holds, and where it holds anything at all.

import { closeSync, openSync } from "node:fs";
import type { Range } from "../base/range.ts";
import { local } from "../linux/local.ts";
import { FileSource } from "../source/file-source.ts";
import type { PageSource } from "../source/page-source.ts";

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;
/** LIMIT: extents; a file with more is read as if the rest had no holes. */
const EXTENTS_MAX = 2 ** 20;

export interface RawFile {
  readonly source: PageSource;
  /** Undefined where the system can't say: then everything is read. */
  readonly extents: readonly Range[] | undefined;
}

export function openRawFile(path: string): RawFile {
  const source = FileSource.open(path);
  return { source, extents: extentsOf(path, source.byteLength) };
}

/** Where the file has data, by lseek(2). */
function extentsOf(path: string, byteLength: number): Range[] | undefined {
  if (process.platform !== "linux") return undefined;
  const fd = openSync(path, "r");
  const seek = (offset: number, whence: number) => local.call("lseek", fd, offset, whence);
  try {
    const extents: Range[] = [];
    for (let at = 0; at < byteLength; ) {
      const start = seek(at, SEEK_DATA);
      if (start === -ENXIO) return extents;
      const hole = start < 0 ? start : seek(start, SEEK_HOLE);
      if (hole < 0) return undefined;
      at = extents.length === EXTENTS_MAX - 1 ? byteLength : Math.min(byteLength, hole);
      extents.push({ start, until: at });
    }
    return extents;
  } catch {
    // No system calls of our own on this host: everything is read.
    return undefined;
  } finally {
    closeSync(fd);
  }
}
