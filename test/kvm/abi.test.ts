// Compares the numbers, sizes and offsets that the machine uses with the system's own <linux/kvm.h>.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  KVM,
  KVM_API_VERSION,
  KVM_CAP,
  KVM_EXIT,
  KVM_RUN_EXIT_REASON,
  KVM_SIZE,
  makeFlat,
  writeMemoryRegion,
  writeRegisters,
} from "../../src/guest/kvm/abi.ts";

const EXPRESSIONS: readonly (readonly [expression: string, value: number])[] = [
  ["KVM_API_VERSION", KVM_API_VERSION],
  ["offsetof(struct kvm_run, exit_reason)", KVM_RUN_EXIT_REASON],
  ...Object.entries(KVM).map(([name, value]) => [`KVM_${name}`, value] as const),
  ...Object.entries(KVM_CAP).map(([name, value]) => [`KVM_CAP_${name}`, value] as const),
  ...Object.entries(KVM_EXIT).map(([name, value]) => [`KVM_EXIT_${name}`, value] as const),
  ...Object.entries(KVM_SIZE).map(([name, value]) => [`sizeof(struct kvm_${name})`, value] as const),
];

// Fields that the codecs write, with what the probe finds in them when it reads our bytes.
const FLAT_FIELDS = {
  "sregs.cs.base": 0,
  "sregs.cs.limit": 0xffff_ffff,
  "sregs.cs.selector": 8,
  "sregs.cs.type": 0xb,
  "sregs.cs.present": 1,
  "sregs.cs.dpl": 0,
  "sregs.cs.db": 1,
  "sregs.cs.s": 1,
  "sregs.cs.l": 0,
  "sregs.cs.g": 1,
  "sregs.cs.unusable": 0,
  "sregs.ss.type": 0x3,
  "sregs.ss.limit": 0xffff_ffff,
  "sregs.tr.limit": 0,
  "sregs.cr0": 0x11,
  "regs.rax": 1,
  "regs.rsi": 2,
  "regs.rip": 0xc000_0000,
  "regs.rflags": 2,
  "region.slot": 1,
  "region.guest_phys_addr": 0xc000_0000,
  "region.memory_size": 0x2000,
  "region.userspace_addr": 0x7fff_1234_5000,
};

test("every number, size and offset of the machine is that of the system's <linux/kvm.h>", (t) => {
  const compiler = ["cc", "gcc", "clang"].find((name) => !spawnSync(name, ["--version"]).error);
  if (compiler === undefined) return t.skip("no C compiler on this machine");
  if (process.arch !== "x64") return t.skip("the machine is for x64");
  const folder = mkdtempSync(join(tmpdir(), "minorfault-kvm-"));
  try {
    const source = join(folder, "probe.c");
    writeFileSync(source, probe());
    if (spawnSync(compiler, ["-E", source]).status !== 0) return t.skip("no linux/kvm.h on this machine");
    execFileSync(compiler, ["-o", join(folder, "probe"), source]);
    const lines = execFileSync(join(folder, "probe"), { encoding: "utf8" }).trim().split("\n");
    const answers = Object.fromEntries(lines.map((line) => line.split("\t")));
    const expected = Object.fromEntries(
      [...EXPRESSIONS, ...Object.entries(FLAT_FIELDS)].map(([name, value]) => [name, String(value)]),
    );
    assert.deepEqual(answers, expected);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** A program that prints every expression, and the fields of the structs whose bytes we wrote. */
function probe(): string {
  const bytes = (byteLength: number, write: (view: DataView) => void) => {
    const array = new Uint8Array(byteLength);
    write(new DataView(array.buffer));
    return `{${array.join(",")}}`;
  };
  const structs = [
    ["sregs", KVM_SIZE.sregs, makeFlat],
    [
      "regs",
      KVM_SIZE.regs,
      (view: DataView) => writeRegisters(view, { rax: 1, rsi: 2, rip: 0xc000_0000, rflags: 2 }),
    ],
    [
      "userspace_memory_region",
      KVM_SIZE.userspace_memory_region,
      (view: DataView) =>
        writeMemoryRegion(view, {
          slot: 1,
          guestAddress: 0xc000_0000,
          byteLength: 0x2000,
          address: 0x7fff_1234_5000,
        }),
    ],
  ] as const;
  return [
    "#include <stddef.h>",
    "#include <stdio.h>",
    "#include <string.h>",
    "#include <sys/ioctl.h>",
    "#include <linux/kvm.h>",
    "int main(void) {",
    ...structs.flatMap(([name, size, write]) => {
      const short = name === "userspace_memory_region" ? "region" : name;
      return [
        `unsigned char ${short}_bytes[] = ${bytes(size, write)};`,
        `struct kvm_${name} ${short};`,
        `memcpy(&${short}, ${short}_bytes, sizeof ${short});`,
      ];
    }),
    ...[...EXPRESSIONS.map(([name]) => name), ...Object.keys(FLAT_FIELDS)].map(
      (name) => `printf("%s\\t%llu\\n", "${name}", (unsigned long long)(${name}));`,
    ),
    "return 0; }",
  ].join("\n");
}
