// Several system calls in one step out of JavaScript: a list in memory, and a few machine instructions that go
// through it until a call fails.
//
// Going from JavaScript into native code and back costs about as much as a short system call does. Whoever
// makes the same two calls for every fault ("install this page, then wait for the next message") makes
// them as a chain, and pays once. What each call answered, and when, stands in its entry afterwards.
//
//   one entry
//   0        8      16     24     32     40     48       56      64
//  ┌────────┬──────┬──────┬──────┬──────┬──────┬────────┬───────┐
//  │ number │      five arguments              │ result │ stamp │
//  └────────┴──────┴──────┴──────┴──────┴──────┴────────┴───────┘
//
// The result is as the kernel gave it: negative errno, or what the call answers. The stamp is the time stamp counter.

import { MAP, PROT } from "../abi/memory.ts";
import { type Word, writeWord } from "../abi/structs.ts";
import type { Caller, Scratch, SyscallName } from "../abi/system.ts";
import { assert, MinorfaultError } from "../base/errors.ts";
import { MachineCode } from "../base/machine-code.ts";
import { roundUp } from "../base/range.ts";
import { mmap, mprotect } from "./mappings.ts";
import { native } from "./native.ts";
import { syscallNumbers } from "./syscall-numbers.ts";

export const CHAIN_ENTRY = {
  SIZE: 64,
  NUMBER: 0,
  ARGUMENTS: 8,
  RESULT: 48,
  STAMP: 56,
} as const;

/** LIMIT: more do not fit an entry. */
const ARGUMENTS_MAX = 5;
const CODE_BYTES = 4096;
const CODE_ALIGNMENT = 64;

export interface ChainCall {
  readonly name: SyscallName;
  readonly args: readonly Word[];
}

/** The instructions of a chain over `count` entries at an address; x86-64 (System V calling convention). */
export function chainCode(list: number, count: number): MachineCode {
  const code = new MachineCode().op("push rbx", 0x53).op("push rbp", 0x55);
  return goThrough(code.op("movabs rbx, list", 0x48, 0xbb, ...wordBytes(list)), count);
}

/** The same over entries that begin `at` bytes behind the address that stands in a cell of memory. */
function movableChainCode(cell: number, { at, count, sixth }: ChainShape): MachineCode {
  const code = new MachineCode()
    .op("push rbx", 0x53)
    .op("push rbp", 0x55)
    .op("movabs rbx, cell", 0x48, 0xbb, ...wordBytes(cell))
    .op("mov rbx, [rbx]", 0x48, 0x8b, 0x1b)
    .op32("add rbx, at", [0x48, 0x81, 0xc3], at);
  return goThrough(code, count, sixth);
}

/** From the entry to which rbx points. System calls leave r9 alone, so it is set once. */
function goThrough(code: MachineCode, count: number, sixth = 0): MachineCode {
  return code
    .op32("mov r9d, sixth", [0x41, 0xb9], sixth)
    .op32("mov ebp, count", [0xbd], count)
    .label("next")
    .op("mov rax, [rbx]", 0x48, 0x8b, 0x03)
    .op("mov rdi, [rbx+8]", 0x48, 0x8b, 0x7b, 8)
    .op("mov rsi, [rbx+16]", 0x48, 0x8b, 0x73, 16)
    .op("mov rdx, [rbx+24]", 0x48, 0x8b, 0x53, 24)
    .op("mov r10, [rbx+32]", 0x4c, 0x8b, 0x53, 32)
    .op("mov r8, [rbx+40]", 0x4c, 0x8b, 0x43, 40)
    .op("syscall", 0x0f, 0x05)
    .op("mov [rbx+48], rax", 0x48, 0x89, 0x43, 48)
    .op("rdtsc", 0x0f, 0x31)
    .op("mov [rbx+56], eax", 0x89, 0x43, 56)
    .op("mov [rbx+60], edx", 0x89, 0x53, 60)
    .op("cmp qword [rbx+48], 0", 0x48, 0x83, 0x7b, 48, 0)
    .jump("jl", [0x7c], "out", 1)
    .op("add rbx, 64", 0x48, 0x83, 0xc3, CHAIN_ENTRY.SIZE)
    .op("dec ebp", 0xff, 0xcd)
    .jump("jnz", [0x75], "next", 1)
    .label("out")
    .op("pop rbp", 0x5d)
    .op("pop rbx", 0x5b)
    .op("ret", 0xc3);
}

