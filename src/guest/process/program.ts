// The program of a bare process: every thread of it runs this one loop, on its own slot of the control memory.
//
//   _start ─▶ map the control file, tidy up ─▶ born ─▶ loop ─▶ run ─▶ ENTRY of the command ─▶ finished
//                                                      ▲  waits on                                │
//                                                      │  COMMAND                        wakes DONE
//                                                      └──────────────────────────────────────────┘
//
// r15 is the thread's slot, always: the signal handlers find it there. No stack is needed between commands, and
// every label of `ENTRIES` can be told to a thread by its address. A fault that ends in SIGBUS or SIGSEGV makes the
// handler note the signal and return to `ended` instead of to the instruction.

import { SIGNAL } from "../../abi/memory.ts";
import { MachineCode } from "../../base/machine-code.ts";
import { syscallNumbers } from "../../linux/index.ts";
import { CONTROL_ADDRESS, CONTROL_BYTES, FIELD, STACK_TOP } from "./layout.ts";

/** What a thread can be told to do: labels of the program. */
export type Entry = "call" | "load1" | "load8" | "store" | "add" | "execute" | "stamp" | "clone" | "walk";

const NR = syscallNumbers("x64");
const NR_GETPPID = 110;
const NR_CLOSE_RANGE = 436;
const NR_SIGRETURN = 15;

export const PR_SET_PDEATHSIG = 1;
const PR_SET_NAME = 15;
const SIG_SETMASK = 2;
/** Flags of a signal's action. */
export const SA = { SIGINFO: 4, RESTORER: 0x04000000, RESTART: 0x10000000, NODEFER: 0x40000000 } as const;

/** The file descriptor under which the program finds its control file. */
export const CONTROL_FD = 3;

/** What tools like ps call it, as far as they have room. */
export const PROCESS_NAME = "minorfault-guest";

export interface Program {
  readonly code: Uint8Array;
  /** Address of a label. */
  at(label: Entry | "start" | "restorer" | "onUserSignal"): number;
  readonly listing: MachineCode["listing"];
}

/** The program, to be placed at an address. */
export function assembleProgram(address: number): Program {
  const asm = new MachineCode();
  start(asm);
  loop(asm);
  operations(asm);
  walk(asm);
  handlers(asm);
  asm.align(8);
  asm.label("action").op("handler, flags, restorer, mask", ...new Array<number>(32).fill(0));
  asm.label("nothing").op("eight zeros", ...new Array<number>(8).fill(0));
  asm.label("null").op('"/dev/null"', ...Buffer.from("/dev/null\0"));
  asm.label("name").op(`"${PROCESS_NAME}"`, ...Buffer.from(`${PROCESS_NAME}\0`));
  const code = asm.assemble();
  // struct sigaction holds absolute addresses.
  const view = new DataView(code.buffer);
  const action = asm.at("action");
  view.setBigUint64(action, BigInt(address + asm.at("onFault")), true);
  view.setBigUint64(action + 8, BigInt(SA.SIGINFO | SA.NODEFER | SA.RESTORER), true);
  view.setBigUint64(action + 16, BigInt(address + asm.at("restorer")), true);
  return { code, at: (label) => address + asm.at(label), listing: asm.listing };
}

function syscall(asm: MachineCode, number: number): MachineCode {
  return asm.op32(`mov eax, ${number}`, [0xb8], number).op("syscall", 0x0f, 0x05);
}

function quad(value: number): number[] {
  return [...new Uint8Array(new BigUint64Array([BigInt(value)]).buffer)];
}

