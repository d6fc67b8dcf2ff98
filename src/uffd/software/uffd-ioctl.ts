// The ioctls of a userfaultfd: reading the argument, the checks in the order of the kernel, the answer.
//
// The argument is memory of the caller; the range in it is memory of the context's process. Reading the argument may
// itself run into a missing page, so everything here is a generator.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE, TASK_SIZE } from "../../abi/memory.ts";
import { readUnsigned, type Word, writeWord } from "../../abi/structs.ts";
import {
  UFFD_API,
  UFFD_API_IOCTLS,
  UFFD_FEATURE,
  UFFDIO,
  UFFDIO_COPY_MODE,
  UFFDIO_MOVE_MODE,
  UFFDIO_WRITEPROTECT_MODE,
} from "../../abi/userfaultfd.ts";
import { type Context, FEATURE } from "./context.ts";
import { type CopySource, FILL, type FillProgress, type FillRequest, fill, NEEDS_SOURCE } from "./fill.ts";
import { movePages } from "./move.ts";
import { rangeIoctls, register, unregister } from "./register.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { copyIn, copyOut, isReadable, readResident } from "./user-access.ts";
import { unsigned } from "./words.ts";
import { writeProtect } from "./write-protect.ts";

export function* uffdIoctl(
  thread: SoftwareThread,
  ctx: Context,
  request: number,
  argument: Word,
): Blocking<number> {
  if (request !== UFFDIO.API && !ctx.enabled) return -ERRNO.EINVAL;
  if (!ctx.space.profile.ioctls.has(request)) return -ERRNO.EINVAL;
  const at = unsigned(argument);
  switch (request) {
    case UFFDIO.API:
      return yield* handshake(thread, ctx, at);
    case UFFDIO.REGISTER:
      return yield* registerIoctl(thread, ctx, at);
    case UFFDIO.UNREGISTER:
    case UFFDIO.WAKE:
      return yield* rangeIoctl(thread, ctx, at, request);
    case UFFDIO.WRITEPROTECT:
      return yield* writeProtectIoctl(thread, ctx, at);
    case UFFDIO.MOVE:
      return yield* moveIoctl(thread, ctx, at);
    case UFFDIO.COPY:
      return yield* fillIoctl(thread, ctx, at, FILL.COPY);
    case UFFDIO.ZEROPAGE:
      return yield* fillIoctl(thread, ctx, at, FILL.ZERO);
    case UFFDIO.CONTINUE:
      return yield* fillIoctl(thread, ctx, at, FILL.CONTINUE);
    default:
      return yield* fillIoctl(thread, ctx, at, FILL.POISON);
  }
}

/** The words of a struct in the caller's memory, or undefined (EFAULT). */
function* readStruct(thread: SoftwareThread, at: number, words: number): Blocking<DataView | undefined> {
  const bytes = new Uint8Array(words * 8);
  const read = yield* copyIn(thread.process.space, thread, at, bytes);
  return read === bytes.length ? new DataView(bytes.buffer) : undefined;
}

function* writeWords(thread: SoftwareThread, at: number, words: readonly Word[]): Blocking<boolean> {
  const bytes = new Uint8Array(words.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [index, word] of words.entries()) writeWord(view, index * 8, word);
  return (yield* copyOut(thread.process.space, thread, at, bytes)) === bytes.length;
}

/** The kernel's check of a range: whole pages, at least one, in user space. */
function isRange(start: number, byteLength: number): boolean {
  return (
    start % PAGE_SIZE === 0 &&
    byteLength % PAGE_SIZE === 0 &&
    byteLength > 0 &&
    start < TASK_SIZE &&
    byteLength <= TASK_SIZE - start
  );
}

/** A mode word, if it has no other bits than these; else undefined. */
function modeOf(view: DataView, at: number, known: number): number | undefined {
  const low = view.getUint32(at, true);
  return view.getUint32(at + 4, true) !== 0 || (low & ~known) !== 0 ? undefined : low;
}

function* handshake(thread: SoftwareThread, ctx: Context, at: number): Blocking<number> {
  const { profile } = ctx.space;
  if (ctx.enabled && !profile.secondHandshakeReads) return -ERRNO.EINVAL;
  const view = yield* readStruct(thread, at, 3);
  if (view === undefined) return -ERRNO.EFAULT;
  const features = view.getBigUint64(8, true);
  const refused = checkHandshake(thread, ctx, view.getBigUint64(0, true), features);
  if (refused === 0) {
    const answer = [UFFD_API, profile.features, UFFD_API_IOCTLS];
    if (!(yield* writeWords(thread, at, answer))) return -ERRNO.EFAULT;
    if (!ctx.enabled) {
      ctx.enabled = true;
      ctx.features = Number(features);
      if (ctx.has(FEATURE.WP_ASYNC)) ctx.features |= FEATURE.WP_UNPOPULATED;
      return 0;
    }
  }
  if (!(yield* writeWords(thread, at, [0, 0, 0]))) return -ERRNO.EFAULT;
  return refused === 0 ? -ERRNO.EINVAL : refused;
}

