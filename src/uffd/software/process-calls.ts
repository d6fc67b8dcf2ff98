// The system calls about processes: identity, capabilities, signals, ends, other processes' memory.

import { ERRNO } from "../../abi/errno.ts";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { readUnsigned, type Word, writeWord } from "../../abi/structs.ts";
import { roundDown } from "../../base/range.ts";
import type { AddressSpace } from "./address-space.ts";
import { ACCESS, FAULT, unshare } from "./fault.ts";
import { readTimeout, waitFor } from "./poll.ts";
import { type Blocking, SLEEP } from "./scheduler.ts";
import { argument, type Call, readSegments } from "./syscall.ts";
import { RESTART, type SoftwareThread } from "./thread.ts";
import { copyIn, copyOut, faultIn, readResident, writeResident } from "./user-access.ts";
import type { Segment } from "./user-vector.ts";

const { fd, word } = argument;

// ── credentials ──

const CAPABILITY_VERSION = 0x20080522;
const CAP_SYS_PTRACE = 19;

function* capset(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { process } = thread;
  const header = new Uint8Array(8);
  if ((yield* copyIn(process.space, thread, word(args, 0), header)) < 8) return -ERRNO.EFAULT;
  const data = new Uint8Array(24);
  if ((yield* copyIn(process.space, thread, word(args, 1), data)) < 24) return -ERRNO.EFAULT;
  const view = new DataView(header.buffer);
  if (view.getUint32(0, true) !== CAPABILITY_VERSION) return -ERRNO.EINVAL;
  const pid = view.getInt32(4, true);
  if (pid !== 0 && pid !== thread.tid && pid !== process.pid) return -ERRNO.EPERM;
  const effective = (new DataView(data.buffer).getUint32(0, true) >>> CAP_SYS_PTRACE) & 1;
  if (effective === 1 && !process.privileged) return -ERRNO.EPERM;
  process.privileged = effective === 1;
  return 0;
}

function* capget(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { process } = thread;
  if (word(args, 1) === 0) return 0;
  const mask = process.privileged ? 0xffffffff : 0;
  const data = new Uint32Array([mask, mask, 0, mask >>> 23, mask >>> 23, 0]);
  const told = yield* copyOut(process.space, thread, word(args, 1), new Uint8Array(data.buffer));
  return told < 24 ? -ERRNO.EFAULT : 0;
}

const PR_CAPBSET_DROP = 24;

const setresuid: Call = (thread, args) => {
  const { process } = thread;
  const wanted = [0, 1, 2].map((index) => fd(args, index)).filter((uid) => uid !== -1);
  if (process.uid !== 0 && wanted.some((uid) => uid !== process.uid)) return -ERRNO.EPERM;
  const effective = fd(args, 1);
  if (effective === -1) return 0;
  process.uid = effective;
  if (effective !== 0) process.privileged = false;
  return 0;
};

const RLIMIT_NOFILE = 7;

function* prlimit(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { process } = thread;
  const { descriptors, space } = process;
  const pid = fd(args, 0);
  const resource = fd(args, 1);
  if (resource < 0 || resource > 15) return -ERRNO.EINVAL;
  if (pid !== 0 && pid !== process.pid) return -ERRNO.ESRCH;
  const limit = new Uint8Array(16);
  const view = new DataView(limit.buffer);
  const known = resource === RLIMIT_NOFILE;
  writeWord(view, 0, known ? descriptors.limit : -1);
  writeWord(view, 8, known ? descriptors.limitMax : -1);
  const wish = new Uint8Array(16);
  if (word(args, 2) !== 0 && (yield* copyIn(space, thread, word(args, 2), wish)) < 16) return -ERRNO.EFAULT;
  if (word(args, 3) !== 0 && (yield* copyOut(space, thread, word(args, 3), limit)) < 16) return -ERRNO.EFAULT;
  if (word(args, 2) === 0 || !known) return 0;
  const wanted = new DataView(wish.buffer);
  const soft = readUnsigned(wanted, 0);
  const hard = readUnsigned(wanted, 8);
  if (soft > hard) return -ERRNO.EINVAL;
  if (hard > descriptors.limitMax && !process.privileged) return -ERRNO.EPERM;
  descriptors.limit = soft;
  descriptors.limitMax = hard;
  return 0;
}

