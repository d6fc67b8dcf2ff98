// The door itself: system calls of this process, their numbers, and what happens where there is no door.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { ERRNO } from "../../src/abi/errno.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { local, open, syscallNumbers } from "../../src/linux/index.ts";
import { skipUnlessLinux as skip } from "./host.ts";

test("a call answers its result, or -errno", { skip }, () => {
  assert.equal(local.call("getpid"), process.pid);
  assert.equal(local.call("close", -1), -ERRNO.EBADF);
  assert.equal(local.read(-1, 0, 0), -ERRNO.EBADF);
  assert.equal(local.ioctl(-1, 0, 0), -ERRNO.EBADF);
});

test("all 64 bits of an argument arrive", { skip }, () => {
  // lseek takes any offset that is not negative, and answers it.
  const fd = open(local, "/dev/zero");
  assert.equal(local.call("lseek", fd, 2 ** 52 + 1, 0), 0, "/dev/zero has no offset");
  assert.equal(local.call("close", 0xffff_ffff_ffff_ffffn), -ERRNO.EBADF);
  const memfd = local.call("memfd_create", local.scratch.address + 100, 1);
  assert.equal(local.call("lseek", memfd, 2 ** 52 + 1, 0), 2 ** 52 + 1);
  assert.equal(local.call("lseek", memfd, 2n ** 52n + 3n, 0), 2 ** 52 + 3);
  assert.equal(local.call("lseek", memfd, -1, 0), -ERRNO.EINVAL);
  local.call("close", memfd);
  local.call("close", fd);
});

test("what is no integer is refused before the call", { skip }, () => {
  for (const value of [Number.NaN, 1.5, Number.POSITIVE_INFINITY, 2 ** 53]) {
    assert.throws(() => local.call("close", value), { code: "ERR_BAD_ARGUMENT" });
  }
});

test("scratch memory is the same bytes for JavaScript and for the kernel", { skip }, () => {
  const { address, bytes, view } = local.scratch;
  assert.ok(bytes.byteLength >= 0x10000);
  const fd = open(local, "/proc/self/comm");
  const count = local.read(fd, address + 5, 100);
  local.call("close", fd);
  const expected = readFileSync("/proc/self/comm");
  assert.deepEqual(Buffer.from(bytes.subarray(5, 5 + count)), expected);
  assert.equal(view.getUint8(5), expected[0]);
});

test("a failure says what failed, where, and with which errno", { skip }, () => {
  assert.throws(
    () => open(local, "/no/such/file"),
    (error: unknown) => {
      assert.ok(error instanceof MinorfaultError);
      assert.equal(error.code, "ERR_SYSCALL");
      assert.equal(error.errno, ERRNO.ENOENT);
      assert.equal(error.operation, "openat");
      assert.match(error.message, /openat of \/no\/such\/file failed with ENOENT/);
      return true;
    },
  );
  assert.throws(() => open(local, "a\0b"), { code: "ERR_BAD_ARGUMENT" });
  assert.throws(() => open(local, "x".repeat(0x20000)), { code: "ERR_OUT_OF_RANGE" });
});

const HEADERS = {
  x64: ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"],
  arm64: ["/usr/include/asm-generic/unistd.h"],
} as const;

for (const architecture of ["x64", "arm64"] as const) {
  const header = HEADERS[architecture].find((path) => existsSync(path));
  test(`the numbers of ${architecture} are those of the system's header`, {
    skip: header === undefined && "linux-libc-dev is not installed",
  }, () => {
    const text = readFileSync(header ?? "", "utf8");
    const entries = Object.entries(syscallNumbers(architecture));
    for (const [name, number] of entries) {
      const found = text.match(new RegExp(`__NR(?:3264)?_${name} (\\d+)`));
      assert.equal(number, Number(found?.[1]), name);
    }
    assert.equal(new Set(entries.map(([, number]) => number)).size, entries.length);
  });
}

/** Runs a program that imports the layer in a process that was changed before. */
function elsewhere(change: string): string {
  const layer = new URL("../../src/linux/index.js", import.meta.url).href;
  const program = `
    import { createRequire } from "node:module";
    ${change}
    const { local } = await import(${JSON.stringify(layer)});
    try { local.call("getpid"); console.log("called"); } catch (error) { console.log(error.code); }
  `;
  const result = spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
  assert.equal(result.stderr, "");
  return result.stdout.trim();
}

test("elsewhere than on Linux the layer can be imported, and says so at the first call", () => {
  assert.equal(
    elsewhere(`Object.defineProperty(process, "platform", { value: "darwin" });`),
    "ERR_UNSUPPORTED_HOST",
  );
  assert.equal(
    elsewhere(`Object.defineProperty(process, "arch", { value: "mips" });`),
    "ERR_UNSUPPORTED_HOST",
  );
});

test("without koffi the layer can be imported, and says so at the first call", { skip }, () => {
  const change = `
    const Module = createRequire(process.execPath)("node:module");
    const load = Module._load;
    Module._load = function (name, ...rest) {
      if (name === "koffi") throw new Error("Cannot find module 'koffi'");
      return load.call(this, name, ...rest);
    };
  `;
  assert.equal(elsewhere(change), "ERR_NATIVE_MISSING");
});

test("importing the layer loads nothing native", { skip }, () => {
  const layer = new URL("../../src/linux/index.js", import.meta.url).href;
  const program = `
    import { readFileSync } from "node:fs";
    await import(${JSON.stringify(layer)});
    console.log(readFileSync("/proc/self/maps", "utf8").includes("koffi"));
  `;
  const output = execFileSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
  assert.equal(output.trim(), "false");
});
