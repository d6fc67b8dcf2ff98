// When nothing more happens by itself: every thread is idle, or sleeps and will sleep until somebody does something.
//
// Two looks at all threads with work, in which each was asleep and none has run in between, prove that at one moment
// all of them slept at once. Who sleeps for a page, for an event or for a message is then woken by us only. Who sleeps
// anywhere else in the kernel (a lock, a grace period, a device) is woken by the kernel soon, so that sleep has
// to last before it counts.

import { MinorfaultError } from "../../base/errors.ts";
import type { GuestThread } from "./thread.ts";

/** Kernel functions in which a thread sleeps until somebody else acts, as /proc/.../wchan names them. */
const FOR_GOOD =
  /^(handle_userfault|userfaultfd_event_wait_completion|userfaultfd_read_iter|userfaultfd_ctx_read|futex_wait|futex_do_wait|do_wait|anon_pipe_read|pipe_read|pipe_wait|unix_stream|skb_wait|__skb_wait|do_sys_poll|poll_schedule|do_poll|do_epoll_wait|ep_poll|do_select|hrtimer_nanosleep|sigsuspend|do_sigtimedwait)/;

/** How long a sleep of another kind has to last. */
const ELSEWHERE_MS = 20;
/** How long we wait for one thread before we look at it again. */
const SLICE_MS = 0.05;

export function settle(threads: () => Iterable<GuestThread>, deadlineMs: number): void {
  const begin = performance.now();
  let seen = new Map<GuestThread, string>();
  let since = begin;
  for (;;) {
    const now = new Map<GuestThread, string>();
    let running: GuestThread | undefined;
    let elsewhere = false;
    for (const thread of threads()) {
      if (thread.idle) continue;
      const look = thread.look();
      if (look.kind === "running") running = thread;
      if (look.kind !== "waiting" || thread.idle) continue;
      now.set(thread, look.slices);
      elsewhere ||= !FOR_GOOD.test(look.where);
    }
    const same = running === undefined && equal(seen, now);
    const time = performance.now();
    if (!same) since = time;
    if (same && (now.size === 0 || !elsewhere || time - since >= ELSEWHERE_MS)) return;
    if (running === undefined && now.size === 0) return;
    if (time - begin > deadlineMs) {
      throw new MinorfaultError("ERR_DEADLINE", `Threads were still running after ${deadlineMs} ms`);
    }
    // Not idling in a loop: wait where the end of the operation would wake us.
    if (running !== undefined) running.wait(SLICE_MS);
    else if (elsewhere) [...now.keys()][0]?.wait(1);
    seen = now;
  }
}

function equal(a: ReadonlyMap<GuestThread, string>, b: ReadonlyMap<GuestThread, string>): boolean {
  if (a.size !== b.size) return false;
  for (const [thread, slices] of a) {
    if (b.get(thread) !== slices) return false;
  }
  return true;
}
