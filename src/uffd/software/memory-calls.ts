// The system calls about memory: arguments to numbers, and on to the file that does it.

import { ERRNO } from "../../abi/errno.ts";
import { HUGE_PAGE_SIZE, MAP, MFD, O, PAGE_SIZE, TASK_SIZE } from "../../abi/memory.ts";
import { roundUp } from "../../base/range.ts";
import { advise, isInCore, lockMemory, punchHole, unlockMemory } from "./advice.ts";
import { type Backing, mapMemory, protectMemory, unmapMemory } from "./mapping.ts";
import { MemoryFile } from "./memory-file.ts";
import { remapMemory } from "./remap.ts";
import type { Blocking } from "./scheduler.ts";
import { SharedObject } from "./shared-object.ts";
import { argument, type Call, readString } from "./syscall.ts";
import type { SoftwareThread } from "./thread.ts";
import { copyOut } from "./user-access.ts";

const { fd, long, word } = argument;

const MAP_TYPE = 0x0f;
const KNOWN_TYPES: ReadonlySet<number> = new Set([MAP.SHARED, MAP.PRIVATE, 3, MAP.DROPPABLE]);
const MFD_NAME_MAX = 249;
const MFD_HUGE_SHIFT = 26;
/** Pages that mincore tells at once. */
const MINCORE_PIECE = 4096;

function* mmap(thread: SoftwareThread, args: Parameters<Call>[1]): Blocking<number> {
  const { system } = thread.process;
  const flags = fd(args, 3);
  const byteLength = word(args, 1);
  const offset = word(args, 5);
  const type = flags & MAP_TYPE;
  const shared = type === MAP.SHARED || type === 3;
  if (offset % PAGE_SIZE !== 0) return -ERRNO.EINVAL;
  const found = findBacking(thread, args, flags, shared);
  if (typeof found === "number") return found;
  const anonymousHuge = (flags & MAP.ANONYMOUS) !== 0 && (flags & MAP.HUGETLB) !== 0;
  // A length that leaves 64 bits when it is rounded up to huge pages is a length of nothing.
  const isNothing = byteLength === 0 || (anonymousHuge && roundUp(byteLength, HUGE_PAGE_SIZE) >= 2 ** 64);
  if (isNothing) return -ERRNO.EINVAL;
  if (byteLength > TASK_SIZE) return -ERRNO.ENOMEM;
  if (!KNOWN_TYPES.has(type)) return -ERRNO.EINVAL;
  if (type === MAP.DROPPABLE && found.object !== undefined) return -ERRNO.EINVAL;
  const request = { address: word(args, 0), byteLength, prot: fd(args, 2), flags, offset };
  if (!anonymousHuge && !(shared && found.object === undefined)) {
    return yield* mapMemory(thread, { ...request, backing: found });
  }
  // Shared anonymous memory and anonymous huge pages have an object that only the mapping refers to.
  const unit = anonymousHuge ? HUGE_PAGE_SIZE : PAGE_SIZE;
  const kind = anonymousHuge ? "huge" : "shmem";
  const name = anonymousHuge ? "anon_hugepage" : "dev/zero";
  const object = new SharedObject(system.pool, kind, name, roundUp(byteLength, unit));
  const backing = { object, mayWrite: true };
  try {
    return yield* mapMemory(thread, { ...request, offset: 0, backing });
  } finally {
    object.release();
  }
}

function findBacking(
  thread: SoftwareThread,
  args: Parameters<Call>[1],
  flags: number,
  shared: boolean,
): Backing | number {
  if ((flags & MAP.ANONYMOUS) !== 0) return { object: undefined, mayWrite: true };
  const file = thread.process.descriptors.get(fd(args, 4));
  if (file === undefined) return -ERRNO.EBADF;
  const backing = file.backing(shared, fd(args, 2));
  if (typeof backing !== "number" && (flags & MAP.HUGETLB) !== 0 && backing.object?.kind !== "huge") {
    return -ERRNO.EINVAL;
  }
  return backing;
}