/** The first instructions: control memory in, descriptors of ours out, signals as we want them. */
function start(asm: MachineCode): void {
  asm.label("start");
  asm.op("movabs rdi, CONTROL", 0x48, 0xbf, ...quad(CONTROL_ADDRESS));
  asm.op("movabs rsi, CONTROL_BYTES", 0x48, 0xbe, ...quad(CONTROL_BYTES));
  asm.op32("mov edx, PROT_READ | PROT_WRITE", [0xba], 3);
  asm.op32("mov r10d, MAP_SHARED | MAP_FIXED_NOREPLACE", [0x41, 0xba], 0x100001);
  asm.op32("mov r8d, CONTROL_FD", [0x41, 0xb8], CONTROL_FD);
  asm.op("xor r9d, r9d", 0x45, 0x31, 0xc9);
  syscall(asm, NR.mmap);
  asm.op("cmp rax, rdi", 0x48, 0x39, 0xf8);
  asm.jump("jne", [0x0f, 0x85], "abandon");
  asm.op("mov r15, rax", 0x49, 0x89, 0xc7);
  asm.op32("lea rsp, [r15 + STACK_TOP]", [0x49, 0x8d, 0xa7], STACK_TOP);

  asm.op("xor edi, edi", 0x31, 0xff).op32("mov esi, -1", [0xbe], -1).op("xor edx, edx", 0x31, 0xd2);
  syscall(asm, NR_CLOSE_RANGE);
  asm.op32("mov edi, AT_FDCWD", [0xbf], -100).jump("lea rsi, [rip]", [0x48, 0x8d, 0x35], "null");
  asm.op32("mov edx, O_RDWR", [0xba], 2);
  syscall(asm, NR.openat);
  asm.op("xor edi, edi", 0x31, 0xff);
  syscall(asm, NR.dup);
  syscall(asm, NR.dup);

  asm.op32("mov edi, SIG_SETMASK", [0xbf], SIG_SETMASK).jump("lea rsi, [rip]", [0x48, 0x8d, 0x35], "nothing");
  asm.op("xor edx, edx", 0x31, 0xd2).op32("mov r10d, 8", [0x41, 0xba], 8);
  syscall(asm, NR.rt_sigprocmask);
  for (const signal of [SIGNAL.SIGBUS, SIGNAL.SIGSEGV]) {
    asm.op32(`mov edi, ${signal}`, [0xbf], signal).jump("lea rsi, [rip]", [0x48, 0x8d, 0x35], "action");
    asm.op("xor edx, edx", 0x31, 0xd2).op32("mov r10d, 8", [0x41, 0xba], 8);
    syscall(asm, NR.rt_sigaction);
  }

  asm.op32("mov edi, PR_SET_NAME", [0xbf], PR_SET_NAME).jump("lea rsi, [rip]", [0x48, 0x8d, 0x35], "name");
  syscall(asm, NR.prctl);

  // Every new thread and process passes here: it dies with us, and ends if we are gone already.
  asm.label("born");
  asm
    .op32("mov edi, PR_SET_PDEATHSIG", [0xbf], PR_SET_PDEATHSIG)
    .op32("mov esi, SIGKILL", [0xbe], SIGNAL.SIGKILL);
  syscall(asm, NR.prctl);
  syscall(asm, NR_GETPPID);
  asm.op("cmp eax, [r15 + OWNER]", 0x41, 0x3b, 0x47, FIELD.OWNER);
  asm.jump("je", [0x74], "loop", 1);
  asm.label("abandon").op32("mov edi, 1", [0xbf], 1);
  syscall(asm, NR.exit_group);
}

