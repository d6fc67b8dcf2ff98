// A pidfd: a process held by a descriptor, and the way to take a duplicate of one of its descriptors.

import { ERRNO } from "../../abi/errno.ts";
import { O, POLL } from "../../abi/memory.ts";
import { OpenFile } from "./open-file.ts";
import type { SoftwareProcess } from "./process.ts";
import { argument, type Call } from "./syscall.ts";

const { fd } = argument;

export class PidFile extends OpenFile {
  readonly process: SoftwareProcess;

  constructor(process: SoftwareProcess) {
    super(O.RDWR);
    this.process = process;
  }

  override poll(): number {
    return this.process.exited === undefined ? 0 : POLL.IN;
  }
}

/** pidfd_open(pid, flags). */
const pidfdOpen: Call = (thread, args) => {
  if ((fd(args, 1) & ~O.NONBLOCK) !== 0 || fd(args, 0) <= 0) return -ERRNO.EINVAL;
  const process = thread.process.system.process(fd(args, 0));
  return process === undefined ? -ERRNO.ESRCH : thread.process.descriptors.add(new PidFile(process), true);
};

/** pidfd_getfd(pidfd, fd, flags): asks for the right to trace the process. */
const pidfdGetfd: Call = (thread, args) => {
  if (fd(args, 2) !== 0) return -ERRNO.EINVAL;
  const holder = thread.process.descriptors.get(fd(args, 0));
  if (!(holder instanceof PidFile)) return -ERRNO.EBADF;
  if (holder.process.ending) return -ERRNO.ESRCH;
  if (!thread.process.privileged && holder.process.uid !== thread.process.uid) return -ERRNO.EPERM;
  const file = holder.process.descriptors.get(fd(args, 1));
  return file === undefined ? -ERRNO.EBADF : thread.process.descriptors.add(file.retain(), true);
};

export const PIDFD_CALLS: Readonly<Record<string, Call>> = {
  pidfd_open: pidfdOpen,
  pidfd_getfd: pidfdGetfd,
};
