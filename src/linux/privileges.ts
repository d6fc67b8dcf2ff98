// What a process may do: its capabilities and its seccomp mode, for the doctor and for tests that drop some.

import type { Caller } from "../abi/system.ts";
import { readText } from "./descriptors.ts";
import { check } from "./failure.ts";

/** Bit numbers of the capabilities that matter to userfaultfd (include/uapi/linux/capability.h). */
export const CAPABILITY = { KILL: 5, SYS_PTRACE: 19, SYS_ADMIN: 21, SYS_RESOURCE: 24, IPC_LOCK: 14 } as const;

/** _LINUX_CAPABILITY_VERSION_3: two 32-bit words of each set. */
const CAPABILITY_VERSION = 0x20080522;

export interface Capabilities {
  readonly effective: bigint;
  readonly permitted: bigint;
  readonly inheritable: bigint;
}

/** capget(2) of the calling thread. */
export function capabilities(caller: Caller): Capabilities {
  const { address, view } = caller.scratch;
  view.setUint32(0, CAPABILITY_VERSION, true);
  view.setUint32(4, 0, true);
  check(caller.call("capget", address, address + 8), "capget");
  // Two records of { effective, permitted, inheritable }: the low words, then the high ones.
  const set = (at: number) =>
    BigInt(view.getUint32(at, true)) | (BigInt(view.getUint32(at + 12, true)) << 32n);
  return { effective: set(8), permitted: set(12), inheritable: set(16) };
}

/** capset(2) of the calling thread: what is dropped from `permitted` is gone for good. */
export function setCapabilities(caller: Caller, sets: Capabilities): void {
  const { address, view } = caller.scratch;
  view.setUint32(0, CAPABILITY_VERSION, true);
  view.setUint32(4, 0, true);
  for (const [index, set] of [sets.effective, sets.permitted, sets.inheritable].entries()) {
    view.setUint32(8 + index * 4, Number(set & 0xffffffffn), true);
    view.setUint32(20 + index * 4, Number((set >> 32n) & 0xffffffffn), true);
  }
  check(caller.call("capset", address, address + 8), "capset");
}

/** Drops one capability from every set of the calling thread. */
export function dropCapability(caller: Caller, capability: number): void {
  const { effective, permitted, inheritable } = capabilities(caller);
  const mask = ~(1n << BigInt(capability));
  setCapabilities(caller, {
    effective: effective & mask,
    permitted: permitted & mask,
    inheritable: inheritable & mask,
  });
}

export function hasCapability(caller: Caller, capability: number): boolean {
  return ((capabilities(caller).effective >> BigInt(capability)) & 1n) === 1n;
}

export interface Confinement {
  readonly seccomp: "off" | "strict" | "filter" | "unknown";
  readonly noNewPrivileges: boolean;
  readonly uid: number;
  /** Effective capabilities. */
  readonly capabilities: bigint;
}

/** What /proc/self/status says of the caller's confinement. */
export function confinement(caller: Caller): Confinement {
  const fields = new Map<string, string>();
  for (const line of readText(caller, "/proc/self/status").split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  const modes = ["off", "strict", "filter"] as const;
  return {
    seccomp: modes[Number(fields.get("Seccomp") ?? Number.NaN)] ?? "unknown",
    noNewPrivileges: fields.get("NoNewPrivs") === "1",
    uid: Number(fields.get("Uid")?.split("\t")[1] ?? -1),
    capabilities: BigInt(`0x${fields.get("CapEff") ?? "0"}`),
  };
}
