// Machines as tests describe them, and the command line that QEMU needs for them. One that a saved state is loaded into
// gets the same line as the one that it was saved from.

import { cpus } from "node:os";
import type { LinuxGuest } from "../guest/linux-guest.ts";

export interface MachineSpec {
  /** With its version: an alias such as "pc" means another machine in another QEMU. */
  readonly type: "pc-i440fx-7.2" | "pc-q35-7.2" | "microvm";
  readonly memoryMiB: number;
  /** MiB that the guest fills with its pattern. */
  readonly fillMiB: number;
  readonly cpus?: number;
  /** RAM of 2 MiB pages. */
  readonly hugePages?: boolean;
  /** A raw file, as a virtio disk. */
  readonly disk?: string;
  /** A virtio network card on QEMU's user network. */
  readonly network?: boolean;
  /** Firmware alone, under KVM: the only thing that nested virtualization runs well. */
  readonly firmwareOnly?: boolean;
}

const RAM_ID = "ram";

export function commandLine(spec: MachineSpec, guest: LinuxGuest | undefined): string[] {
  const isMicrovm = spec.type === "microvm";
  const bus = isMicrovm ? "device" : "pci";
  const machine = [spec.type, ...(isMicrovm ? ["acpi=on", "rtc=on"] : [])];
  const memory = spec.hugePages
    ? ["-object", `memory-backend-memfd,id=${RAM_ID},size=${spec.memoryMiB}M,hugetlb=on,hugetlbsize=2M`]
    : [];
  if (spec.hugePages) machine.push(`memory-backend=${RAM_ID}`);
  return [
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-machine", machine.join(","), "-m", `${spec.memoryMiB}M`, "-smp", String(spec.cpus ?? 1)],
    ...(spec.firmwareOnly ? ["-accel", "kvm", "-cpu", "kvm64"] : ["-accel", "tcg", "-cpu", "max"]),
    ...memory,
    ...(spec.disk === undefined
      ? []
      : [
          "-drive",
          `if=none,id=disk,format=raw,file=${spec.disk}`,
          "-device",
          `virtio-blk-${bus},drive=disk`,
        ]),
    ...(spec.network ? ["-netdev", "user,id=net", "-device", `virtio-net-${bus},netdev=net`] : []),
    ...(guest === undefined ? [] : bootOptions(guest, spec)),
  ];
}

function bootOptions({ kernel, initrd }: LinuxGuest, { type, fillMiB }: MachineSpec): string[] {
  // A microvm has no clock but the PIT to measure the processor's by, which goes wrong on a host that is busy; and what
  // TCG counts is the host's.
  const clock = type === "microvm" ? ` tsc_early_khz=${hostKhz()}` : "";
  // Whether the timer ticks Linux finds out by waiting for some ticks, and panics: under TCG on a busy host none may come in
  // that time.
  const append = `console=ttyS0 quiet panic=-1 no_timer_check fill=${fillMiB}${clock}`;
  return ["-kernel", kernel, "-initrd", initrd, "-append", append];
}

function hostKhz(): number {
  return Math.round((cpus()[0]?.speed || 2000) * 1000);
}
