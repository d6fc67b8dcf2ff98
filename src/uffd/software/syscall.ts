// What the system calls have in common: their form, their arguments, strings and vectors in the caller's memory.

import { ERRNO } from "../../abi/errno.ts";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { readUnsigned, type Word } from "../../abi/structs.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { copyIn } from "./user-access.ts";
import { type Segment, UserVector } from "./user-vector.ts";
import { int, signed, unsigned } from "./words.ts";

/** A system call: its result, or a computation that may wait for it. */
export type Call = (thread: SoftwareThread, args: readonly Word[]) => number | Blocking<number>;

/** The arguments of a call, by what they are. Missing ones are 0. */
export const argument = {
  /** An int: a descriptor, flags. */
  fd: (args: readonly Word[], index: number): number => int(args[index] ?? 0),
  /** A signed long. */
  long: (args: readonly Word[], index: number): number => signed(args[index] ?? 0),
  /** An address or a length. */
  word: (args: readonly Word[], index: number): number => unsigned(args[index] ?? 0),
} as const;

/** LIMIT: pieces of one readv or writev (UIO_MAXIOV). */
const SEGMENTS_MAX = 1024;
/** LIMIT: bytes of one read or write (MAX_RW_COUNT). */
const BYTES_MAX = 0x7ffff000;

/** A string that ends in a zero byte, at most so long; undefined: EFAULT. Longer ones come back as `lengthMax` characters. */
export function* readString(
  thread: SoftwareThread,
  address: number,
  lengthMax: number,
): Blocking<string | undefined> {
  const { space } = thread.process;
  const bytes: number[] = [];
  while (bytes.length < lengthMax) {
    // Page by page: what lies behind the string need not be readable.
    const here = address + bytes.length;
    const piece = new Uint8Array(Math.min(lengthMax - bytes.length, PAGE_SIZE - (here % PAGE_SIZE)));
    const read = yield* copyIn(space, thread, here, piece);
    const end = piece.subarray(0, read).indexOf(0);
    bytes.push(...piece.subarray(0, end < 0 ? read : end));
    if (end >= 0) break;
    if (read < piece.length) return undefined;
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

/** An array of struct iovec; a negative errno when it is no such thing. */
export function* readVector(
  thread: SoftwareThread,
  address: number,
  count: number,
): Blocking<UserVector | number> {
  const { space } = thread.process;
  const segments = yield* readSegments(thread, address, count);
  return typeof segments === "number" ? segments : new UserVector(space, segments);
}

export function* readSegments(
  thread: SoftwareThread,
  address: number,
  count: number,
): Blocking<Segment[] | number> {
  if (!(count >= 0 && count <= SEGMENTS_MAX)) return -ERRNO.EINVAL;
  const bytes = new Uint8Array(count * 16);
  const read = yield* copyIn(thread.process.space, thread, address, bytes);
  if (read < bytes.length) return -ERRNO.EFAULT;
  const view = new DataView(bytes.buffer);
  const segments: Segment[] = [];
  let room = BYTES_MAX;
  for (let at = 0; at < bytes.length; at += 16) {
    const byteLength = readUnsigned(view, at + 8);
    if (byteLength >= 2 ** 63) return -ERRNO.EINVAL;
    segments.push({ address: readUnsigned(view, at), byteLength: Math.min(byteLength, room) });
    room -= Math.min(byteLength, room);
  }
  return segments;
}

export function vectorOf(thread: SoftwareThread, address: number, byteLength: number): UserVector {
  return new UserVector(thread.process.space, [{ address, byteLength: Math.min(byteLength, BYTES_MAX) }]);
}