function* memfdCreate(thread: SoftwareThread, args: Parameters<Call>[1]): Blocking<number> {
  const flags = fd(args, 1);
  const known = MFD.CLOEXEC | MFD.ALLOW_SEALING | MFD.HUGETLB | 0x18;
  const sizes = 0x3f << MFD_HUGE_SHIFT;
  if ((flags & ~(known | ((flags & MFD.HUGETLB) !== 0 ? sizes : 0))) !== 0) return -ERRNO.EINVAL;
  const name = yield* readString(thread, word(args, 0), MFD_NAME_MAX + 1);
  if (name === undefined) return -ERRNO.EFAULT;
  if (name.length > MFD_NAME_MAX) return -ERRNO.EINVAL;
  const { pool } = thread.process.system;
  const kind = (flags & MFD.HUGETLB) !== 0 ? "huge" : "shmem";
  const file = new MemoryFile(O.RDWR, new SharedObject(pool, kind, `memfd:${name}`, 0), pool);
  return thread.process.descriptors.add(file, (flags & MFD.CLOEXEC) !== 0);
}

function* mincore(thread: SoftwareThread, args: Parameters<Call>[1]): Blocking<number> {
  const { space } = thread.process;
  const start = word(args, 0);
  const count = Math.ceil(word(args, 1) / PAGE_SIZE);
  if (start % PAGE_SIZE !== 0) return -ERRNO.EINVAL;
  if (!(start + count * PAGE_SIZE <= TASK_SIZE)) return -ERRNO.ENOMEM;
  for (let first = 0; first < count; first += MINCORE_PIECE) {
    const found = new Uint8Array(Math.min(MINCORE_PIECE, count - first));
    for (let index = 0; index < found.length; index++) {
      const address = start + (first + index) * PAGE_SIZE;
      const vma = space.vmas.at(address);
      if (vma === undefined) return -ERRNO.ENOMEM;
      found[index] = isInCore(space, vma, address) ? 1 : 0;
    }
    const told = yield* copyOut(space, thread, word(args, 2) + first, found);
    if (told < found.length) return -ERRNO.EFAULT;
  }
  return 0;
}

/** FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE: the one mode that holes are punched with. */
const PUNCH_HOLE = 3;

/** fallocate(fd, mode, offset, length): pages made, or a hole punched; neither raises an event. */
const fallocate: Call = (thread, args) => {
  const file = thread.process.descriptors.get(fd(args, 0));
  const offset = long(args, 2);
  const length = long(args, 3);
  if (file === undefined) return -ERRNO.EBADF;
  if (offset < 0 || length <= 0) return -ERRNO.EINVAL;
  if (!(file instanceof MemoryFile)) return -ERRNO.ENODEV;
  if (!file.canWrite) return -ERRNO.EBADF;
  const { object } = file;
  const mode = fd(args, 1);
  if (mode === PUNCH_HOLE) {
    const until = Math.floor((offset + length) / object.pageSize) * object.pageSize;
    punchHole(object, roundUp(offset, object.pageSize), until);
    return 0;
  }
  if (mode !== 0) return -ERRNO.EOPNOTSUPP;
  const last = Math.ceil((offset + length) / object.pageSize);
  for (let index = Math.floor(offset / object.pageSize); index < last; index++) {
    if (object.frameFor(index) < 0) return -ERRNO.ENOSPC;
  }
  object.size = Math.max(object.size, offset + length);
  return 0;
};

export const MEMORY_CALLS: Readonly<Record<string, Call>> = {
  mmap,
  munmap: (thread, args) => unmapMemory(thread, word(args, 0), word(args, 1)),
  mprotect: (thread, args) => protectMemory(thread, word(args, 0), word(args, 1), word(args, 2)),
  mremap: (thread, args) =>
    remapMemory(thread, word(args, 0), word(args, 1), word(args, 2), word(args, 3), word(args, 4)),
  madvise: (thread, args) => advise(thread, word(args, 0), word(args, 1), fd(args, 2)),
  mlock: (thread, args) => lockMemory(thread, word(args, 0), word(args, 1)),
  munlock: (thread, args) => unlockMemory(thread.process.space, word(args, 0), word(args, 1)),
  mincore,
  memfd_create: memfdCreate,
  ftruncate: (thread, args) => {
    const file = thread.process.descriptors.get(fd(args, 0));
    return file === undefined ? -ERRNO.EBADF : file.truncate(long(args, 1));
  },
  fallocate,
};
