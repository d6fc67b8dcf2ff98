// What the tests of bare processes begin with: a system, memory, a userfaultfd over it.

import assert from "node:assert/strict";
import { after } from "node:test";
import { MAP, O, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import { type GuestProcess, KernelSystem } from "../../src/guest/process/index.ts";
import { local } from "../../src/linux/index.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";

const systems: KernelSystem[] = [];
after(() => {
  for (const system of systems) system.close();
});

export function kernel(options?: { deadlineMs: number }): KernelSystem {
  const system = new KernelSystem(options);
  systems.push(system);
  return system;
}

export const PRIVATE = MAP.PRIVATE | MAP.ANONYMOUS;

export function mapped(
  process: GuestProcess,
  pages: number,
  protection = PROT.READ | PROT.WRITE,
  flags = PRIVATE,
): number {
  const address = process.call("mmap", 0, pages * PAGE_SIZE, protection, flags, -1, 0);
  assert.ok(address > 0, `mmap answered ${address}`);
  return address;
}

/** A userfaultfd of the process over so many fresh pages. */
export function paged(process: GuestProcess, pages: number, features = 0n) {
  const fd = process.call("userfaultfd", O.NONBLOCK | O.CLOEXEC);
  assert.ok(fd >= 0, `userfaultfd answered ${fd}`);
  const ioctls = new Ioctls(process, fd);
  assert.equal(ioctls.api(features).errno, 0);
  const address = mapped(process, pages);
  assert.equal(ioctls.register(address, pages * PAGE_SIZE, 1).errno, 0);
  return { fd, ioctls, address };
}

export const isThere = (pid: number): boolean => local.call("kill", pid, 0) === 0;
