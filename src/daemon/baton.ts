// Who serves: of all processes of a server that could, the one that holds the lock of a file in memory. The kernel takes
// the lock from whoever dies, however he dies, when nothing of him runs any more; so there are never two who serve one
// userfaultfd, and nobody has to be alive to say whose turn it is.

import { O } from "../abi/memory.ts";
import { check, local, memfd, open, putBytes, tryLock } from "../linux/index.ts";

const BYTES = 8;

/** A new baton, held by nobody. */
export function makeBaton(): number {
  return memfd(local, "minorfault-baton", BYTES);
}

export class Baton {
  /** Opened anew: a duplicate would share the lock with whoever it came from. */
  readonly #fd: number;

  constructor(descriptor: number) {
    this.#fd = open(local, `/proc/self/fd/${descriptor}`, O.RDWR);
  }

  /** Takes it if nobody has it. */
  take(): boolean {
    if (!tryLock(local, this.#fd)) return false;
    const bytes = new Uint8Array(BYTES);
    new DataView(bytes.buffer).setUint32(0, process.pid, true);
    check(local.call("pwrite64", this.#fd, putBytes(local, 0, bytes), BYTES, 0), "pwrite64");
    return true;
  }

  /** The last who took it; 0: nobody yet. */
  get holder(): number {
    const { address, view } = local.scratch;
    check(local.call("pread64", this.#fd, address, BYTES, 0), "pread64");
    return view.getUint32(0, true);
  }

  close(): void {
    local.call("close", this.#fd);
  }
}