// ── signals and ends ──

const SIGNALS = 64;

const kill: Call = (thread, args) => {
  const signal = fd(args, 1);
  if (signal < 0 || signal > SIGNALS) return -ERRNO.EINVAL;
  const target = thread.process.system.process(fd(args, 0));
  if (target === undefined) return -ERRNO.ESRCH;
  target.signal(signal, undefined);
  return 0;
};

const tgkill: Call = (thread, args) => {
  const signal = fd(args, 2);
  if (fd(args, 0) <= 0 || fd(args, 1) <= 0 || signal < 0 || signal > SIGNALS) return -ERRNO.EINVAL;
  const target = thread.process.system.process(fd(args, 0));
  const sleeper = target?.threadById(fd(args, 1));
  if (target === undefined || sleeper === undefined) return -ERRNO.ESRCH;
  target.signal(signal, sleeper);
  return 0;
};

const SA_RESTART = 0x10000000;
const SIGKILL = 9;
const SIGSTOP = 19;

/** rt_sigaction(signal, action, old, mask size): the handler's address matters only as default, ignore or some. */
function* sigaction(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { process } = thread;
  const signal = fd(args, 0);
  if (signal < 1 || signal > SIGNALS || word(args, 3) !== 8) return -ERRNO.EINVAL;
  if (word(args, 1) === 0) return 0;
  if (signal === SIGKILL || signal === SIGSTOP) return -ERRNO.EINVAL;
  const action = new Uint8Array(32);
  if ((yield* copyIn(process.space, thread, word(args, 1), action)) < 32) return -ERRNO.EFAULT;
  const view = new DataView(action.buffer);
  const handler = readUnsigned(view, 0);
  const kind = handler === 0 ? "default" : handler === 1 ? "ignore" : "catch";
  process.setDisposition(signal, { kind, restart: (view.getUint32(8, true) & SA_RESTART) !== 0 });
  return 0;
}

const exitGroup: Call = (thread, args) => {
  thread.process.terminate((fd(args, 0) & 0xff) << 8);
  return 0;
};

/** The end of one thread; of the last one (or of the one that leads), the end of the process. */
const exit: Call = (thread, args) => {
  const others = thread.process.threads.filter((other) => other !== thread && other.state !== "idle");
  if (thread.tid === thread.process.pid && others.length === 0) return exitGroup(thread, args);
  thread.process.scheduler.afterStep(() => thread.kill());
  return 0;
};

const WNOHANG = 1;

function* wait4(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const { process } = thread;
  const pid = fd(args, 0);
  for (;;) {
    const candidates = [...process.children].filter((child) => pid <= 0 || child.pid === pid);
    if (candidates.length === 0) return -ERRNO.ECHILD;
    const ended = candidates.find((child) => child.exited !== undefined);
    if (ended !== undefined) {
      process.children.delete(ended);
      const status = new Uint8Array(new Int32Array([ended.exited!]).buffer);
      const wanted = word(args, 1);
      const told = wanted === 0 ? 4 : yield* copyOut(process.space, thread, wanted, status);
      return told < 4 ? -ERRNO.EFAULT : ended.pid;
    }
    if ((fd(args, 2) & WNOHANG) !== 0) return 0;
    if (thread.signalled) return RESTART;
    process.childEnded.add(thread);
    try {
      yield SLEEP.INTERRUPTIBLE;
    } finally {
      process.childEnded.delete(thread);
    }
  }
}

// ── other processes' memory ──

