// What the tests of this folder need of the machine.

import { existsSync } from "node:fs";

/** For `{ skip }`: false on a machine where system calls can be made, else the reason. */
export const skipUnlessLinux: string | false =
  process.platform === "linux" ? false : `needs Linux, this is ${process.platform}`;

/** The same, and a bare process: x86-64. */
export const skipUnlessBareProcess: string | false =
  skipUnlessLinux || (process.arch === "x64" ? false : `bare processes are x64, this is ${process.arch}`);

/** The same, and userfaultfd by somebody who may use all of it. */
export const skipUnlessUserfaultfd: string | false =
  skipUnlessBareProcess ||
  (process.getuid?.() !== 0
    ? "needs root"
    : existsSync("/proc/sys/vm/unprivileged_userfaultfd")
      ? false
      : "the kernel has no userfaultfd");
