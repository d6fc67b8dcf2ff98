// A program for the Linux guest: fills memory with numbers that nobody can guess or compress, and checks all of it
// whenever it reads a "c". An executable without a runtime, written as bytes: guests have no compiler.
//
//   argv[1]: MiB ──▶ mmap ──▶ fill ──▶ "filled"        "c" ──▶ compare ──▶ "whole" | "broken"        end of input ──▶ exit
//
// Word n holds the n-th state of a linear congruential generator (Knuth's constants of MMIX): made anew to check it.

import { MachineCode } from "../../../src/base/machine-code.ts";
import { CODE_OFFSET, elfImage } from "../../../src/guest/process/elf.ts";

const ADDRESS = 0x400000;
const WORD = 8;
/** 6364136223846793005 and 1442695040888963407, little-endian. */
const MULTIPLIER = [0x2d, 0x7f, 0x95, 0x4c, 0x2d, 0xf4, 0x51, 0x58];
const INCREMENT = [0x4f, 0xf5, 0x67, 0xe2, 0x98, 0xf1, 0x05, 0x14];

const SYSCALL = [0x0f, 0x05] as const;
const REPLIES = { filled: "filled\n", whole: "whole\n", broken: "broken\n" } as const;

/** The executable. */
export function patternProgram(): Uint8Array {
  const listing = patternListing();
  return elfImage(listing.assemble(), ADDRESS, ADDRESS + CODE_OFFSET);
}

export function patternListing(): MachineCode {
  const code = new MachineCode();
  parseMebibytes(code);
  allocate(code);
  walk(code, "fill", () => code.op("mov %rbp,(%rdi)", 0x48, 0x89, 0x2f));
  reply(code, "filled");
  code
    .label("next")
    .op("push %rax", 0x50)
    .op("xor %eax,%eax", 0x31, 0xc0)
    .op("xor %edi,%edi", 0x31, 0xff)
    .op("mov %rsp,%rsi", 0x48, 0x89, 0xe6)
    .op("mov $0x1,%edx", 0xba, 1, 0, 0, 0)
    .op("syscall", ...SYSCALL)
    .op("pop %rcx", 0x59)
    .op("test %eax,%eax", 0x85, 0xc0)
    .jump("jle", [0x0f, 0x8e], "exit")
    .op("cmp $0x63,%cl", 0x80, 0xf9, 0x63)
    .jump("jne", [0x75], "next", 1);
  walk(code, "check", () => code.op("cmp %rbp,(%rdi)", 0x48, 0x39, 0x2f).jump("jne", [0x0f, 0x85], "broken"));
  reply(code, "whole").jump("jmp", [0xe9], "next").label("broken");
  reply(code, "broken")
    .jump("jmp", [0xe9], "next")
    .label("exit")
    .op("xor %edi,%edi", 0x31, 0xff)
    .op("mov $0x3c,%eax", 0xb8, 60, 0, 0, 0)
    .op("syscall", ...SYSCALL);
  for (const [name, text] of Object.entries(REPLIES)) {
    code.label(`text ${name}`).op(`.ascii "${text.trim()}\\n"`, ...Buffer.from(text));
  }
  return code;
}

/** %rbx: the bytes that argv[1] asks for. */
function parseMebibytes(code: MachineCode): void {
  code
    .op("mov 0x10(%rsp),%rsi", 0x48, 0x8b, 0x74, 0x24, 0x10)
    .op("xor %ebx,%ebx", 0x31, 0xdb)
    .label("digit")
    .op("movzbl (%rsi),%eax", 0x0f, 0xb6, 0x06)
    .op("inc %rsi", 0x48, 0xff, 0xc6)
    .op("sub $0x30,%eax", 0x83, 0xe8, 0x30)
    .jump("jb", [0x72], "parsed", 1)
    .op("imul $0xa,%rbx,%rbx", 0x48, 0x6b, 0xdb, 10)
    .op("add %rax,%rbx", 0x48, 0x01, 0xc3)
    .jump("jmp", [0xeb], "digit", 1)
    .label("parsed")
    .op("shl $0x14,%rbx", 0x48, 0xc1, 0xe3, 20);
}

/** %r12 and %r13: where the memory begins and ends. %r14 and %r15: the generator's constants. */
function allocate(code: MachineCode): void {
  code
    .op("mov $0x9,%eax", 0xb8, 9, 0, 0, 0)
    .op("xor %edi,%edi", 0x31, 0xff)
    .op("mov %rbx,%rsi", 0x48, 0x89, 0xde)
    .op("mov $0x3,%edx", 0xba, 3, 0, 0, 0)
    .op("mov $0x22,%r10d", 0x41, 0xba, 0x22, 0, 0, 0)
    .op("mov $0xffffffffffffffff,%r8", 0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff)
    .op("xor %r9d,%r9d", 0x45, 0x31, 0xc9)
    .op("syscall", ...SYSCALL)
    .op("mov %rax,%r12", 0x49, 0x89, 0xc4)
    .op("lea (%rax,%rbx,1),%r13", 0x4c, 0x8d, 0x2c, 0x18)
    .op("movabs $0x5851f42d4c957f2d,%r14", 0x49, 0xbe, ...MULTIPLIER)
    .op("movabs $0x1405f198e267f54f,%r15", 0x49, 0xbf, ...INCREMENT);
}

/** Does something to every word: its address is in %rdi, what it holds or is to hold in %rbp. */
function walk(code: MachineCode, label: string, each: () => void): void {
  code
    .op("mov %r12,%rdi", 0x4c, 0x89, 0xe7)
    .op("mov %r15,%rbp", 0x4c, 0x89, 0xfd)
    .label(label)
    .op("imul %r14,%rbp", 0x49, 0x0f, 0xaf, 0xee)
    .op("add %r15,%rbp", 0x4c, 0x01, 0xfd);
  each();
  code
    .op(`add $0x${WORD},%rdi`, 0x48, 0x83, 0xc7, WORD)
    .op("cmp %r13,%rdi", 0x4c, 0x39, 0xef)
    .jump("jb", [0x72], label, 1);
}

function reply(code: MachineCode, name: keyof typeof REPLIES): MachineCode {
  return code
    .op("mov $0x1,%eax", 0xb8, 1, 0, 0, 0)
    .op("mov $0x1,%edi", 0xbf, 1, 0, 0, 0)
    .jump("lea (%rip),%rsi", [0x48, 0x8d, 0x35], `text ${name}`)
    .op(`mov $0x${REPLIES[name].length},%edx`, 0xba, REPLIES[name].length, 0, 0, 0)
    .op("syscall", ...SYSCALL);
}
