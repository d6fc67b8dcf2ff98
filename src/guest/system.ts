// Where a guest can live on this host: in a process of the real kernel, or in the software implementation.

import type { System } from "../abi/system.ts";
import { MinorfaultError } from "../base/errors.ts";
import { local } from "../linux/index.ts";
import { SystemAddressSpace } from "../uffd/address-space.ts";
import { type OpenWay, openDescriptor } from "../uffd/open.ts";
import { createSystem } from "../uffd/software/index.ts";
import { KernelSystem } from "./process/index.ts";

export interface GuestHost {
  readonly implementation: "kernel" | "software";
  /** One sentence: why it is this one. */
  readonly why: string;
  readonly system: System;
  /** The memory of a fresh process, for a guest. */
  spawn(): SystemAddressSpace;
  /** Ends every process of it. */
  close(): void;
  [Symbol.dispose](): void;
}

const WAYS: readonly OpenWay[] = ["device", "syscall", "user-mode-only"];
const IMPLEMENTATIONS: readonly string[] = ["auto", "kernel", "software"];

/**
 * Picks Linux's userfaultfd where this process may use it, else the software implementation.
 *
 * @throws ERR_UFFD_MISSING when "kernel" was asked for and can't be had; the message says why.
 */
export function openGuestHost(implementation: "auto" | "kernel" | "software" = "auto"): GuestHost {
  if (!IMPLEMENTATIONS.includes(implementation)) {
    const names = IMPLEMENTATIONS.join(", ");
    const message = `An implementation is one of ${names}, got ${String(implementation)}`;
    throw new MinorfaultError("ERR_BAD_ARGUMENT", message);
  }
  if (implementation === "software") return host(createSystem(), "it was asked for");
  const refusal = kernelRefusal();
  if (refusal === undefined) return host(new KernelSystem(), "this process may open Linux's userfaultfd");
  if (implementation === "kernel")
    throw new MinorfaultError("ERR_UFFD_MISSING", `No userfaultfd: ${refusal}`);
  return host(createSystem(), refusal);
}

/** Why the kernel's implementation can't be used here; undefined when it can. */
export function kernelRefusal(): string | undefined {
  if (process.platform !== "linux") return `userfaultfd is Linux's, and this is ${process.platform}`;
  if (process.arch !== "x64") return `guest processes are written for x64, and this is ${process.arch}`;
  try {
    const opens = WAYS.some((way) => {
      const fd = openDescriptor(local, way, true);
      if (fd >= 0) local.call("close", fd);
      return fd >= 0;
    });
    return opens ? undefined : "every way of opening a userfaultfd is refused (minorfault doctor says why)";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function host(system: System, why: string): GuestHost {
  const { name: implementation } = system;
  const close = (): void => system.close();
  return {
    implementation,
    why,
    system,
    spawn: () => new SystemAddressSpace(implementation, system.spawnProcess()),
    close,
    [Symbol.dispose]: close,
  };
}
