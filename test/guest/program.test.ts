// The listing of the bare process's program says what its bytes are: held to a disassembler, where there is one.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { MachineCode } from "../../src/base/machine-code.ts";
import { CODE_OFFSET, elfImage } from "../../src/guest/process/elf.ts";
import { FIELD, STACK_TOP, TEXT_ADDRESS } from "../../src/guest/process/layout.ts";
import { assembleProgram } from "../../src/guest/process/program.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-program-"));
after(() => rmSync(folder, { recursive: true }));
const missing = (command: string) =>
  spawnSync(command, ["--version"], { stdio: "ignore" }).error !== undefined && `${command} is not installed`;

/** Offset and instruction, as objdump reads the bytes. */
function disassemble(code: Uint8Array): Map<number, string> {
  const path = join(folder, "code");
  writeFileSync(path, code);
  const text = execFileSync(
    "objdump",
    ["-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--insn-width=16", path],
    {
      encoding: "utf8",
    },
  );
  const instructions = new Map<number, string>();
  for (const [, at = "", instruction = ""] of text.matchAll(/^\s+([0-9a-f]+):\t[^\t]+\t(.+)$/gm)) {
    instructions.set(Number.parseInt(at, 16), instruction.replace(/\s*#.*/, "").trim());
  }
  return instructions;
}

/** Both in one spelling: what remains to be compared is mnemonic, registers and memory operands' bases. */
function normal(text: string): string {
  return text
    .toLowerCase()
    .replace(/\b(byte|word|dword|qword) ptr\b/g, "")
    .replace(/\s+/g, "")
    .replace(/^movabs/, "mov");
}

/** The names that listings use for numbers. */
const NUMBERS: Readonly<Record<string, number>> = { ...FIELD, STACK_TOP };

/** An operand of the listing with its names replaced by hexadecimal numbers, as the disassembler writes them. */
function resolve(text: string): string {
  return text.replace(/\[(\w+) \+ ([A-Z_a-z0-9]+)(?: \+ (\d+))?\]/g, (_, base, name, more) => {
    const offset = (NUMBERS[name] ?? Number(name)) + Number(more ?? 0);
    return `[${base}+0x${offset.toString(16)}]`;
  });
}

test("every instruction of the program is what its listing says", { skip: missing("objdump") }, () => {
  const program = assembleProgram(TEXT_ADDRESS + CODE_OFFSET);
  const instructions = disassemble(program.code);
  const data = program.listing.findIndex(({ text }) => text.startsWith("handler, flags"));
  assert.ok(data > 100);
  const code = program.listing.slice(0, data);
  // Each listed instruction starts where the disassembler starts one too, and there is none between.
  const offsets = [...instructions.keys()].filter((at) => at <= (code.at(-1)?.at ?? 0));
  assert.deepEqual(
    offsets,
    code.map(({ at }) => at),
  );
  for (const { at, text } of code) {
    const found = instructions.get(at) ?? "";
    const [mnemonic = ""] = resolve(text).split(/[ ,]+/);
    assert.equal(normal(mnemonic), normal(found.split(/\s+/)[0] ?? ""), `${at.toString(16)}: ${text}`);
    // Immediates and jump targets stand in the listing by name; registers and memory operands by what they are.
    const spelled = normal(resolve(text));
    const registers =
      spelled.match(/\b(r1[0-5]|r[89]|[re]?[abcd]x|[re]?[sd]i|[re]?[sb]p|sil|r8b)[dw]?\b/g) ?? [];
    for (const register of registers) {
      assert.ok(normal(found).includes(register), `${at.toString(16)}: ${text}, but objdump reads ${found}`);
    }
    const [memory] = spelled.match(/\[r15\+0x[0-9a-f]+\]/) ?? [];
    const expected = memory?.replace("[r15+0x0]", "[r15]");
    if (expected !== undefined) {
      assert.ok(
        normal(found).replace("+0x0]", "]").includes(expected),
        `${text}, but objdump reads ${found}`,
      );
    }
  }
});

/** What stands at the labels that instructions refer to. */
const AT_LABEL: Readonly<Record<string, string>> = {
  abandon: "mov edi, 1",
  action: "handler, flags, restorer, mask",
  born: "mov edi, PR_SET_PDEATHSIG",
  ended: "lea rsp, [r15 + STACK_TOP]",
  finished: "mov [r15 + RESULT], rax",
  loop: "mov edx, [r15 + COMMAND]",
  name: '"minorfault-guest"',
  noted: "inc rbx",
  nothing: "eight zeros",
  null: '"/dev/null"',
  page: "shl r12, 12",
  read: "movzx eax, byte ptr [r12]",
  run: "mov dword ptr [r15 + SIGNAL], 0",
  step: "cmp rbx, rsi",
  stride: "mov r12, rbx",
  touched: "lfence",
  walked: "mov rax, rbp",
};

test("jumps and addresses go to their labels", { skip: missing("objdump") }, () => {
  const program = assembleProgram(TEXT_ADDRESS + CODE_OFFSET);
  const path = join(folder, "jumps");
  writeFileSync(path, program.code);
  const disassembly = execFileSync(
    "objdump",
    ["-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--insn-width=16", path],
    { encoding: "utf8" },
  );
  let jumps = 0;
  for (const { at, text } of program.listing) {
    const label = text.match(/^(?:j\w+|lea r\w+, \[rip\]) (\w+)$/)?.[1];
    if (label === undefined) continue;
    const line = disassembly.match(new RegExp(`^\\s+${at.toString(16)}:\\t.*$`, "m"))?.[0] ?? "";
    // A jump's target is its operand; an address relative to rip is noted behind the instruction.
    const target = Number.parseInt(line.match(/(?:# |j\w+\s+)0x([0-9a-f]+)/)?.[1] ?? "", 16);
    const expected = AT_LABEL[label];
    assert.ok(expected !== undefined, `${label} is not known to this test`);
    const places = program.listing.filter((entry) => entry.text === expected).map((entry) => entry.at);
    // "ended" is also where _start sets up its stack, and "touched" where the first of two stamps is taken.
    assert.ok(places.includes(target), `${text} goes to ${target.toString(16)}`);
    if (label === "ended" || label === "touched") assert.equal(target, places.at(-1));
    jumps++;
  }
  assert.equal(jumps, 28);
});

test("the executable is one that readelf accepts without a warning", { skip: missing("readelf") }, () => {
  const program = assembleProgram(TEXT_ADDRESS + CODE_OFFSET);
  const path = join(folder, "program");
  writeFileSync(path, elfImage(program.code, TEXT_ADDRESS, program.at("start")));
  const { stdout, stderr } = spawnSync("readelf", ["-lhW", path], { encoding: "utf8" });
  assert.equal(stderr, "");
  assert.match(stdout, /Type:\s+EXEC/);
  assert.match(stdout, new RegExp(`Entry point address:\\s+0x${program.at("start").toString(16)}`));
  assert.match(stdout, /LOAD .* R E /);
  assert.match(stdout, /GNU_STACK .* RW /);
});

test("a label that is defined twice, missing or out of reach is our own mistake", () => {
  assert.throws(() => new MachineCode().label("a").label("a"), { code: "ERR_BUG" });
  assert.throws(() => new MachineCode().jump("jmp", [0xeb], "nowhere", 1).assemble(), { code: "ERR_BUG" });
  const far = new MachineCode().jump("jmp", [0xeb], "far", 1).align(512).label("far");
  assert.throws(() => far.assemble(), { code: "ERR_BUG" });
});
