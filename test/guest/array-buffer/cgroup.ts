// A memory cgroup of a limit, made for one test: version 1 or 2, whichever this machine has its memory controller in.

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface MemoryCgroup {
  /** To run a command in it: its first words. */
  readonly wrapper: readonly string[];
  /** How often the kernel has killed somebody in it for memory. */
  readonly oomKills: number;
  readonly peakBytes: number;
  remove(): void;
}

const ROOTS = [
  { root: "/sys/fs/cgroup/memory", version: 1 },
  { root: "/sys/fs/cgroup", version: 2 },
  { root: "/sys/fs/cgroup/unified", version: 2 },
] as const;

/** The cgroup, or the reason why there can be none. */
export function makeMemoryCgroup(limitBytes: number): MemoryCgroup | string {
  const reasons: string[] = [];
  for (const { root, version } of ROOTS) {
    const isThere = version === 1 ? existsSync(join(root, "memory.limit_in_bytes")) : hasController(root);
    if (!isThere) continue;
    try {
      return make(root, version, limitBytes);
    } catch (error) {
      reasons.push(`${root}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return reasons.length === 0 ? "there is no memory controller for cgroups here" : reasons.join("; ");
}

function hasController(root: string): boolean {
  const file = join(root, "cgroup.controllers");
  return existsSync(file) && readFileSync(file, "utf8").split(/\s+/).includes("memory");
}

function make(root: string, version: 1 | 2, limitBytes: number): MemoryCgroup {
  const folder = join(root, `minorfault-test-${process.pid}-${Date.now()}`);
  if (version === 2) writeFileSync(join(root, "cgroup.subtree_control"), "+memory");
  mkdirSync(folder);
  const read = (name: string): string => readFileSync(join(folder, name), "utf8");
  const remove = (): void => rmdirSync(folder);
  try {
    writeFileSync(join(folder, version === 1 ? "memory.limit_in_bytes" : "memory.max"), String(limitBytes));
  } catch (error) {
    remove();
    throw error;
  }
  return {
    wrapper: ["sh", "-c", `echo $$ > ${folder}/cgroup.procs && exec "$0" "$@"`],
    get oomKills() {
      const text = read(version === 1 ? "memory.oom_control" : "memory.events");
      return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? Number.NaN);
    },
    get peakBytes() {
      return Number(read(version === 1 ? "memory.max_usage_in_bytes" : "memory.peak"));
    },
    remove,
  };
}
