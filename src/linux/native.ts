// The door to native code: the only place that loads koffi, and it does so at the first use, so that importing
// minorfault works on machines that have neither koffi's binary nor Linux.
//
// SAFETY: every function is declared with integers only; an address is a number, and what lies there is the
// caller's business. No function keeps a pointer to the JavaScript heap: buffers for system calls live in mapped
// memory (src/linux/memory.ts), because an object whose address was taken may move or be freed under the call.

import { createRequire } from "node:module";
import { MinorfaultError } from "../base/errors.ts";
import type { SyscallArchitecture } from "./syscall-numbers.ts";

/** A 64-bit integer as koffi takes and gives it: a number where it is safe, else a bigint. */
type Integer = number | bigint;

export interface Native {
  readonly architecture: SyscallArchitecture;
  readonly syscall: (
    nr: number,
    a: Integer,
    b: Integer,
    c: Integer,
    d: Integer,
    e: Integer,
    f: Integer,
  ) => Integer;
  readonly ioctl: (fd: number, request: Integer, argument: Integer) => number;
  readonly read: (fd: number, address: Integer, byteLength: number) => Integer;
  /** Processes: every argument is an address; the answers are errnos, not -1. */
  readonly posixSpawn: (
    pid: number,
    path: number,
    actions: number,
    a: number,
    argv: number,
    envp: number,
  ) => number;
  readonly spawnActions: {
    readonly init: (actions: number) => number;
    readonly dup2: (actions: number, fd: number, target: number) => number;
    readonly destroy: (actions: number) => number;
  };
  /** libc's, because it knows how a handler returns on this architecture. */
  readonly sigaction: (signal: number, action: number, old: number) => number;
  readonly errno: () => number;
  /** The memory at an address, as it is: the view does not keep it mapped. */
  readonly view: (address: number, byteLength: number) => ArrayBuffer;
  /** Where the bytes of a typed array are, now. */
  readonly addressOfBytes: (bytes: Uint8Array) => number;
  /** The machine code at an address as a function without arguments and result. */
  readonly functionAt: (address: number) => () => void;
  /** The address of a function of libc, 0 when it has none of that name. */
  readonly addressOf: (name: string) => number;
}

interface Koffi {
  load(path: null): { func(prototype: string): (...args: never[]) => unknown };
  proto(result: string, args: readonly string[]): unknown;
  decode(pointer: bigint, type: unknown): unknown;
  errno(): number;
  view(address: number, byteLength: number): ArrayBuffer;
}

let loaded: Native | undefined;

/** The native functions; throws ERR_UNSUPPORTED_HOST or ERR_NATIVE_MISSING where there are none. */
export function native(): Native {
  loaded ??= load();
  return loaded;
}

function load(): Native {
  const architecture = process.arch;
  if (process.platform !== "linux" || (architecture !== "x64" && architecture !== "arm64")) {
    throw new MinorfaultError(
      "ERR_UNSUPPORTED_HOST",
      `System calls are made on Linux on x64 and arm64, this is ${process.platform} on ${architecture}`,
    );
  }
  let koffi: Koffi;
  try {
    koffi = createRequire(import.meta.url)("koffi") as Koffi;
  } catch (cause) {
    throw new MinorfaultError("ERR_NATIVE_MISSING", "The koffi package could not be loaded", { cause });
  }
  const libc = koffi.load(null);
  const procedure = koffi.proto("void", []);
  const dlsym = libc.func("int64_t dlsym(int64_t, const char *)") as (
    handle: number,
    name: string,
  ) => Integer;
  const memmove = libc.func("int64_t memmove(void *, void *, size_t)") as (
    target: Uint8Array,
    source: Uint8Array,
    byteLength: number,
  ) => Integer;
  // syscall(2) and ioctl(2) are variadic in C; on both architectures variadic integers travel in the registers
  // that ordinary ones use, so plain prototypes are right and faster.
  return {
    architecture,
    syscall: libc.func(
      "int64_t syscall(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t)",
    ) as Native["syscall"],
    ioctl: libc.func("int ioctl(int, int64_t, int64_t)") as Native["ioctl"],
    read: libc.func("int64_t read(int, int64_t, int64_t)") as Native["read"],
    posixSpawn: libc.func(
      "int posix_spawn(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t)",
    ) as Native["posixSpawn"],
    spawnActions: {
      init: libc.func("int posix_spawn_file_actions_init(int64_t)") as (actions: number) => number,
      dup2: libc.func(
        "int posix_spawn_file_actions_adddup2(int64_t, int, int)",
      ) as Native["spawnActions"]["dup2"],
      destroy: libc.func("int posix_spawn_file_actions_destroy(int64_t)") as (actions: number) => number,
    },
    sigaction: libc.func("int sigaction(int, int64_t, int64_t)") as Native["sigaction"],
    errno: () => koffi.errno(),
    view: (address, byteLength) => koffi.view(address, byteLength),
    // A copy of nothing, which answers its target.
    addressOfBytes: (bytes) => Number(memmove(bytes, bytes, 0)),
    functionAt: (address) => koffi.decode(BigInt(address), procedure) as () => void,
    addressOf: (name) => Number(dlsym(0, name)),
  };
}
