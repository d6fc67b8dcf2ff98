// Compares every value, size and offset with the system's own <linux/userfaultfd.h>, by a probe that the C
// compiler builds from it. A name that this header does not have yet is left out of the comparison and counted.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CATALOGUE, PAGEMAP_SCAN, type Struct, uffdio } from "../../src/abi/index.ts";

// How the header nests what our tables spread out, and names that differ.
const NESTED: Readonly<Record<string, string>> = { start: "range.start", len: "range.len" };
const FLAT = new Set(["uffdio_range", "uffdio_copy", "uffdio_move"]);
const STRUCTS = Object.values(uffdio).filter(({ name }) => name !== "uffdio_set_mode");
const MESSAGE_FIELDS: Readonly<Record<string, number>> = {
  event: 0,
  "arg.pagefault.flags": 8,
  "arg.pagefault.address": 16,
  "arg.pagefault.feat.ptid": 24,
  "arg.fork.ufd": 8,
  "arg.remap.from": 8,
  "arg.remap.to": 16,
  "arg.remap.len": 24,
  "arg.remove.start": 8,
  "arg.remove.end": 16,
};

test("every constant, size and offset is that of the system's header", (t) => {
  const compiler = ["cc", "gcc", "clang"].find(hasCommand);
  if (compiler === undefined) return t.skip("no C compiler on this machine");
  const header = "#include <sys/ioctl.h>\n#include <linux/userfaultfd.h>\n";
  if (!compiles(compiler, `${header}int main(void) { return 0; }\n`)) {
    return t.skip("no linux/userfaultfd.h on this machine");
  }
  const answers = probe(compiler, header);
  let compared = 0;
  for (const { name, value } of CATALOGUE) {
    const answer = answers.get(name);
    // These are unions of what a release supports, so an older header has fewer bits.
    const grows = /^UFFD_API_(FEATURES|REGISTER_MODES|RANGE_IOCTLS)/.test(name);
    if (answer === undefined) continue;
    if (grows) assert.equal(value & answer, answer, `${name} of the header is not contained in ours`);
    else assert.equal(value, answer, name);
    compared++;
  }
  for (const [key, expected] of layout()) {
    const answer = answers.get(key);
    if (answer === undefined) continue;
    assert.equal(BigInt(expected), answer, key);
    compared++;
  }
  const total = CATALOGUE.length + layout().size;
  t.diagnostic(`${compared} of ${total} values compared, ${total - compared} newer than this header`);
  // Nor has the header anything that our table lacks; the guard of the file is no constant.
  const known = new Set(CATALOGUE.map(({ name }) => name));
  const lacking = definitions(compiler).filter((name) => !known.has(name));
  assert.deepEqual(lacking, [], "the header defines what the catalogue lacks");
  // What the header of 2015 had, every header has.
  for (const { name, seed } of CATALOGUE) assert.ok(!seed || answers.has(name), `${name} was not compared`);
});

test("the PAGEMAP_SCAN number is the one measured on Linux 6.18", () => {
  assert.equal(PAGEMAP_SCAN, 0xc0606610);
});

/** What our tables say: "sizeof NAME" and "offsetof NAME.FIELD". */
function layout(): Map<string, number> {
  const entries = new Map<string, number>([["sizeof uffd_msg", 32]]);
  for (const struct of STRUCTS) {
    entries.set(`sizeof ${struct.name}`, struct.size);
    for (const [field, offset] of Object.entries(struct.offset)) {
      entries.set(`offsetof ${struct.name}.${headerField(struct, field)}`, offset);
    }
  }
  for (const [field, offset] of Object.entries(MESSAGE_FIELDS))
    entries.set(`offsetof uffd_msg.${field}`, offset);
  return entries;
}

function headerField(struct: Struct<string>, field: string): string {
  return FLAT.has(struct.name) ? field : (NESTED[field] ?? field);
}

/** Asks for each name alone first, since whether an enum's or a struct's name exists can't be asked by #ifdef. */
function probe(compiler: string, header: string): Map<string, bigint> {
  const expressions = new Map<string, string>(CATALOGUE.map(({ name }) => [name, name]));
  for (const key of layout().keys()) {
    const [what = "", operand = ""] = key.split(" ");
    const [struct = "", ...field] = operand.split(".");
    expressions.set(
      key,
      what === "sizeof"
        ? `sizeof(struct ${struct})`
        : `__builtin_offsetof(struct ${struct}, ${field.join(".")})`,
    );
  }
  const missing = new Set<string>();
  const program = (): string =>
    `#include <stdio.h>\n${header}int main(void) {\n${[...expressions]
      .filter(([key]) => !missing.has(key))
      .map(([key, expression]) => `printf("%s=%llu\\n", "${key}", (unsigned long long)(${expression}));`)
      .join("\n")}\nreturn 0; }\n`;
  // The compiler names what it does not know; a handful of rounds is enough, since it names all of a round.
  for (let round = 0; round < 4; round++) {
    const { output, errors } = run(compiler, program());
    if (output !== undefined) {
      return new Map(
        output
          .trim()
          .split("\n")
          .map((line) => line.split("=") as [string, string])
          .map(([key, value]) => [key, BigInt(value)]),
      );
    }
    const lines = program().split("\n");
    for (const [, line] of errors.matchAll(/\.c:(\d+):\d+: error/g)) {
      const key = /"([^"%]+)", \(unsigned/.exec(lines[Number(line) - 1] ?? "")?.[1];
      if (key !== undefined) missing.add(key);
    }
  }
  throw new Error(`the probe does not compile: ${run(compiler, program()).errors}`);
}

/** Names that the header itself defines with a value. */
function definitions(compiler: string): string[] {
  const input = "#include <linux/userfaultfd.h>\n";
  const text = execFileSync(compiler, ["-E", "-dD", "-x", "c", "-"], { input, encoding: "utf8" });
  const names = new Set<string>();
  let isOurs = false;
  for (const line of text.split("\n")) {
    const marker = /^# \d+ "([^"]*)"/.exec(line);
    if (marker !== null) isOurs = marker[1]!.endsWith("linux/userfaultfd.h");
    const name = /^#define (\w+) \S/.exec(line)?.[1];
    if (isOurs && name !== undefined) names.add(name);
  }
  assert.ok(names.has("UFFD_API"), "the preprocessor's output was not understood");
  return [...names];
}

function run(compiler: string, source: string): { output?: string; errors: string } {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-probe-"));
  try {
    const file = join(folder, "probe.c");
    writeFileSync(file, source);
    execFileSync(compiler, ["-fmax-errors=0", "-o", join(folder, "probe"), file], { stdio: "pipe" });
    return { output: execFileSync(join(folder, "probe"), { encoding: "utf8" }), errors: "" };
  } catch (error) {
    return { errors: String((error as { stderr?: Buffer }).stderr ?? error) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function compiles(compiler: string, source: string): boolean {
  return run(compiler, source).output !== undefined;
}

function hasCommand(name: string): boolean {
  try {
    execFileSync(name, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
