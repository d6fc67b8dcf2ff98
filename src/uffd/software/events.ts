// Events: what a process does to its memory, told to the context that the memory is registered with.
//
// The originator waits until its event is read. From before the change until it runs again the context counts as
// changing, and refuses fills with EAGAIN.

import { UFFD_EVENT } from "../../abi/userfaultfd.ts";
import type { AddressSpace } from "./address-space.ts";
import { type Context, EventWaiter, FEATURE, type Sleeper } from "./context.ts";
import { releaseContext } from "./register.ts";
import { type Blocking, SLEEP } from "./scheduler.ts";

/** Waits until the event is read or the context is closed. Whoever calls has counted `changing` up. */
export function* deliver(ctx: Context, event: EventWaiter): Blocking<void> {
  try {
    if (ctx.released) abandon(event);
    else ctx.addEvent(event);
    while (!event.done) yield SLEEP.KILLABLE;
  } finally {
    if (!event.done) {
      // Killed meanwhile.
      abandon(event);
      const index = ctx.events.indexOf(event);
      if (index >= 0) ctx.events.splice(index, 1);
    }
    ctx.changing--;
  }
}

function abandon(event: EventWaiter): void {
  event.done = true;
  if (event.child !== undefined) releaseContext(event.child);
}

/** Contexts that want to hear of an unmapped range, one entry for each, already counted as changing. */
export interface UnmapNotice {
  readonly ctx: Context;
  readonly start: number;
  readonly end: number;
}

/** To be called before [start, end) is unmapped. */
export function prepareUnmap(space: AddressSpace, start: number, end: number): UnmapNotice[] {
  const notices: UnmapNotice[] = [];
  for (const { ctx } of space.vmas.overlapping(start, end)) {
    if (ctx === undefined || !ctx.has(FEATURE.EVENT_UNMAP)) continue;
    if (notices.some((notice) => notice.ctx === ctx)) continue;
    ctx.changing++;
    notices.push({ ctx, start, end });
  }
  return notices;
}

/** To be called after: one event for each context, one after the other. */
export function* notifyUnmap(sleeper: Sleeper, notices: readonly UnmapNotice[]): Blocking<void> {
  let told = 0;
  try {
    for (const { ctx, start, end } of notices) {
      told++;
      yield* deliver(ctx, new EventWaiter(UFFD_EVENT.UNMAP, sleeper, [start, end, 0]));
    }
  } finally {
    for (const { ctx } of notices.slice(told)) ctx.changing--;
  }
}

/** MADV_DONTNEED and its like on memory that is registered: true when it had to wait, so that all may have changed. */
export function* notifyRemove(
  sleeper: Sleeper,
  ctx: Context | undefined,
  start: number,
  end: number,
): Blocking<boolean> {
  if (ctx === undefined || !ctx.has(FEATURE.EVENT_REMOVE)) return false;
  ctx.changing++;
  yield* deliver(ctx, new EventWaiter(UFFD_EVENT.REMOVE, sleeper, [start, end, 0]));
  return true;
}

/** After a move of memory: the context has been counted as changing before. */
export function* notifyRemap(
  sleeper: Sleeper,
  ctx: Context,
  from: number,
  to: number,
  byteLength: number,
): Blocking<void> {
  yield* deliver(ctx, new EventWaiter(UFFD_EVENT.REMAP, sleeper, [from, to, byteLength]));
}
