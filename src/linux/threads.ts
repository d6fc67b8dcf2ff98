// Threads and the CPUs that they run on.

import type { Caller } from "../abi/system.ts";
import { MinorfaultError } from "../base/errors.ts";
import { readText } from "./descriptors.ts";
import { check } from "./failure.ts";

/** Bytes of the CPU sets that we pass: 1024 CPUs, as in glibc. */
const CPU_SET_BYTES = 128;

/** The calling thread's id. */
export function threadId(caller: Caller): number {
  return check(caller.call("gettid"), "gettid");
}

/** The CPU on which the calling thread is running now. */
export function currentCpu(caller: Caller): number {
  const { address, view } = caller.scratch;
  check(caller.call("getcpu", address, 0, 0), "getcpu");
  return view.getUint32(0, true);
}

/** The CPUs on which a thread may run (0: the calling one). */
export function affinity(caller: Caller, tid = 0): number[] {
  const { address, bytes } = caller.scratch;
  const count = check(caller.call("sched_getaffinity", tid, CPU_SET_BYTES, address), "sched_getaffinity", {
    subject: `thread ${tid}`,
  });
  const cpus: number[] = [];
  for (let cpu = 0; cpu < count * 8; cpu++) {
    if (((bytes[cpu >> 3] ?? 0) >> (cpu & 7)) & 1) cpus.push(cpu);
  }
  return cpus;
}

/** Confines a thread (0: the calling one) to these CPUs. */
export function setAffinity(caller: Caller, cpus: readonly number[], tid = 0): void {
  const { address, bytes } = caller.scratch;
  bytes.fill(0, 0, CPU_SET_BYTES);
  for (const cpu of cpus) {
    if (!Number.isInteger(cpu) || cpu < 0 || cpu >= CPU_SET_BYTES * 8) {
      throw new MinorfaultError(
        "ERR_OUT_OF_RANGE",
        `A CPU is a number from 0 to ${CPU_SET_BYTES * 8 - 1}, not ${cpu}`,
      );
    }
    bytes[cpu >> 3] = (bytes[cpu >> 3] ?? 0) | (1 << (cpu & 7));
  }
  check(caller.call("sched_setaffinity", tid, CPU_SET_BYTES, address), "sched_setaffinity", {
    subject: `thread ${tid} to CPUs ${cpus.join(",")}`,
  });
}

/** What /proc says of a thread. */
export interface ThreadStatus {
  /** "R" running or ready, "S" sleeping, "D" sleeping in the kernel, "Z" ended ... */
  readonly state: string;
  /** The CPU it ran on last. */
  readonly cpu: number;
}

/** State and last CPU of a thread of any process, from /proc/PID/task/TID/stat. */
export function threadStatus(caller: Caller, pid: number, tid: number): ThreadStatus {
  const text = readText(caller, `/proc/${pid}/task/${tid}/stat`);
  // The second field is the name in parentheses, and may contain anything, parentheses too.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "?", cpu: Number(fields[36] ?? 0) };
}
