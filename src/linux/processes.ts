// Child processes that Node does not know of: started without copying this process's page tables, waited for without
// the event loop.

import { ERRNO } from "../abi/errno.ts";
import { SIGNAL } from "../abi/memory.ts";
import { writeWord } from "../abi/structs.ts";
import { check } from "./failure.ts";
import { local } from "./local.ts";
import { native } from "./native.ts";
import { poll } from "./poll.ts";

const WNOHANG = 1;

/** Where the arguments of posix_spawn stand in the scratch. */
const AT = { PID: 0, ACTIONS: 64, ARGV: 256, STRINGS: 1024 } as const;

/**
 * Starts a program as a child of the calling thread, with an empty environment, one argument (its name), and the
 * descriptors that are given: target in the child, source here; Node closes all others on exec, standard ones too.
 * posix_spawn(3): vfork underneath, so it returns when
 * exec has succeeded.
 */
export function spawn(path: string, name: string, descriptors: ReadonlyMap<number, number>): number {
  const { posixSpawn, spawnActions } = native();
  const { address, bytes, view } = local.scratch;
  const encoded = [path, name].map((text) => new TextEncoder().encode(`${text}\0`));
  const [pathBytes = new Uint8Array(), nameBytes = new Uint8Array()] = encoded;
  bytes.set(pathBytes, AT.STRINGS);
  bytes.set(nameBytes, AT.STRINGS + pathBytes.byteLength);
  writeWord(view, AT.ARGV, address + AT.STRINGS + pathBytes.byteLength);
  writeWord(view, AT.ARGV + 8, 0);
  const actions = address + AT.ACTIONS;
  const details = { subject: path };
  check(-spawnActions.init(actions), "posix_spawn_file_actions_init", details);
  try {
    for (const [target, source] of descriptors) {
      check(-spawnActions.dup2(actions, source, target), "posix_spawn_file_actions_adddup2", details);
    }
    const empty = address + AT.ARGV + 8;
    const errno = posixSpawn(address + AT.PID, address + AT.STRINGS, actions, 0, address + AT.ARGV, empty);
    check(-errno, "posix_spawn", details);
    return view.getInt32(AT.PID, true);
  } finally {
    spawnActions.destroy(actions);
  }
}

/** The wait status of a child that has ended, which it then gives up; undefined while it lives. */
export function reap(pid: number): number | undefined {
  const { address, view } = local.scratch;
  const result = check(local.call("wait4", pid, address, WNOHANG, 0), "wait4", { subject: `process ${pid}` });
  return result === 0 ? undefined : view.getInt32(0, true);
}

/** Sends a signal; a process that is gone already is no error. */
export function signal(pid: number, number: number = SIGNAL.SIGTERM): void {
  const result = local.call("kill", pid, number);
  if (result !== -ERRNO.ESRCH) check(result, "kill", { subject: `process ${pid}` });
}

/** The same by its descriptor, which never means another process. Answers 0 or an errno: EPERM, ESRCH. */
export function signalByPidfd(pidfd: number, number: number = SIGNAL.SIGTERM): number {
  return -local.call("pidfd_send_signal", pidfd, number, 0, 0);
}

/** Waits until a process has ended, at most so many milliseconds; whether it has. */
export function waitForEnd(pidfd: number, timeoutMs: number): boolean {
  const until = performance.now() + timeoutMs;
  // A signal cuts a wait short: that of another child's end comes just when several are being ended.
  for (let leftMs = timeoutMs; ; leftMs = until - performance.now()) {
    if (poll(local, [{ fd: pidfd }], Math.max(0, leftMs))[0] !== 0) return true;
    if (leftMs <= 0) return false;
  }
}