function wordBytes(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  writeWord(new DataView(bytes.buffer), 0, value);
  return bytes;
}

/** Whether this host can run chains: x86-64, and a process that may make memory executable. */
export function chainsWork(): boolean {
  return process.arch === "x64" && process.platform === "linux";
}

/**
 * Writes the calls into `memory` from the offset `at` on (64 bytes each), and answers the function that makes them.
 * Arguments may be rewritten in the memory at any time between two runs. Throws ERR_SYSCALL where memory
 * can't be made executable.
 *
 * SAFETY: the function must not be called after `memory` was closed. Its code is a page that stays for good.
 */
export function makeChain(
  caller: Caller,
  memory: Scratch,
  at: number,
  calls: readonly ChainCall[],
): () => void {
  checkHost();
  putCalls(memory, at, calls);
  return functionsOf(caller, [chainCode(memory.address + at, calls.length)])[0]!;
}

/** Writes calls into `memory` from the offset `at` on, for a chain to make. */
export function putCalls(memory: Scratch, at: number, calls: readonly ChainCall[]): void {
  const numbers = syscallNumbers("x64");
  for (const [index, { name, args }] of calls.entries()) {
    assert(args.length <= ARGUMENTS_MAX, `A chained call has at most ${ARGUMENTS_MAX} arguments`);
    const entry = at + index * CHAIN_ENTRY.SIZE;
    writeWord(memory.view, entry + CHAIN_ENTRY.NUMBER, numbers[name]);
    for (let argument = 0; argument < ARGUMENTS_MAX; argument++) {
      writeWord(memory.view, entry + CHAIN_ENTRY.ARGUMENTS + argument * 8, args[argument] ?? 0);
    }
  }
}

/** Where in some memory the entries of a chain begin, and how many there are. */
export interface ChainShape {
  readonly at: number;
  readonly count: number;
  /** The sixth argument of all calls, for which an entry has no room; most do not look at it. */
  readonly sixth?: number;
}

export interface MovableChains {
  /** The memory (its address) that the next runs go through. */
  select(address: number): void;
  /** One for each shape. */
  readonly run: readonly (() => void)[];
}

/**
 * Chains of these shapes that go through whatever memory is selected: many lists of calls, and code for one.
 *
 * SAFETY: what is selected must hold calls (`putCalls`) wherever a shape says that it does. Code and cell stay for good.
 */
export function makeMovableChains(caller: Caller, shapes: readonly ChainShape[]): MovableChains {
  checkHost();
  const { address, view } = caller.share(CODE_BYTES);
  const cell = new Int32Array(view.buffer, view.byteOffset, 2);
  const run = functionsOf(
    caller,
    shapes.map((shape) => movableChainCode(address, shape)),
  );
  return {
    run,
    select(list) {
      cell[0] = list;
      cell[1] = list / 2 ** 32;
    },
  };
}

function checkHost(): void {
  if (chainsWork()) return;
  throw new MinorfaultError("ERR_UNSUPPORTED_HOST", "Chains of system calls are written for Linux on x64");
}

/** Each code as a function, all in one page. */
function functionsOf(caller: Caller, codes: readonly MachineCode[]): (() => void)[] {
  const code = mmap(caller, CODE_BYTES, { flags: MAP.PRIVATE | MAP.ANONYMOUS });
  const bytes = new Uint8Array(native().view(code, CODE_BYTES));
  let at = 0;
  const entries = codes.map((one) => {
    const assembled = one.assemble();
    const entry = at;
    bytes.set(assembled, entry);
    at = roundUp(entry + assembled.byteLength, CODE_ALIGNMENT);
    return entry;
  });
  mprotect(caller, code, CODE_BYTES, PROT.READ | PROT.EXEC);
  return entries.map((entry) => native().functionAt(code + entry));
}
