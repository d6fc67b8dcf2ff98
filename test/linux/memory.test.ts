// Memory outside the JavaScript heap: mapped, looked into, closed under live views.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { MADV, MAP, MREMAP, PROT } from "../../src/abi/memory.ts";
import {
  local,
  madvise,
  mapMemory,
  memfd,
  mmap,
  mprotect,
  mremap,
  munmap,
  VIEW_BYTES_MAX,
} from "../../src/linux/index.ts";
import { skipUnlessLinux as skip } from "./host.ts";

test("mapped memory is whole pages of zeros, the same for both sides", { skip }, () => {
  const memory = mapMemory(5000);
  assert.equal(memory.byteLength, 8192);
  assert.equal(memory.bytes.byteLength, 8192);
  assert.ok(memory.bytes.every((byte) => byte === 0));
  memory.bytes.set(new TextEncoder().encode("/proc/self/stat\0"), 4100);
  const fd = local.call("openat", -100, memory.address + 4100, 0, 0);
  assert.ok(fd >= 0);
  assert.ok(local.read(fd, memory.address, 4096) > 0);
  assert.equal(Number.parseInt(Buffer.from(memory.bytes.subarray(0, 20)).toString(), 10), process.pid);
  local.call("close", fd);
  memory.close();
});

test("a stale view of closed memory reads zeros and does not crash", { skip }, () => {
  const memory = mapMemory(3 * 4096);
  const { bytes, view } = memory;
  const middle = bytes.subarray(4096, 8192).fill(7);
  memory.close();
  memory.close();
  assert.ok(middle.every((byte) => byte === 0));
  assert.equal(view.getUint32(0), 0);
  // Writing is harmless too: the pages belong to nobody else.
  bytes[0] = 1;
  assert.equal(bytes[0], 1);
});

test("the address range of closed memory goes back when its last view is collected", { skip }, () => {
  const layer = new URL("../../src/linux/index.js", import.meta.url).href;
  const program = `
    import { readFileSync } from "node:fs";
    const { mapMemory } = await import(${JSON.stringify(layer)});
    const at = 0x123400000000;
    const mapped = () => readFileSync("/proc/self/maps", "utf8").includes("123400000000-");
    const said = [];
    let view;
    (() => { const memory = mapMemory(1 << 20, { at }); view = memory.bytes.subarray(5, 6); memory.close(); })();
    const collect = async () => { for (let i = 0; i < 5; i++) { gc(); await new Promise(setImmediate); } };
    await collect();
    said.push(mapped(), view[0]);
    view = undefined;
    await collect();
    said.push(mapped());
    console.log(JSON.stringify(said));
  `;
  const result = spawnSync(process.execPath, ["--expose-gc", "--input-type=module", "-e", program], {
    encoding: "utf8",
  });
  assert.equal(result.stderr, "");
  assert.equal(result.stdout.trim(), "[true,0,false]");
});

test("lengths that cannot be are refused before the system is asked", { skip }, () => {
  for (const length of [0, -4096, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => mapMemory(length), { code: "ERR_BAD_ARGUMENT" });
  }
  assert.throws(() => mapMemory(VIEW_BYTES_MAX + 1), { code: "ERR_OUT_OF_RANGE" });
});

test("memory is placed where it was asked for, and never over something else", { skip }, () => {
  const at = 0x1234_0000_0000;
  const memory = mapMemory(4096, { at });
  assert.equal(memory.address, at);
  assert.throws(() => mapMemory(4096, { at }), { code: "ERR_SYSCALL", errno: 17 });
  memory.close();
});

test("two mappings of one memfd are the same memory, from any offset", { skip }, () => {
  const fd = memfd(local, "test", 0x20000);
  const whole = mapMemory(0x20000, { fd });
  const half = mapMemory(0x10000, { fd, offset: 0x10000 });
  whole.bytes[0x10003] = 9;
  assert.equal(half.bytes[3], 9);
  half.close();
  assert.equal(whole.bytes[0x10003], 9, "closing one leaves the file alone");
  whole.close();
  local.call("close", fd);
  assert.throws(() => memfd(local, "test", -1), { code: "ERR_SYSCALL", operation: "ftruncate" });
});

test("shared memory is shared with the kernel's page cache, private memory is not", { skip }, () => {
  for (const shared of [true, false]) {
    const memory = mapMemory(4096, { shared });
    const line = readFileSync("/proc/self/maps", "utf8")
      .split("\n")
      .find((text) => text.startsWith(memory.address.toString(16)));
    // The kernel may have joined a private area to its neighbour: then no line begins here.
    if (line !== undefined) assert.equal(line.includes("rw-s"), shared, line);
    memory.close();
  }
});

test("mmap, mprotect, madvise, mremap and munmap do what they say or throw with the address", {
  skip,
}, () => {
  const address = mmap(local, 0x4000);
  local.scratch.bytes.fill(3, 0, 8);
  const touch = () => local.call("getcpu", address, 0, 0);
  assert.equal(touch(), 0);
  mprotect(local, address, 0x4000, PROT.READ);
  assert.equal(touch(), -14);
  mprotect(local, address, 0x4000, PROT.READ | PROT.WRITE);
  madvise(local, address, 0x1000, MADV.DONTNEED);
  const moved = mremap(local, address, 0x4000, 0x8000, MREMAP.MAYMOVE);
  assert.notEqual(moved, 0);
  munmap(local, moved, 0x8000);
  assert.equal(local.call("getcpu", moved, 0, 0), -14);
  assert.throws(() => munmap(local, 1, 0x1000), { code: "ERR_SYSCALL", errno: 22, address: 1 });
  assert.throws(() => mmap(local, 0x1000, { flags: MAP.PRIVATE, fd: -1 }), {
    code: "ERR_SYSCALL",
    errno: 9,
    operation: "mmap",
  });
});