/** process_vm_readv and process_vm_writev: pid, local vector, its length, remote vector, its length, flags. */
function vmCopy(writes: boolean): Call {
  return function* (thread, args) {
    if (word(args, 5) !== 0) return -ERRNO.EINVAL;
    const local = yield* readSegments(thread, word(args, 1), word(args, 2));
    if (typeof local === "number") return local;
    const remote = yield* readSegments(thread, word(args, 3), word(args, 4));
    if (typeof remote === "number") return remote;
    const target = thread.process.system.process(fd(args, 0));
    if (target === undefined) return -ERRNO.ESRCH;
    return yield* copyBetween(thread, local, target.space, remote, writes);
  };
}

function* copyBetween(
  thread: SoftwareThread,
  local: readonly Segment[],
  other: AddressSpace,
  remote: readonly Segment[],
  writes: boolean,
): Blocking<number> {
  const own = thread.process.space;
  let done = 0;
  for (const [near, far, length] of pieces(local, remote)) {
    const access = writes ? ACCESS.WRITE : ACCESS.READ;
    const bytes = new Uint8Array(length);
    // The remote page is looked up (and waited for) first, then the bytes are copied.
    const resident = (): boolean =>
      writes ? writable(other, far) : readResident(other, far, bytes, 0, length) === length;
    while (!resident()) {
      if ((yield* faultIn(other, thread, roundDown(far, PAGE_SIZE), access)) !== FAULT.DONE) {
        return done > 0 ? done : -ERRNO.EFAULT;
      }
    }
    let copied: number;
    if (writes) {
      copied = yield* copyIn(own, thread, near, bytes);
      writeResident(other, far, bytes, 0, copied);
    } else {
      // The page is held while it is read, and a page that is shared since a fork can't be.
      unshare(other, far);
      copied = yield* copyOut(own, thread, near, bytes);
    }
    done += copied;
    if (copied < length) return done > 0 ? done : -ERRNO.EFAULT;
  }
  return done;
}

const PROBE = new Uint8Array(1);

function writable(space: AddressSpace, address: number): boolean {
  if (readResident(space, address, PROBE, 0, 1) === 0) return false;
  return writeResident(space, address, PROBE, 0, 1) === 1;
}

/** Local address, remote address and length, such that no piece crosses a remote page. */
function* pieces(
  local: readonly Segment[],
  remote: readonly Segment[],
): Generator<readonly [number, number, number], void, void> {
  let index = 0;
  let within = 0;
  for (const { address, byteLength } of remote) {
    for (let at = 0; at < byteLength; ) {
      while (index < local.length && within === local[index]!.byteLength) {
        index++;
        within = 0;
      }
      const here = local[index];
      if (here === undefined) return;
      const far = address + at;
      const length = Math.min(byteLength - at, here.byteLength - within, PAGE_SIZE - (far % PAGE_SIZE));
      yield [here.address + within, far, length];
      at += length;
      within += length;
    }
  }
}

function* nanosleep(thread: SoftwareThread, args: readonly Word[]): Blocking<number> {
  const timeoutMs = yield* readTimeout(thread, word(args, 2));
  if (timeoutMs === undefined) return -ERRNO.EFAULT;
  return yield* waitFor(thread, [], timeoutMs, () => 0);
}

export const PROCESS_CALLS: Readonly<Record<string, Call>> = {
  getpid: (thread) => thread.process.pid,
  gettid: (thread) => thread.tid,
  getcpu: () => 0,
  sched_yield: () => 0,
  capset,
  capget,
  setresuid,
  prctl: (_thread, args) => (fd(args, 0) === PR_CAPBSET_DROP ? 0 : -ERRNO.EINVAL),
  prlimit64: prlimit,
  kill,
  tgkill,
  rt_sigaction: sigaction,
  rt_sigprocmask: () => 0,
  sigaltstack: () => 0,
  exit,
  exit_group: exitGroup,
  wait4,
  process_vm_readv: vmCopy(false),
  process_vm_writev: vmCopy(true),
  clock_nanosleep: nanosleep,
};
