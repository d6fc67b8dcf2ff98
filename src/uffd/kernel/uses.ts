// What a host's facts mean for each use of minorfault, and what to change: pure, from a report to advice.

import type { HostReport, WayReport } from "./host.ts";

export interface Use {
  readonly name: string;
  readonly verdict: "yes" | "limited" | "no";
  readonly why: string;
}

export interface Change {
  /** What gets better. */
  readonly gain: string;
  /** A command or a setting. */
  readonly how: string;
}

/** 0: the kernel's userfaultfd with everything; 1: with restrictions; 3: only the software implementation. */
export function hostExitCode(host: HostReport): 0 | 1 | 3 {
  if (!host.ways.some(({ works }) => works)) return 3;
  return stopsKernelAccesses(host) && host.missingFeatures.length === 0 ? 0 : 1;
}

/** Why a way of opening answers what it does. */
export function explainWay({ way, answer }: WayReport, host: HostReport): string {
  const privileges = host.privileges;
  switch (`${way}:${answer}`) {
    case "device:OK":
      return "/dev/userfaultfd may be opened; accesses by the kernel are stopped too";
    case "device:ENOENT":
      return "there is no /dev/userfaultfd: the kernel is older than 6.1, or the container's /dev lacks it";
    case "device:EPERM":
      return "refused by the device rules or the seccomp filter of this container";
    case "device:EACCES":
      return `/dev/userfaultfd exists, and user ${privileges.uid} may not open it`;
    case "syscall:OK":
      return "the system call is allowed; accesses by the kernel are stopped too";
    case "syscall:EPERM":
      return privileges.seccomp === "filter"
        ? "refused by CAP_SYS_PTRACE or by the seccomp filter of this container"
        : `needs CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1 (it is ${privileges.unprivilegedUserfaultfd})`;
    case "user-mode-only:OK":
      return "allowed for everybody; a system call on a missing page gets EFAULT";
    case "user-mode-only:EPERM":
      return "refused by the seccomp filter of this container";
    case "syscall:ENOSYS":
    case "user-mode-only:ENOSYS":
      return "the kernel was built without CONFIG_USERFAULTFD, or a filter hides it";
    default:
      return answer === "OK" ? "works" : `answers ${answer}`;
  }
}

export function usesOf(host: HostReport): Use[] {
  const kernel = host.ways.some(({ works }) => works);
  const everything = stopsKernelAccesses(host);
  const none = kernel ? "" : noKernelReason(host);
  return [
    {
      name: "testing fault handlers on the software implementation",
      verdict: "yes",
      why: "pure TypeScript, runs anywhere",
    },
    {
      name: "paging memory of this process and of its children",
      verdict: kernel ? (everything ? "yes" : "limited") : "no",
      why: !kernel
        ? none
        : everything
          ? "user and kernel accesses wait for their page"
          : "only accesses by user code wait; pages must be resident before a system call touches them",
    },
    {
      name: "serving a userfaultfd that another process hands over (a VMM)",
      verdict: host.native.works ? "yes" : "no",
      why: host.native.works
        ? "a descriptor that is handed over needs no privilege here"
        : (host.native.reason ?? "no system calls"),
    },
    {
      name: "restoring a small KVM machine (minorfault demo)",
      verdict: host.kvm.works && everything ? "yes" : "no",
      why: host.kvm.works
        ? everything
          ? "/dev/kvm works"
          : none || "KVM touches memory from the kernel"
        : (host.kvm.reason ?? ""),
    },
    {
      name: "tracking dirty pages without faults (WP_ASYNC, PAGEMAP_SCAN)",
      verdict: host.features.includes("WP_ASYNC") ? "yes" : "no",
      why: host.features.includes("WP_ASYNC") ? "the kernel has it" : none || "needs Linux 6.7",
    },
    {
      name: "huge pages (hugetlb)",
      verdict: host.hugePages.free > 0 ? "yes" : "no",
      why: `${host.hugePages.free} of ${host.hugePages.total} pages of 2 MiB are free`,
    },
  ];
}

export function changesFor(host: HostReport): Change[] {
  const changes: Change[] = [];
  const add = (gain: string, how: string): void => void changes.push({ gain, how });
  if (host.platform === "linux" && host.native.works && !stopsKernelAccesses(host)) {
    const device = host.ways.find(({ way }) => way === "device");
    if (device?.answer === "EACCES") {
      add("faults on the kernel's accesses too", "setfacl -m u:$USER:rw /dev/userfaultfd (as root)");
    } else {
      add(
        "faults on the kernel's accesses too",
        "sysctl vm.unprivileged_userfaultfd=1, or CAP_SYS_PTRACE for node",
      );
    }
    if (host.privileges.seccomp === "filter") {
      add(
        "userfaultfd in this container",
        "docker run --device /dev/userfaultfd, or a seccomp profile that allows userfaultfd",
      );
    }
  }
  if (!host.native.works && host.platform === "linux") {
    add("the kernel's userfaultfd", "install koffi's platform package: npm ci without --omit=optional");
  }
  if (host.platform === "linux" && host.hugePages.total === 0) {
    add("2 MiB pages (nearly twice as fast bulk installs)", "sysctl vm.nr_hugepages=256");
  }
  if (host.platform === "linux" && !host.kvm.works) {
    add("a real virtual machine in the demo", `make /dev/kvm usable: ${host.kvm.reason ?? ""}`);
  }
  if (host.missingFeatures.length > 0) {
    add(
      host.missingFeatures.join(", "),
      "a newer kernel: `minorfault/abi` CATALOGUE names the release of each",
    );
  }
  return changes;
}

function stopsKernelAccesses(host: HostReport): boolean {
  return host.ways.some(({ way, works }) => works && way !== "user-mode-only");
}

function noKernelReason(host: HostReport): string {
  if (host.platform !== "linux") return `userfaultfd is Linux's; this is ${host.platform}`;
  return host.native.reason ?? "every way of opening a userfaultfd is refused";
}
