// Devices: /dev/null, /dev/zero, and /dev/userfaultfd, which makes userfaultfds for whoever may open it.

import { ERRNO } from "../../abi/errno.ts";
import type { Word } from "../../abi/structs.ts";
import { USERFAULTFD_IOC_NEW } from "../../abi/userfaultfd.ts";
import type { Backing } from "./mapping.ts";
import { OpenFile } from "./open-file.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import { openUserfaultfd } from "./uffd-file.ts";
import type { UserVector } from "./user-vector.ts";
import { int } from "./words.ts";

export class NullFile extends OpenFile {
  // biome-ignore lint/correctness/useYield: never waits
  override *read(_thread: SoftwareThread, _vector: UserVector): Blocking<number> {
    return 0;
  }

  // biome-ignore lint/correctness/useYield: never waits: it does not look at the bytes
  override *write(_thread: SoftwareThread, vector: UserVector): Blocking<number> {
    return vector.remaining;
  }

  override seek(): number {
    return 0;
  }
}

/** Bytes zeroed by one piece of a read. */
const ZEROS = new Uint8Array(65536);

export class ZeroFile extends NullFile {
  override *read(thread: SoftwareThread, vector: UserVector): Blocking<number> {
    let done = 0;
    while (vector.remaining > 0) {
      const length = Math.min(ZEROS.length, vector.remaining);
      const put = yield* vector.put(thread, ZEROS.subarray(0, length));
      done += put;
      if (put < length) return done > 0 ? done : -ERRNO.EFAULT;
    }
    return done;
  }

  override *readAt(thread: SoftwareThread, vector: UserVector): Blocking<number> {
    return yield* this.read(thread, vector);
  }

  /** Nothing: anonymous memory, or, shared, an object that mmap makes. */
  override backing(): Backing {
    return { object: undefined, mayWrite: true };
  }
}

/** /dev/userfaultfd. Who has it open needs no capability any more. */
export class UserfaultfdDevice extends OpenFile {
  // biome-ignore lint/correctness/useYield: never waits
  override *ioctl(thread: SoftwareThread, request: number, argument: Word): Blocking<number> {
    if (request !== USERFAULTFD_IOC_NEW) return -ERRNO.EINVAL;
    // The flags come by value.
    return openUserfaultfd(thread.process, int(argument), true);
  }
}
