// Takes the content of a WebAssembly memory into a file, which `attachMemory` restores lazily.
//
// The file is the memory as it is, with holes where pages are zeros. It gets its name when all of it is on the disk.

import { randomUUID } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import type { WasmMemory } from "./web-assembly.ts";

const PAGE_SIZE = 4096;
/** LIMIT: bytes copied and written at once. */
const PIECE_BYTES = 4 * 1024 * 1024;
const ZEROS = Buffer.alloc(PAGE_SIZE);

export interface SnapshotReport {
  /** Of the memory. */
  readonly byteLength: number;
  /** Of these, bytes that are not in zero pages and were written. */
  readonly bytesWritten: number;
}

/** Writes the memory to a file. No other thread should write to the memory meanwhile: what it writes may be torn. */
export async function snapshotMemory(memory: WasmMemory, path: string): Promise<SnapshotReport> {
  const { byteLength } = memory.buffer;
  const temporary = `${path}.${randomUUID()}.tmp`;
  const file = await open(temporary, "wx", 0o600);
  try {
    let bytesWritten = 0;
    for (let at = 0; at < byteLength; at += PIECE_BYTES) {
      // A copy: the memory may be paged, shared, or grow while the file is written.
      const piece = Buffer.from(new Uint8Array(memory.buffer, at, Math.min(PIECE_BYTES, byteLength - at)));
      for (const [start, until] of runsOfBytes(piece)) {
        await writeAll(file, piece.subarray(start, until), at + start);
        bytesWritten += until - start;
      }
    }
    await file.truncate(byteLength);
    await file.sync();
    await file.close();
    await rename(temporary, path);
    return { byteLength, bytesWritten };
  } catch (error) {
    await file.close().catch(() => undefined);
    await rm(temporary, { force: true });
    throw error;
  }
}

/** The runs of pages that are not all zeros. */
function* runsOfBytes(piece: Buffer): Generator<readonly [start: number, until: number]> {
  let start = -1;
  for (let at = 0; at < piece.byteLength; at += PAGE_SIZE) {
    const isZero = piece.subarray(at, at + PAGE_SIZE).equals(ZEROS);
    if (!isZero && start < 0) start = at;
    if (isZero && start >= 0) {
      yield [start, at];
      start = -1;
    }
  }
  if (start >= 0) yield [start, piece.byteLength];
}

async function writeAll(
  file: Awaited<ReturnType<typeof open>>,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.byteLength - done, position + done);
    done += bytesWritten;
  }
}
