// What this host offers for user-space paging: facts only, gathered without changing anything.
//
// Nothing here throws: what can't be found out is part of the answer. What the facts mean is in uses.ts.

import { existsSync, readFileSync } from "node:fs";
import { arch, freemem, platform, release, totalmem } from "node:os";
import { errnoName } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, MAP, O, PAGE_SIZE, PROT } from "../../abi/memory.ts";
import { UFFD_FEATURE, UFFDIO_NR, UFFDIO_REGISTER_MODE } from "../../abi/userfaultfd.ts";
import { CAPABILITY, confinement, local } from "../../linux/index.ts";
import { Ioctls } from "../ioctls.ts";
import { detectFeatures, type OpenWay, openDescriptor, openPath } from "../open.ts";

const WAYS: readonly OpenWay[] = ["device", "syscall", "user-mode-only"];
const KVM_GET_API_VERSION = 0xae00;

export interface WayReport {
  readonly way: OpenWay;
  readonly works: boolean;
  /** Name of the errno, or "OK". */
  readonly answer: string;
}

export interface MemoryReport {
  readonly kind: "private" | "shared" | "huge";
  /** Registration modes that are accepted. */
  readonly modes: readonly string[];
  /** Ioctls that work there once all of these modes are registered. */
  readonly ioctls: readonly string[];
  /** Why there is nothing to report, when there is not. */
  readonly reason?: string;
}

export interface HostReport {
  readonly platform: string;
  readonly arch: string;
  readonly kernel: string;
  readonly node: string;
  readonly pageSize: number;
  /** Whether system calls can be made at all; else why not. */
  readonly native: { readonly works: boolean; readonly reason?: string };
  readonly ways: readonly WayReport[];
  /** Names of the features that the kernel reports; empty without a userfaultfd. */
  readonly features: readonly string[];
  /** Features of Linux 6.18 that this kernel lacks. */
  readonly missingFeatures: readonly string[];
  readonly memory: readonly MemoryReport[];
  readonly hugePages: { readonly total: number; readonly free: number };
  readonly transparentHugePages: string;
  readonly kvm: { readonly works: boolean; readonly reason?: string };
  readonly privileges: {
    readonly uid: number;
    readonly ptrace: boolean;
    readonly seccomp: string;
    readonly noNewPrivileges: boolean;
    /** vm.unprivileged_userfaultfd, or "absent". */
    readonly unprivilegedUserfaultfd: string;
  };
  readonly container: string;
  readonly limits: {
    readonly openFiles: number | undefined;
    readonly mapCountMax: number | undefined;
    readonly memoryBytes: number;
    readonly memoryFreeBytes: number;
    /** Limit of the memory cgroup, where there is one. */
    readonly memoryCgroupBytes: number | undefined;
    /** Bytes of one ArrayBuffer view in this Node. */
    readonly viewBytes: number;
  };
}

export function examineHost(): HostReport {
  const native = attempt(() => local.call("getpid"));
  const ways = native.error === undefined ? WAYS.map(tryWay) : [];
  const way = ways.find(({ works }) => works)?.way;
  const features = way === undefined ? 0n : detectFeatures(local, way);
  const names = (present: boolean) =>
    Object.entries(UFFD_FEATURE)
      // The two announced for 7.2 are no lack of a kernel that came before.
      .filter(([name, bit]) => ((features & bit) !== 0n) === present && (present || !name.startsWith("RWP")))
      .map(([name]) => name);
  return {
    platform: platform(),
    arch: arch(),
    kernel: release(),
    node: process.versions.node,
    pageSize: PAGE_SIZE,
    native: { works: native.error === undefined, ...optionalReason(native.error) },
    ways,
    features: names(true),
    missingFeatures: way === undefined ? [] : names(false),
    memory: way === undefined ? [] : examineMemory(way),
    hugePages: {
      total: readNumber("/proc/sys/vm/nr_hugepages") ?? 0,
      free: readNumber("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") ?? 0,
    },
    transparentHugePages:
      /\[(\w+)\]/.exec(read("/sys/kernel/mm/transparent_hugepage/enabled"))?.[1] ?? "absent",
    kvm: native.error === undefined ? examineKvm() : { works: false, reason: native.error },
    privileges: examinePrivileges(native.error === undefined),
    container: detectContainer(),
    limits: {
      openFiles: openFilesLimit(),
      mapCountMax: readNumber("/proc/sys/vm/max_map_count"),
      memoryBytes: totalmem(),
      memoryFreeBytes: freemem(),
      memoryCgroupBytes: memoryCgroupLimit(),
      viewBytes: Number(process.versions.node.split(".")[0]) >= 22 ? 2 ** 53 - 1 : 2 ** 32,
    },
  };
}

function tryWay(way: OpenWay): WayReport {
  const fd = openDescriptor(local, way, true);
  if (fd >= 0) local.call("close", fd);
  return { way, works: fd >= 0, answer: errnoName(Math.min(fd, 0)) };
}