function checkHandshake(thread: SoftwareThread, ctx: Context, api: bigint, features: bigint): number {
  const supported = BigInt(ctx.space.profile.features);
  if (api !== BigInt(UFFD_API)) return -ERRNO.EINVAL;
  const fork = features & supported & UFFD_FEATURE.EVENT_FORK;
  if (fork !== 0n && !thread.process.privileged) return -ERRNO.EPERM;
  return (features & ~supported) !== 0n ? -ERRNO.EINVAL : 0;
}

function* registerIoctl(thread: SoftwareThread, ctx: Context, at: number): Blocking<number> {
  const view = yield* readStruct(thread, at, 3);
  if (view === undefined) return -ERRNO.EFAULT;
  const modes = modeOf(view, 16, ctx.space.profile.registerModes);
  if (modes === undefined || modes === 0) return -ERRNO.EINVAL;
  const start = readUnsigned(view, 0);
  const byteLength = readUnsigned(view, 8);
  if (!isRange(start, byteLength)) return -ERRNO.EINVAL;
  const result = register(ctx, start, start + byteLength, modes);
  if (result !== 0) return result;
  const ioctls = rangeIoctls(ctx.space, start, start + byteLength, modes);
  return (yield* writeWords(thread, at + 24, [ioctls])) ? 0 : -ERRNO.EFAULT;
}

/** UNREGISTER and WAKE. */
function* rangeIoctl(thread: SoftwareThread, ctx: Context, at: number, request: number): Blocking<number> {
  const view = yield* readStruct(thread, at, 2);
  if (view === undefined) return -ERRNO.EFAULT;
  const start = readUnsigned(view, 0);
  const end = start + readUnsigned(view, 8);
  if (!isRange(start, end - start)) return -ERRNO.EINVAL;
  if (request === UFFDIO.UNREGISTER) return unregister(ctx, start, end);
  ctx.wake(start, end);
  return 0;
}

function* writeProtectIoctl(thread: SoftwareThread, ctx: Context, at: number): Blocking<number> {
  const { WP, DONTWAKE } = UFFDIO_WRITEPROTECT_MODE;
  if (ctx.changing > 0) return -ERRNO.EAGAIN;
  const view = yield* readStruct(thread, at, 3);
  if (view === undefined) return -ERRNO.EFAULT;
  const start = readUnsigned(view, 0);
  const end = start + readUnsigned(view, 8);
  if (!isRange(start, end - start)) return -ERRNO.EINVAL;
  const mode = modeOf(view, 16, WP | DONTWAKE);
  if (mode === undefined || mode === (WP | DONTWAKE)) return -ERRNO.EINVAL;
  if (!ctx.space.alive) return -ERRNO.ESRCH;
  if (ctx.changing > 0) return -ERRNO.EAGAIN;
  const protect = (mode & WP) !== 0;
  const result = writeProtect(ctx.space, start, end, protect);
  if (result === 0 && !protect && (mode & DONTWAKE) === 0) ctx.wake(start, end);
  return result;
}

/** The refusal of a fill while the layout changes: the field says so too, whatever else the argument holds. */
function* refuseChanging(thread: SoftwareThread, field: number): Blocking<number> {
  return (yield* writeWords(thread, field, [-ERRNO.EAGAIN])) ? -ERRNO.EAGAIN : -ERRNO.EFAULT;
}

/** What a fill answers: its field, and 0, EAGAIN for a part of it, or why nothing was done. */
function* report(
  thread: SoftwareThread,
  field: number,
  progress: FillProgress,
  byteLength: number,
): Blocking<number> {
  const { done, stop } = progress;
  const written = yield* writeWords(thread, field, [done > 0 ? done : stop]);
  if (!written) return -ERRNO.EFAULT;
  if (done === 0) return stop;
  return done === byteLength ? 0 : -ERRNO.EAGAIN;
}

function* moveIoctl(thread: SoftwareThread, ctx: Context, at: number): Blocking<number> {
  const { DONTWAKE, ALLOW_SRC_HOLES } = UFFDIO_MOVE_MODE;
  const field = at + 32;
  if (ctx.changing > 0) return yield* refuseChanging(thread, field);
  const view = yield* readStruct(thread, at, 4);
  if (view === undefined) return -ERRNO.EFAULT;
  if (thread.process.space !== ctx.space) return -ERRNO.EINVAL;
  const target = readUnsigned(view, 0);
  const source = readUnsigned(view, 8);
  const byteLength = readUnsigned(view, 16);
  if (!isRange(target, byteLength) || !isRange(source, byteLength)) return -ERRNO.EINVAL;
  const mode = modeOf(view, 24, DONTWAKE | ALLOW_SRC_HOLES);
  if (mode === undefined) return -ERRNO.EINVAL;
  const progress: FillProgress = { done: 0, stop: 0 };
  movePages(ctx, target, source, byteLength, (mode & ALLOW_SRC_HOLES) !== 0, progress);
  const result = yield* report(thread, field, progress, byteLength);
  const stored = result === 0 || result === -ERRNO.EAGAIN;
  if (stored && progress.done > 0 && (mode & DONTWAKE) === 0) ctx.wake(target, target + progress.done);
  return result;
}

