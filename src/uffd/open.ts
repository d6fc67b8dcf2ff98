// Opens a userfaultfd in a process, by whichever way is allowed there, and says which ways were tried.
//
// The ways, best first: /dev/userfaultfd (Linux 6.1, governed by file permission), the system call (needs
// CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1), and the system call with USER_MODE_ONLY, which everybody may
// use but which can't stop the kernel's own accesses: a system call on a missing page gets EFAULT.

import { errnoName } from "../abi/errno.ts";
import { O } from "../abi/memory.ts";
import type { Caller } from "../abi/system.ts";
import { type FeatureName, UFFD_FEATURE, UFFD_OPEN, USERFAULTFD_IOC_NEW } from "../abi/userfaultfd.ts";
import { MinorfaultError } from "../base/errors.ts";
import { putString } from "../linux/arguments.ts";
import { checkOneOf, checkOptions } from "./arguments.ts";
import { Ioctls } from "./ioctls.ts";
import { SystemUserfaultfd } from "./userfaultfd.ts";

export type OpenWay = "device" | "syscall" | "user-mode-only";

const WAYS: readonly OpenWay[] = ["device", "syscall", "user-mode-only"];
const AT_FDCWD = -100;
const DEVICE = "/dev/userfaultfd";

/** One way that was tried: a positive errno, or 0 when it worked. */
export interface OpenAttempt {
  readonly way: OpenWay;
  readonly errno: number;
}

export interface OpenOptions {
  /** Features that change behaviour (EVENT_*, SIGBUS, THREAD_ID ...). Default none; see ioctl_userfaultfd(2). */
  readonly features?: readonly FeatureName[];
  /** Reads return at once when there is no message. Default true; poll works only then. */
  readonly nonBlocking?: boolean;
  /** Ways to try, in order. Default all three; leave "user-mode-only" out where the kernel touches the memory too. */
  readonly ways?: readonly OpenWay[];
}

/** Opens a raw descriptor by one way: the descriptor, or a negative errno. */
export function openDescriptor(caller: Caller, way: OpenWay, nonBlocking: boolean): number {
  const flags = UFFD_OPEN.CLOEXEC | (nonBlocking ? UFFD_OPEN.NONBLOCK : 0);
  if (way === "syscall") return caller.call("userfaultfd", flags);
  if (way === "user-mode-only") return caller.call("userfaultfd", flags | UFFD_OPEN.USER_MODE_ONLY);
  const device = openPath(caller, DEVICE, O.RDWR | O.CLOEXEC);
  if (device < 0) return device;
  const fd = caller.ioctl(device, USERFAULTFD_IOC_NEW, flags);
  caller.call("close", device);
  return fd;
}

/** openat(2) of an absolute path: the descriptor, or a negative errno. */
export function openPath(caller: Caller, path: string, flags: number): number {
  return caller.call("openat", AT_FDCWD, putString(caller, 0, path), flags, 0);
}

/**
 * Opens a userfaultfd on the memory of the caller's process and does the handshake.
 *
 * @throws ERR_BAD_ARGUMENT for a name that is none, ERR_UFFD_MISSING when the system has none, ERR_UFFD_DENIED when every way is refused,
 *   ERR_FEATURE_MISSING when the system lacks a feature that was asked for.
 */
export function openUserfaultfd(
  implementation: "kernel" | "software",
  caller: Caller,
  options: OpenOptions = {},
): SystemUserfaultfd & { readonly way: OpenWay } {
  checkOptions("openUserfaultfd", options);
  const { features = [], nonBlocking = true, ways = WAYS } = options;
  for (const feature of features) checkOneOf("A feature", feature, Object.keys(UFFD_FEATURE));
  for (const way of ways) checkOneOf("A way of opening", way, WAYS);
  if (ways.length === 0) throw new MinorfaultError("ERR_BAD_ARGUMENT", "No way of opening was allowed");
  const attempts: OpenAttempt[] = [];
  for (const way of ways) {
    const fd = openDescriptor(caller, way, nonBlocking);
    attempts.push({ way, errno: fd < 0 ? -fd : 0 });
    if (fd < 0) continue;
    try {
      const supported = handshake(caller, fd, way, features);
      return Object.assign(new SystemUserfaultfd(implementation, caller, fd, supported), { way });
    } catch (error) {
      caller.call("close", fd);
      throw error;
    }
  }
  throw refusal(attempts);
}

/** Everything that the system supports, asked on a throw-away descriptor: the handshake works once on each. */
export function detectFeatures(caller: Caller, way: OpenWay): bigint {
  const fd = openDescriptor(caller, way, true);
  if (fd < 0) throw refusal([{ way, errno: -fd }]);
  const answer = new Ioctls(caller, fd).api(0);
  caller.call("close", fd);
  return answer.errno === 0 ? answer.features : 0n;
}

function handshake(caller: Caller, fd: number, way: OpenWay, features: readonly FeatureName[]): bigint {
  const wanted = features.reduce((mask, name) => mask | UFFD_FEATURE[name], 0n);
  const answer = new Ioctls(caller, fd).api(wanted);
  if (answer.errno === 0) return answer.features;
  const supported = detectFeatures(caller, way);
  const missing = features.filter((name) => (supported & UFFD_FEATURE[name]) === 0n);
  const what = missing.length > 0 ? `lacks ${missing.join(", ")}` : `answered ${errnoName(answer.errno)}`;
  throw new MinorfaultError("ERR_FEATURE_MISSING", `The userfaultfd handshake failed: the system ${what}`, {
    errno: answer.errno,
    operation: "UFFDIO_API",
  });
}

function refusal(attempts: readonly OpenAttempt[]): MinorfaultError {
  const tried = attempts.map(({ way, errno }) => `${way}: ${errnoName(errno)}`).join(", ");
  const missing = attempts.every(({ errno }) => ["ENOSYS", "ENOENT"].includes(errnoName(errno)));
  return new MinorfaultError(
    missing ? "ERR_UFFD_MISSING" : "ERR_UFFD_DENIED",
    `No userfaultfd could be opened (${tried})`,
    { operation: "userfaultfd", ...(attempts[0] === undefined ? {} : { errno: attempts[0].errno }) },
  );
}
