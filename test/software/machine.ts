// A process of a software system with a userfaultfd, and what the tests here do with it again and again.

import assert from "node:assert/strict";
import { MAP, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import type { Ending } from "../../src/abi/system.ts";
import { Ioctls } from "../../src/uffd/ioctls.ts";
import {
  createSystem,
  type SoftwareProcess,
  type SoftwareSystem,
  type SoftwareThread,
  type SystemOptions,
} from "../../src/uffd/software/index.ts";

export const PAGE: number = PAGE_SIZE;
const NONBLOCK = 0x800;

export class Machine {
  readonly system: SoftwareSystem;
  readonly process: SoftwareProcess;

  constructor(options?: SystemOptions, process?: SoftwareProcess) {
    this.system = process?.system ?? createSystem(options);
    this.process = process ?? this.system.spawnProcess();
  }

  /** A userfaultfd after its handshake. */
  open(features: bigint | number = 0, flags = NONBLOCK): Ioctls {
    const fd = this.process.call("userfaultfd", flags);
    assert.ok(fd >= 0, `userfaultfd answered ${fd}`);
    const uffd = new Ioctls(this.process, fd);
    assert.equal(uffd.api(features).errno, 0);
    return uffd;
  }

  /** Private anonymous memory, or shared. */
  map(pages: number, shared = false): number {
    const flags = MAP.ANONYMOUS | (shared ? MAP.SHARED : MAP.PRIVATE);
    const address = this.process.call("mmap", 0, pages * PAGE, PROT.READ | PROT.WRITE, flags, -1, 0);
    assert.ok(address > 0, `mmap answered ${address}`);
    return address;
  }

  /** A thread that has begun to load a byte. */
  load(address: number): SoftwareThread {
    const thread = this.process.spawnThread();
    thread.start({ kind: "load", address, size: 1 });
    return thread;
  }

  store(address: number, value: number): SoftwareThread {
    const thread = this.process.spawnThread();
    thread.start({ kind: "store", address, value });
    return thread;
  }

  /** Bytes for COPY, all of one value. */
  bytes(value: number, pages = 1): number {
    const shared = this.process.share(pages * PAGE);
    shared.bytes.fill(value);
    return shared.address;
  }
}

export function value(ending: Ending | undefined): number {
  assert.equal(ending?.kind, "value", `ended with ${JSON.stringify(ending)}`);
  return ending.value;
}

/** A seed for random tests: printed, and taken from SEED when a failure is looked at again. */
export function seed(): number {
  return Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
}

/** Numbers below n, the same for the same seed. */
export function random(start: number): (n: number) => number {
  let state = start | 0;
  return (n) => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) % n;
  };
}