/** Waits for a command, fetches its arguments, and after it tells the result. */
function loop(asm: MachineCode): void {
  asm.label("loop");
  asm.op("mov edx, [r15 + COMMAND]", 0x41, 0x8b, 0x57, FIELD.COMMAND);
  asm.op("cmp edx, [r15 + DONE]", 0x41, 0x3b, 0x57, FIELD.DONE);
  asm.jump("jne", [0x75], "run", 1);
  asm.op("mov rdi, r15", 0x4c, 0x89, 0xff).op("xor esi, esi", 0x31, 0xf6); // FUTEX_WAIT
  asm.op("xor r10d, r10d", 0x45, 0x31, 0xd2); // no timeout
  syscall(asm, NR.futex);
  asm.jump("jmp", [0xeb], "loop", 1);

  asm.label("run");
  asm.op("mov dword ptr [r15 + SIGNAL], 0", 0x41, 0xc7, 0x47, FIELD.SIGNAL, 0, 0, 0, 0);
  const argument = (index: number) => FIELD.ARGUMENTS + 8 * index;
  asm.op("mov rdi, [r15 + ARGUMENTS]", 0x49, 0x8b, 0x7f, argument(0));
  asm.op("mov rsi, [r15 + ARGUMENTS + 8]", 0x49, 0x8b, 0x77, argument(1));
  asm.op("mov rdx, [r15 + ARGUMENTS + 16]", 0x49, 0x8b, 0x57, argument(2));
  asm.op("mov r10, [r15 + ARGUMENTS + 24]", 0x4d, 0x8b, 0x57, argument(3));
  asm.op("mov r8, [r15 + ARGUMENTS + 32]", 0x4d, 0x8b, 0x47, argument(4));
  asm.op("mov r9, [r15 + ARGUMENTS + 40]", 0x4d, 0x8b, 0x4f, argument(5));
  asm.op("jmp [r15 + ENTRY]", 0x41, 0xff, 0x67, FIELD.ENTRY);

  asm.label("finished");
  asm.op("mov [r15 + RESULT], rax", 0x49, 0x89, 0x47, FIELD.RESULT);
  asm.label("ended");
  asm.op32("lea rsp, [r15 + STACK_TOP]", [0x49, 0x8d, 0xa7], STACK_TOP);
  asm.op("mov eax, [r15 + COMMAND]", 0x41, 0x8b, 0x47, FIELD.COMMAND);
  asm.op("mov [r15 + DONE], eax", 0x41, 0x89, 0x47, FIELD.DONE);
  asm.op("lea rdi, [r15 + DONE]", 0x49, 0x8d, 0x7f, FIELD.DONE);
  asm.op32("mov esi, FUTEX_WAKE", [0xbe], 1).op32("mov edx, everybody", [0xba], 0x7fffffff);
  syscall(asm, NR.futex);
  asm.jump("jmp", [0xe9], "loop");
}

/** The commands: arguments are in rdi, rsi, rdx, r10, r8, r9; the result is left in rax. */
function operations(asm: MachineCode): void {
  const finish = () => asm.jump("jmp", [0xe9], "finished");

  asm.label("call").op("mov rax, [r15 + NUMBER]", 0x49, 0x8b, 0x47, FIELD.NUMBER).op("syscall", 0x0f, 0x05);
  finish();
  asm.label("load1").op("movzx eax, byte ptr [rdi]", 0x0f, 0xb6, 0x07);
  finish();
  asm.label("load8").op("mov rax, [rdi]", 0x48, 0x8b, 0x07);
  finish();
  asm.label("store").op("mov [rdi], sil", 0x40, 0x88, 0x37).op("xor eax, eax", 0x31, 0xc0);
  finish();
  asm.label("add").op("lock xadd [rdi], rsi", 0xf0, 0x48, 0x0f, 0xc1, 0x37);
  asm.op("mov rax, rsi", 0x48, 0x89, 0xf0);
  finish();
  asm.label("execute").op("call rdi", 0xff, 0xd7);
  finish();
  asm.label("stamp").op("rdtsc", 0x0f, 0x31).op("shl rdx, 32", 0x48, 0xc1, 0xe2, 32);
  asm.op("or rax, rdx", 0x48, 0x09, 0xd0);
  finish();

  // flags, stack, -, -, -, slot: what is born starts on the stack and with the slot given, thread or process.
  asm.label("clone");
  syscall(asm, NR.clone);
  asm.op("test rax, rax", 0x48, 0x85, 0xc0);
  asm.jump("jne", [0x0f, 0x85], "finished");
  asm.op("mov r15, r9", 0x4d, 0x89, 0xcf);
  asm.jump("jmp", [0xe9], "born");
}

/**
 * Visits pages, one byte each: rdi base, rsi count, rdx list of page numbers (32 bits each) or 0, r10 stride in pages
 * where there is no list, r8 what to store + 256 or 0 to load, r9 where to note the time of each access or 0.
 * Leaves the sum of the bytes loaded.
 */
