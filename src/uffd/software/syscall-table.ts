// System calls by name.

import { ERRNO } from "../../abi/errno.ts";
import type { Word } from "../../abi/structs.ts";
import type { SyscallName } from "../../abi/system.ts";
import { FILE_CALLS } from "./file-calls.ts";
import { MEMORY_CALLS } from "./memory-calls.ts";
import { PIDFD_CALLS } from "./pidfd.ts";
import { PROCESS_CALLS } from "./process-calls.ts";
import type { Blocking } from "./scheduler.ts";
import type { Call } from "./syscall.ts";
import type { SoftwareThread } from "./thread.ts";

const CALLS: ReadonlyMap<string, Call> = new Map(
  Object.entries({ ...MEMORY_CALLS, ...FILE_CALLS, ...PROCESS_CALLS, ...PIDFD_CALLS }),
);

/** Makes a call: its result, or a computation that may wait for it. ENOSYS for what is not modelled. */
export function performCall(
  thread: SoftwareThread,
  name: SyscallName,
  args: readonly Word[],
): number | Blocking<number> {
  const call = CALLS.get(name);
  return call === undefined ? -ERRNO.ENOSYS : call(thread, args);
}
