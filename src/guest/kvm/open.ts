// /dev/kvm, and what to say when it can't be had: the caller falls back to another kind of guest, with this reason.

import { ERRNO, errnoName } from "../../abi/errno.ts";
import { O } from "../../abi/memory.ts";
import type { Caller } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { open } from "../../linux/descriptors.ts";
import { check } from "../../linux/failure.ts";
import { KVM, KVM_API_VERSION } from "./abi.ts";

const DEVICE = "/dev/kvm";

const REASONS = new Map<number, string>([
  [ERRNO.ENOENT, "does not exist: no KVM module is loaded, or the container was not given the device"],
  [ERRNO.ENODEV, "exists, but no KVM module is behind it"],
  [ERRNO.EACCES, "may not be opened by this user: its group is usually kvm"],
  [ERRNO.EPERM, "is forbidden here, usually by the container's device rules"],
]);

/** A virtual machine without anything in it. */
export interface Vm {
  /** Its descriptor in the caller's process. */
  readonly fd: number;
  /** Bytes of struct kvm_run and what follows it, which every CPU's descriptor can be mapped for. */
  readonly runBytes: number;
}

/** Makes a new virtual machine. Throws ERR_UNSUPPORTED_HOST with the reason where that is impossible. */
export function createVm(caller: Caller): Vm {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw unsupported(
      `The small KVM machine is for Linux on x64, this is ${process.platform} on ${process.arch}`,
    );
  }
  const kvm = openDevice(caller);
  try {
    const version = caller.ioctl(kvm, KVM.GET_API_VERSION, 0);
    if (version !== KVM_API_VERSION) {
      throw unsupported(`${DEVICE} speaks version ${version} of its interface, not ${KVM_API_VERSION}`);
    }
    const runBytes = check(caller.ioctl(kvm, KVM.GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    const fd = caller.ioctl(kvm, KVM.CREATE_VM, 0);
    if (fd < 0) throw unsupported(`KVM refused to make a machine (${errnoName(fd)})`, -fd, "KVM_CREATE_VM");
    return { fd, runBytes };
  } finally {
    // The machine keeps what it needs; this descriptor only makes machines.
    caller.call("close", kvm);
  }
}

function openDevice(caller: Caller): number {
  try {
    return open(caller, DEVICE, O.RDWR);
  } catch (cause) {
    const errno = cause instanceof MinorfaultError ? cause.errno : undefined;
    if (errno === undefined) throw cause;
    throw unsupported(
      `${DEVICE} ${REASONS.get(errno) ?? `can not be opened (${errnoName(errno)})`}`,
      errno,
      "openat",
    );
  }
}

function unsupported(message: string, errno?: number, operation?: string): MinorfaultError {
  return new MinorfaultError("ERR_UNSUPPORTED_HOST", message, {
    hint: "Use a plain process as the guest (--guest process); `minorfault doctor` says what this host offers",
    ...(errno === undefined ? {} : { errno }),
    ...(operation === undefined ? {} : { operation }),
  });
}