function walk(asm: MachineCode): void {
  asm.label("walk");
  asm.op("mov r11, rdx", 0x49, 0x89, 0xd3); // rdtsc wants rdx
  asm.op("xor ebx, ebx", 0x31, 0xdb).op("xor ebp, ebp", 0x31, 0xed); // index, sum
  asm.op("mov [r15 + PROGRESS], rbx", 0x49, 0x89, 0x5f, FIELD.PROGRESS);
  asm.label("step").op("cmp rbx, rsi", 0x48, 0x39, 0xf3).jump("jae", [0x73], "walked", 1);
  asm.op("test r11, r11", 0x4d, 0x85, 0xdb).jump("je", [0x74], "stride", 1);
  asm.op("mov r12d, [r11 + 4*rbx]", 0x45, 0x8b, 0x24, 0x9b).jump("jmp", [0xeb], "page", 1);
  asm.label("stride").op("mov r12, rbx", 0x49, 0x89, 0xdc).op("imul r12, r10", 0x4d, 0x0f, 0xaf, 0xe2);
  asm.label("page").op("shl r12, 12", 0x49, 0xc1, 0xe4, 12).op("add r12, rdi", 0x49, 0x01, 0xfc);
  stampInto(asm, "mov r13, rax", [0x49, 0x89, 0xc5]);
  asm.op("test r8, r8", 0x4d, 0x85, 0xc0).jump("je", [0x74], "read", 1);
  asm.op("mov [r12], r8b", 0x45, 0x88, 0x04, 0x24).jump("jmp", [0xeb], "touched", 1);
  asm.label("read").op("movzx eax, byte ptr [r12]", 0x41, 0x0f, 0xb6, 0x04, 0x24);
  asm.op("add rbp, rax", 0x48, 0x01, 0xc5);
  asm.label("touched");
  stampInto(asm, "sub rax, r13", [0x4c, 0x29, 0xe8]);
  asm.op("test r9, r9", 0x4d, 0x85, 0xc9).jump("je", [0x74], "noted", 1);
  asm.op("mov [r9 + 4*rbx], eax", 0x41, 0x89, 0x04, 0x99);
  asm.label("noted").op("inc rbx", 0x48, 0xff, 0xc3);
  asm.op("mov [r15 + PROGRESS], rbx", 0x49, 0x89, 0x5f, FIELD.PROGRESS).jump("jmp", [0xeb], "step", 1);
  asm.label("walked").op("mov rax, rbp", 0x48, 0x89, 0xe8).jump("jmp", [0xe9], "finished");
}

/** The time stamp counter in rax, after everything before it, then one more instruction. */
function stampInto(asm: MachineCode, text: string, bytes: readonly number[]): void {
  asm.op("lfence", 0x0f, 0xae, 0xe8).op("rdtsc", 0x0f, 0x31).op("shl rdx, 32", 0x48, 0xc1, 0xe2, 32);
  asm.op("or rax, rdx", 0x48, 0x09, 0xd0).op(text, ...bytes);
}

/** Signal handlers: rdi signal, rsi siginfo, rdx ucontext; r15 is what it was in the code that was interrupted. */
function handlers(asm: MachineCode): void {
  asm.label("onFault");
  asm.op("mov [r15 + SIGNAL], edi", 0x41, 0x89, 0x7f, FIELD.SIGNAL);
  asm
    .op("mov eax, [rsi + 8]", 0x8b, 0x46, 8)
    .op("mov [r15 + SIGNAL_CODE], eax", 0x41, 0x89, 0x47, FIELD.SIGNAL_CODE);
  asm.op("mov rax, [rsi + 16]", 0x48, 0x8b, 0x46, 16);
  asm.op("mov [r15 + SIGNAL_ADDRESS], rax", 0x49, 0x89, 0x47, FIELD.SIGNAL_ADDRESS);
  asm.jump("lea rax, [rip]", [0x48, 0x8d, 0x05], "ended");
  // RIP is the 17th general register of the ucontext's machine context, which begins at 40: 40 + 16 * 8.
  asm.op32("mov [rdx + 168], rax", [0x48, 0x89, 0x82], 168).op("ret", 0xc3);

  asm.label("onUserSignal");
  asm
    .op("lock inc dword ptr [r15 + SIGNALS_HANDLED]", 0xf0, 0x41, 0xff, 0x47, FIELD.SIGNALS_HANDLED)
    .op("ret", 0xc3);

  asm.label("restorer");
  syscall(asm, NR_SIGRETURN);
}