/** Registers a page of each kind of memory, in every mode, on throw-away descriptors. */
function examineMemory(way: OpenWay): MemoryReport[] {
  const kinds = [
    { kind: "private", flags: MAP.PRIVATE, length: PAGE_SIZE },
    { kind: "shared", flags: MAP.SHARED, length: PAGE_SIZE },
    { kind: "huge", flags: MAP.PRIVATE | MAP.HUGETLB, length: HUGE_PAGE_SIZE },
  ] as const;
  return kinds.map(({ kind, flags, length }) => {
    const protection = PROT.READ | PROT.WRITE;
    const start = local.call("mmap", 0, length, protection, flags | MAP.ANONYMOUS, -1, 0);
    if (start < 0) {
      const hint = kind === "huge" ? "; the pool is empty: raise /proc/sys/vm/nr_hugepages" : "";
      return { kind, modes: [], ioctls: [], reason: `mmap answers ${errnoName(start)}${hint}` };
    }
    try {
      return { kind, ...examineModes(way, start, length) };
    } finally {
      local.call("munmap", start, length);
    }
  });
}

function examineModes(way: OpenWay, start: number, length: number): Pick<MemoryReport, "modes" | "ioctls"> {
  const { MISSING, WP, MINOR } = UFFDIO_REGISTER_MODE;
  const modes: string[] = [];
  let all = 0;
  for (const [name, mode] of Object.entries({ MISSING, WP, MINOR })) {
    if (register(way, start, length, mode) === undefined) continue;
    modes.push(name);
    all |= mode;
  }
  const mask = all === 0 ? 0n : (register(way, start, length, all) ?? 0n);
  const ioctls = Object.entries(UFFDIO_NR)
    .filter(([, nr]) => (mask & (1n << BigInt(nr))) !== 0n)
    .map(([name]) => name);
  return { modes, ioctls };
}

/** The answered set of ioctls; undefined when refused. The descriptor is thrown away, and the registration with it. */
function register(way: OpenWay, start: number, length: number, mode: number): bigint | undefined {
  const fd = openDescriptor(local, way, true);
  if (fd < 0) return undefined;
  const ioctls = new Ioctls(local, fd);
  ioctls.api(0);
  const answer = ioctls.register(start, length, mode);
  local.call("close", fd);
  return answer.errno === 0 ? answer.ioctls : undefined;
}

function examineKvm(): HostReport["kvm"] {
  const fd = openPath(local, "/dev/kvm", O.RDWR | O.CLOEXEC);
  if (fd < 0) return { works: false, reason: `opening /dev/kvm answers ${errnoName(fd)}` };
  const version = local.ioctl(fd, KVM_GET_API_VERSION, 0);
  local.call("close", fd);
  return version === 12 ? { works: true } : { works: false, reason: `KVM API version ${version}, not 12` };
}

function examinePrivileges(native: boolean): HostReport["privileges"] {
  const unprivilegedUserfaultfd = read("/proc/sys/vm/unprivileged_userfaultfd").trim() || "absent";
  const status = native ? attempt(() => confinement(local)).value : undefined;
  return {
    uid: process.getuid?.() ?? -1,
    ptrace: status !== undefined && ((status.capabilities >> BigInt(CAPABILITY.SYS_PTRACE)) & 1n) === 1n,
    seccomp: status?.seccomp ?? "unknown",
    noNewPrivileges: status?.noNewPrivileges ?? false,
    unprivilegedUserfaultfd,
  };
}

function detectContainer(): string {
  if (existsSync("/.dockerenv")) return "docker";
  if (existsSync("/run/.containerenv")) return "podman";
  const known = /(docker|containerd|kubepods|lxc|podman)/.exec(read("/proc/1/cgroup"));
  return known?.[1] ?? "none seen";
}

function openFilesLimit(): number | undefined {
  const match = /^Max open files\s+(\d+)/m.exec(read("/proc/self/limits"));
  return match?.[1] === undefined ? undefined : Number(match[1]);
}

function memoryCgroupLimit(): number | undefined {
  const path = /^(?:0:|\d+:memory):(.*)$/m.exec(read("/proc/self/cgroup"))?.[1] ?? "/";
  for (const file of [
    `/sys/fs/cgroup${path}/memory.max`,
    `/sys/fs/cgroup/memory${path}/memory.limit_in_bytes`,
  ]) {
    const limit = readNumber(file);
    // Version 1 says "no limit" by a number near 2^63.
    if (limit !== undefined && limit < 2 ** 60) return limit;
  }
  return undefined;
}

function read(path: string): string {
  return attempt(() => readFileSync(path, "utf8")).value ?? "";
}

function readNumber(path: string): number | undefined {
  const text = read(path).trim();
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

function attempt<T>(action: () => T): { readonly value?: T; readonly error?: string } {
  try {
    return { value: action() };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

function optionalReason(reason: string | undefined): { readonly reason?: string } {
  return reason === undefined ? {} : { reason };
}
