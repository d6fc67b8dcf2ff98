// The own process as a `Caller`: system calls through libc, with -errno as their failure.
//
// Each thread of JavaScript (each worker) has its own, with a scratch of its own. What is written to the scratch is
// good for one call: whoever makes the next one may overwrite it.

import type { Word } from "../abi/structs.ts";
import type { Caller, Scratch, SyscallName } from "../abi/system.ts";
import { MinorfaultError } from "../base/errors.ts";
import { type MapMemoryOptions, type Memory, mapMemoryBy } from "./memory.ts";
import { type Native, native } from "./native.ts";
import { syscallNumbers } from "./syscall-numbers.ts";

/** Bytes of scratch: more than any argument that we pass (the largest are paths, messages and lists of regions). */
const SCRATCH_BYTES = 0x10000;

interface Local {
  readonly native: Native;
  readonly numbers: Readonly<Record<SyscallName, number>>;
}

let bound: Local | undefined;
let scratch: Scratch | undefined;

function bind(): Local {
  const functions = native();
  bound = { native: functions, numbers: syscallNumbers(functions.architecture) };
  return bound;
}

/** This process. Nothing native is loaded before the first call. */
export const local: Caller = {
  call(name, ...args) {
    const { native, numbers } = bound ?? bind();
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = args;
    const result = Number(
      native.syscall(numbers[name], word(a), word(b), word(c), word(d), word(e), word(f)),
    );
    return result === -1 ? -native.errno() : result;
  },
  ioctl(fd, request, argument) {
    const { native } = bound ?? bind();
    const result = native.ioctl(fd, request, word(argument));
    return result === -1 ? -native.errno() : result;
  },
  read(fd, address, byteLength) {
    const { native } = bound ?? bind();
    const result = Number(native.read(fd, word(address), byteLength));
    return result === -1 ? -native.errno() : result;
  },
  get scratch() {
    scratch ??= mapMemory(SCRATCH_BYTES);
    return scratch;
  },
  share: (byteLength) => mapMemory(byteLength),
};

/** koffi turns NaN into 0 and cuts fractions off: refuse them here, they are never meant. */
function word(value: Word): Word {
  if (typeof value === "bigint") return BigInt.asIntN(64, value);
  if (Number.isSafeInteger(value)) return value;
  throw new MinorfaultError("ERR_BAD_ARGUMENT", `A system call takes integers, not ${value}`);
}

/** Memory of this process with a view of it: `byteLength` bytes rounded up to whole pages, readable and writable. */
export function mapMemory(byteLength: number, options?: MapMemoryOptions): Memory {
  return mapMemoryBy(local, byteLength, options);
}
