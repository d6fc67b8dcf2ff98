// Changing a file all or nothing: what is to be written goes into a journal beside it first.
//
//   file.minorfault-journal.tmp ── all in it, on disk ── rename ──▶ file.minorfault-journal ── into the file, on disk ── unlink
//   a crash: old content                            │ new content: `recoverFile` does the rest at the next open
//
//   0      8            16        24                              end - 32
//  ┌──────┬────────────┬─────────┬──── per range ───────────────┬─────────┐
//  │MFJRN1│ file bytes │ ranges  │ offset, length (8 each), bytes│ SHA-256 │
//  └──────┴────────────┴─────────┴──────────────────────────────┴─────────┘
//
// Applying a journal twice is the same as once. A journal that is there but does not have its hash was not made by a
// crash, because it is complete before it gets its name: that is refused.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { MinorfaultError } from "../../base/errors.ts";
import type { PieceReader } from "./memory-reader.ts";
import type { ByteRange } from "./ranges.ts";

const MAGIC = Buffer.from("MFJRN1\0\0");
const HEAD_BYTES = 24;
const RANGE_BYTES = 16;
const HASH_BYTES = 32;
/** LIMIT: bytes moved at once, and writes under way at once. */
const PIECE_BYTES = 1024 * 1024;
const WRITES_MAX = 32;

/** What has been done, for tests that stop there. */
export type JournalStep = "begun" | "written" | "named" | "applying" | "applied" | "removed";

export function journalPath(path: string): string {
  return `${path}.minorfault-journal`;
}

