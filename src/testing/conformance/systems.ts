// The two systems that this project has, opened for the suite, and what this host lacks for the real one.
//
// Loaded when they are asked for: the software implementation has to run where koffi does not.

import { accessSync, constants, readFileSync } from "node:fs";
import { errnoName } from "../../abi/errno.ts";
import type { System } from "../../abi/system.ts";
import type { SystemName } from "./parse.ts";
import type { Profile } from "./run.ts";
import type { Need } from "./scope.ts";

export type OpenedSystem = { readonly system: System } | { readonly missing: string };

export async function openSystem(name: SystemName, profile: Profile): Promise<OpenedSystem> {
  if (name === "software") {
    const { createSystem } = await import("../../uffd/software/index.ts");
    return { system: createSystem({ profile }) };
  }
  if (profile !== "linux-6.18") return { missing: `The kernel of this host is no ${profile}` };
  return openKernel();
}

async function openKernel(): Promise<OpenedSystem> {
  let system: System;
  try {
    const { KernelSystem } = await import("../../guest/process/index.ts");
    system = new KernelSystem();
  } catch (error) {
    return { missing: error instanceof Error ? error.message : String(error) };
  }
  // The suite opens descriptors without USER_MODE_ONLY; where that is refused, the kernel is not the one it describes.
  const process = system.spawnProcess();
  const fd = process.call("userfaultfd", 0);
  process.kill();
  if (fd >= 0) return { system };
  system.close();
  return {
    missing: `userfaultfd(2) without USER_MODE_ONLY answers ${errnoName(fd)}: run \`minorfault doctor\``,
  };
}

/** What the host lacks, by need, with the reason that skipped cases carry. Huge pages are pool.ts's affair. */
export function hostLacks(): Map<Need, string> {
  const lacks = new Map<Need, string>();
  try {
    const sysctl = readFileSync("/proc/sys/vm/unprivileged_userfaultfd", "utf8").trim();
    if (sysctl !== "0") lacks.set("restricted", `vm.unprivileged_userfaultfd is ${sysctl} on this host`);
  } catch {
    lacks.set("restricted", "This kernel has no vm.unprivileged_userfaultfd");
  }
  try {
    accessSync("/dev/userfaultfd", constants.R_OK | constants.W_OK);
  } catch {
    lacks.set("device", "/dev/userfaultfd is missing or may not be opened");
  }
  return lacks;
}
