// The ioctls of a userfaultfd: reading the argument, the checks in the order of the kernel, the answer.
//
// The argument is memory of the caller; the range in it is memory of the context's process. Reading the argument may
// itself run into a missing page, so everything here is a generator.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../abi/memory.ts";
import { readUnsigned, type Word, writeWord } from "../../abi/structs.ts";
import {
  UFFD_API,
  UFFD_API_IOCTLS,
  UFFD_FEATURE,
  UFFDIO,
  UFFDIO_MOVE_MODE,
  UFFDIO_WRITEPROTECT_MODE,
} from "../../abi/userfaultfd.ts";
import { type Context, FEATURE } from "./context.ts";
import { FILL, type FillProgress, fill, NEEDS_SOURCE } from "./fill.ts";
import { FILL_SHAPES, FillCall, isRange, modeOf } from "./fill-call.ts";
import { movePages } from "./move.ts";
import { rangeIoctls, register, unregister } from "./register.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { copyIn, copyOut } from "./user-access.ts";
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
  if (modes <= 0) return -ERRNO.EINVAL;
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
  if (mode < 0 || mode === (WP | DONTWAKE)) return -ERRNO.EINVAL;
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
  if (mode < 0) return -ERRNO.EINVAL;
  const progress: FillProgress = { done: 0, stop: 0 };
  movePages(ctx, target, source, byteLength, (mode & ALLOW_SRC_HOLES) !== 0, progress);
  const { done, stop } = progress;
  if (!(yield* writeWords(thread, field, [done > 0 ? done : stop]))) return -ERRNO.EFAULT;
  if (done === 0) return stop;
  if ((mode & DONTWAKE) === 0) ctx.wake(target, target + done);
  return done === byteLength ? 0 : -ERRNO.EAGAIN;
}

function* fillIoctl(thread: SoftwareThread, ctx: Context, at: number, kind: number): Blocking<number> {
  const { words, field } = FILL_SHAPES[kind]!;
  if (ctx.changing > 0) return yield* refuseChanging(thread, at + field);
  const view = yield* readStruct(thread, at, words);
  if (view === undefined) return -ERRNO.EFAULT;
  const call = new FillCall(ctx, thread.process.space);
  const refused = call.prepare(ctx, kind, view, 0);
  if (refused !== 0) return refused;
  yield* fillAll(thread, call);
  if (!(yield* writeWords(thread, at + field, [call.output]))) return -ERRNO.EFAULT;
  return call.finish();
}

/** Fills as far as it goes, reading the source page by page where it is not resident. */
function* fillAll(thread: SoftwareThread, call: FillCall): Blocking<void> {
  for (;;) {
    fill(call, call);
    if (call.stop !== NEEDS_SOURCE) return;
    const bytes = new Uint8Array(call.ctx.space.vmas.at(call.target)?.huge ? HUGE_PAGE_SIZE : PAGE_SIZE);
    const address = call.sourceAddress + call.done;
    if ((yield* copyIn(thread.process.space, thread, address, bytes)) < bytes.length) {
      call.stop = -ERRNO.EFAULT;
      return;
    }
    // It may have slept: everything is looked up again.
    call.adopt(address, bytes);
  }
}
