// Waking a thread out of a system call that would wait for ever: by a signal whose handler does nothing.
//
// A thread in read(2) of a userfaultfd can be reached in no other way. The handler is installed without SA_RESTART,
// so the call ends with EINTR; it is a function of libc that only returns, so nothing of ours runs in it. A signal
// that arrives just before the call begins is lost: whoever interrupts does it again until it sees the effect.

import { ERRNO } from "../abi/errno.ts";
import { check, failure } from "./failure.ts";
import { local } from "./local.ts";
import { native } from "./native.ts";

/** A real-time signal: nobody sends these by accident. libc keeps 32 and 33, runtimes like the first ones after. */
const SIGNAL_FIRST = 60;
const SIGNAL_LAST = 50;
const SIG_DFL = 0;
const SIG_UNBLOCK = 1;

// struct sigaction of libc: handler at 0, mask of 128 bytes at 8, flags at 136, restorer at 144.
const ACTION_BYTES = 152;

let installed: number | undefined;

/** Installs the handler (once a process and JavaScript thread); answers the signal's number. */
export function interruptSignal(): number {
  installed ??= install();
  return installed;
}

/** Lets the signal through to the calling thread. */
export function acceptInterrupts(): void {
  const signal = interruptSignal();
  const { address, view } = local.scratch;
  view.setBigUint64(0, 1n << BigInt(signal - 1), true);
  check(local.call("rt_sigprocmask", SIG_UNBLOCK, address, 0, 8), "rt_sigprocmask");
}

/** Interrupts the system call in which a thread of this process waits; false when there is no such thread. */
export function interrupt(tid: number): boolean {
  const result = local.call("tgkill", process.pid, tid, interruptSignal());
  if (result === -ERRNO.ESRCH) return false;
  check(result, "tgkill", { subject: `thread ${tid}` });
  return true;
}

function install(): number {
  const { sigaction, addressOf, errno } = native();
  const { address, bytes, view } = local.scratch;
  const handler = BigInt(addressOf("getppid"));
  for (let signal = SIGNAL_FIRST; signal >= SIGNAL_LAST; signal--) {
    if (sigaction(signal, 0, address) !== 0) throw failure(errno(), "sigaction");
    const present = view.getBigUint64(0, true);
    // Another JavaScript thread of this process has been here before.
    if (present === handler) return signal;
    if (present !== BigInt(SIG_DFL)) continue;
    bytes.fill(0, 0, ACTION_BYTES);
    view.setBigUint64(0, handler, true);
    if (sigaction(signal, address, 0) !== 0) throw failure(errno(), "sigaction");
    return signal;
  }
  throw failure(ERRNO.EBUSY, "sigaction", {
    hint: `Signals ${SIGNAL_LAST} to ${SIGNAL_FIRST} are all taken`,
  });
}
