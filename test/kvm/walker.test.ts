// The walker's bytes say what its listing says: a disassembler is the judge where the machine has one.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { assembleWalker } from "../../src/guest/kvm/walker.ts";

const HEADER = 0xc000_1000;
const LIST_BYTES = 0x2000;

/** What the listing calls by name, as a disassembler prints it. */
const NAMES: Readonly<Record<string, string>> = {
  "[began]": "ds:0xc0001000",
  "[sum]": "ds:0xc0001004",
  "[esi+words]": "[esi+0x1ffc]",
};

/** One spelling for both: no sizes, no spaces, hexadecimal numbers, no targets of jumps. */
function spelling(text: string): string {
  const named = Object.entries(NAMES).reduce((line, [name, value]) => line.replace(name, value), text);
  return named
    .replace(/(DWORD PTR |eax,DWORD PTR |es:|<.*>)/g, (match) => (match.startsWith("eax,") ? "eax," : ""))
    .replace(/^lods .*/, "lodsd")
    .replace(/^(loop|jn?z) .*/, "$1")
    .replace(/,(\d+)$/, (_, number) => `,0x${Number(number).toString(16)}`)
    .replace(/\s+/g, " ")
    .replace("[esi-4]", "[esi-0x4]")
    .trim();
}

test("every instruction of the walker disassembles to what its listing says", (t) => {
  if (spawnSync("objdump", ["--version"]).error) return t.skip("no objdump on this machine");
  const { code, listing } = assembleWalker(HEADER, LIST_BYTES);
  const folder = mkdtempSync(join(tmpdir(), "minorfault-kvm-"));
  try {
    const file = join(folder, "walker.bin");
    writeFileSync(file, code);
    const output = execFileSync("objdump", ["-D", "-b", "binary", "-m", "i386", "-M", "intel", file], {
      encoding: "utf8",
    });
    const disassembled = [...output.matchAll(/^\s*([0-9a-f]+):\t(?:[0-9a-f]{2} )+\s*\t(.*)$/gm)].map(
      ([, at = "", text = ""]) => `${Number.parseInt(at, 16)}: ${spelling(text)}`,
    );
    assert.deepEqual(
      disassembled,
      listing.map(({ at, text }) => `${at}: ${spelling(text)}`),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the loop of the walker jumps back to its LODSD, for every access", () => {
  const { code, entry } = assembleWalker(HEADER, LIST_BYTES);
  for (const start of Object.values(entry)) {
    const lodsd = code.indexOf(0xad, start);
    const loop = code.indexOf(0xe2, start);
    const displacement = new Int8Array(code.buffer)[loop + 1] ?? 0;
    assert.equal(loop + 2 + displacement, lodsd);
  }
});