/** Makes the ranges of the file what `read` says, all of them or none, and durable. */
export async function writeThroughJournal(
  path: string,
  ranges: readonly ByteRange[],
  read: PieceReader,
  onStep: (step: JournalStep) => void = () => undefined,
): Promise<void> {
  const journal = journalPath(path);
  const temporary = `${journal}.${process.pid}.tmp`;
  if (existsSync(journal)) {
    throw new MinorfaultError("ERR_BUSY", `Another flush of ${path} has not ended: ${journal} is there`);
  }
  onStep("begun");
  try {
    await writeJournal(temporary, path, ranges, read);
    onStep("written");
    await rename(temporary, journal);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(path);
  onStep("named");
  await applyJournal(path, onStep);
}

/** Ends a flush that a crash has interrupted. @throws ERR_SOURCE_CORRUPT when its journal is not what a flush wrote */
export async function recoverFile(path: string): Promise<void> {
  if (!existsSync(journalPath(path))) return;
  await checkJournal(path);
  await applyJournal(path, () => undefined);
}

async function writeJournal(
  temporary: string,
  path: string,
  ranges: readonly ByteRange[],
  read: PieceReader,
): Promise<void> {
  const { size } = await stat(path);
  const out = await open(temporary, "w", 0o600);
  try {
    const hash = createHash("sha256");
    let at = 0;
    const block = Buffer.allocUnsafe(PIECE_BYTES);
    let filled = 0;
    const drain = async (): Promise<void> => {
      hash.update(block.subarray(0, filled));
      await writeAll(out, block.subarray(0, filled), at);
      at += filled;
      filled = 0;
    };
    const put = async (byteLength: number, copy: PieceReader): Promise<void> => {
      for (let done = 0; done < byteLength; ) {
        const part = block.subarray(filled, filled + Math.min(byteLength - done, PIECE_BYTES - filled));
        copy(done, part);
        filled += part.byteLength;
        done += part.byteLength;
        if (filled === PIECE_BYTES) await drain();
      }
    };
    const head = Buffer.alloc(HEAD_BYTES);
    MAGIC.copy(head);
    head.writeBigUInt64LE(BigInt(size), 8);
    head.writeBigUInt64LE(BigInt(ranges.length), 16);
    await put(HEAD_BYTES, readerOf(head));
    for (const { offset, byteLength } of ranges) {
      const start = Buffer.alloc(RANGE_BYTES);
      start.writeBigUInt64LE(BigInt(offset), 0);
      start.writeBigUInt64LE(BigInt(byteLength), 8);
      await put(RANGE_BYTES, readerOf(start));
      await put(byteLength, (at, target) => read(offset + at, target));
    }
    await drain();
    await writeAll(out, hash.digest(), at);
    await out.sync();
  } finally {
    await out.close();
  }
}

function readerOf(bytes: Uint8Array): PieceReader {
  return (offset, target) => target.set(bytes.subarray(offset, offset + target.byteLength));
}

async function applyJournal(path: string, onStep: (step: JournalStep) => void): Promise<void> {
  const journal = await open(journalPath(path), "r");
  try {
    const file = await open(path, "r+");
    try {
      let writes: Promise<void>[] = [];
      await forEachPiece(journal, path, async (bytes, offset) => {
        writes.push(writeAll(file, bytes, offset));
        if (writes.length < WRITES_MAX) return;
        await Promise.all(writes);
        writes = [];
        onStep("applying");
      });
      await Promise.all(writes);
      onStep("applying");
      await file.sync();
    } finally {
      await file.close();
    }
  } finally {
    await journal.close();
  }
  onStep("applied");
  await rm(journalPath(path));
  await syncFolder(path);
  onStep("removed");
}

/** Throws ERR_SOURCE_CORRUPT unless the journal is whole and belongs to this file. */
async function checkJournal(path: string): Promise<void> {
  await using journal = await open(journalPath(path), "r");
  const { size } = await journal.stat();
  const hash = createHash("sha256");
  const end = size - HASH_BYTES;
  if (end < HEAD_BYTES) throw damaged(path, "it is too short");
  for (let at = 0; at < end; at += PIECE_BYTES) {
    hash.update(await readAll(journal, at, Math.min(PIECE_BYTES, end - at), path));
  }
  const stored = await readAll(journal, end, HASH_BYTES, path);
  if (!stored.equals(hash.digest())) throw damaged(path, "it does not have its hash");
  const head = await readAll(journal, 0, HEAD_BYTES, path);
  if (!head.subarray(0, 8).equals(MAGIC)) throw damaged(path, "it is of another kind");
  const { size: fileBytes } = await stat(path);
  if (head.readBigUInt64LE(8) !== BigInt(fileBytes)) throw damaged(path, "the file has another length");
}

async function forEachPiece(
  journal: FileHandle,
  path: string,
  use: (bytes: Uint8Array, offset: number) => Promise<void>,
): Promise<void> {
  const { size } = await journal.stat();
  let block: Buffer = Buffer.alloc(0);
  let at = 0;
  // What was handed out stays as it is: a new block is read when the old one has been used up.
  const take = async (byteLength: number): Promise<Buffer> => {
    if (block.byteLength < byteLength) {
      const fresh = await readAll(journal, at, Math.min(2 * PIECE_BYTES, size - HASH_BYTES - at), path);
      if (fresh.byteLength < byteLength) throw damaged(path, "a range leaves it");
      block = fresh;
    }
    const taken = block.subarray(0, byteLength);
    block = block.subarray(byteLength);
    at += byteLength;
    return taken;
  };
  const head = await take(HEAD_BYTES);
  const count = Number(head.readBigUInt64LE(16));
  for (let range = 0; range < count; range++) {
    const start = await take(RANGE_BYTES);
    const offset = Number(start.readBigUInt64LE(0));
    const byteLength = Number(start.readBigUInt64LE(8));
    for (let done = 0; done < byteLength; done += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, byteLength - done);
      await use(await take(length), offset + done);
    }
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.byteLength - done, position + done);
    done += bytesWritten;
  }
}

async function readAll(file: FileHandle, at: number, byteLength: number, path: string): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(byteLength);
  for (let done = 0; done < byteLength; ) {
    const { bytesRead } = await file.read(bytes, done, byteLength - done, at + done);
    if (bytesRead === 0) throw damaged(path, "it ends too early");
    done += bytesRead;
  }
  return bytes;
}

/** A name is durable when its folder is. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), "r");
  await folder.sync().finally(() => folder.close());
}

function damaged(path: string, reason: string): MinorfaultError {
  return new MinorfaultError("ERR_SOURCE_CORRUPT", `The journal of ${path} can't be used: ${reason}`, {
    hint: `Remove ${journalPath(path)} to keep the file as it is now`,
  });
}