/** Where the words of a fill's argument stand, and the modes it knows. */
interface FillShape {
  /** Words that are read. */
  readonly words: number;
  readonly length: number;
  readonly mode: number;
  readonly field: number;
  readonly known: number;
}

const { DONTWAKE: FILL_DONTWAKE, WP: FILL_WP } = UFFDIO_COPY_MODE;
const PLAIN = { words: 3, length: 8, mode: 16, field: 24, known: FILL_DONTWAKE };

// DONTWAKE and WP are the same bits in every fill that has them.
const SHAPES: readonly FillShape[] = [
  { words: 4, length: 16, mode: 24, field: 32, known: FILL_DONTWAKE | FILL_WP },
  PLAIN,
  { ...PLAIN, known: FILL_DONTWAKE | FILL_WP },
  PLAIN,
];

function* fillIoctl(thread: SoftwareThread, ctx: Context, at: number, kind: number): Blocking<number> {
  const shape = SHAPES[kind]!;
  if (ctx.changing > 0) return yield* refuseChanging(thread, at + shape.field);
  const view = yield* readStruct(thread, at, shape.words);
  if (view === undefined) return -ERRNO.EFAULT;
  const target = readUnsigned(view, 0);
  const byteLength = readUnsigned(view, shape.length);
  const sourceAddress = kind === FILL.COPY ? readUnsigned(view, 8) : 0;
  if (kind === FILL.COPY && !isSource(sourceAddress, byteLength)) return -ERRNO.EINVAL;
  if (!isRange(target, byteLength)) return -ERRNO.EINVAL;
  const mode = modeOf(view, shape.mode, shape.known & ctx.space.profile.fillModes);
  if (mode === undefined) return -ERRNO.EINVAL;
  if (!ctx.space.alive) return -ERRNO.ESRCH;
  const source = new CallerSource(thread);
  const protect = (mode & FILL_WP) !== 0;
  const request: FillRequest = { kind, ctx, target, byteLength, protect, source, sourceAddress };
  const progress: FillProgress = { done: 0, stop: 0 };
  yield* fillAll(source, request, progress);
  const result = yield* report(thread, at + shape.field, progress, byteLength);
  const stored = result === 0 || result === -ERRNO.EAGAIN;
  if (stored && progress.done > 0 && (mode & FILL_DONTWAKE) === 0) ctx.wake(target, target + progress.done);
  return result;
}

/** COPY's source: whole pages long, anywhere in user space. */
function isSource(address: number, byteLength: number): boolean {
  return (
    byteLength > 0 && byteLength % PAGE_SIZE === 0 && address < TASK_SIZE && byteLength <= TASK_SIZE - address
  );
}

/** Fills as far as it goes, reading the source page by page where it is not resident. */
function* fillAll(source: CallerSource, request: FillRequest, progress: FillProgress): Blocking<void> {
  for (;;) {
    fill(request, progress);
    if (progress.stop !== NEEDS_SOURCE) return;
    const unit = request.ctx.space.vmas.at(request.target)?.huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
    if (!(yield* source.fetch((request.sourceAddress ?? 0) + progress.done, unit))) {
      progress.stop = -ERRNO.EFAULT;
      return;
    }
    // It may have slept: everything is looked up again.
  }
}

/** The caller's memory as the source of COPY. What had to be waited for is a snapshot: it is not read a second time. */
class CallerSource implements CopySource {
  readonly #thread: SoftwareThread;
  #fetchedAt = -1;
  #fetched: Uint8Array | undefined;

  constructor(thread: SoftwareThread) {
    this.#thread = thread;
  }

  isResident(address: number, byteLength: number): boolean {
    return address === this.#fetchedAt || isReadable(this.#thread.process.space, address, byteLength);
  }

  readInto(pool: Uint8Array, at: number, address: number, byteLength: number): void {
    if (address === this.#fetchedAt) pool.set(this.#fetched!, at);
    else readResident(this.#thread.process.space, address, pool, at, byteLength);
  }

  *fetch(address: number, byteLength: number): Blocking<boolean> {
    const bytes = new Uint8Array(byteLength);
    const read = yield* copyIn(this.#thread.process.space, this.#thread, address, bytes);
    if (read < byteLength) return false;
    this.#fetchedAt = address;
    this.#fetched = bytes;
    return true;
  }
}
