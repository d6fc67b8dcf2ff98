// Keeps the pager's thread where its placement says, relative to the thread whose faults it serves: on that thread's
// CPU, or on any but that one.
//
// Where a thread runs is field 39 of /proc/TID/stat. The file stays open and is asked now and then, since the answer
// costs as much as three faults.

import { O } from "../abi/memory.ts";
import { affinity, local, open, setAffinity } from "../linux/index.ts";
import type { PlacementMode } from "./options.ts";

const STAT_BYTES = 1024;
/** LIMIT: open files; a guest with more threads that fault is followed by the last ones. */
const FILES_MAX = 16;
/** How often to ask at most. */
const INTERVAL_MS = 5;
/** Fields between the name and the CPU. */
const FIELDS_BEFORE_CPU = 37;

export class Follower {
  /** The guest's CPU as last seen, -1 when not known. */
  cpu = -1;
  readonly #allowed: readonly number[];
  readonly #files = new Map<number, number>();
  readonly #now: () => number;
  #mode: PlacementMode;
  #placed = "";
  /** Threads that work for this one, and should not have to share its CPU where it has but one. */
  readonly #helpers = new Set<number>();
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(mode: PlacementMode, now: () => number) {
    this.#mode = mode;
    this.#now = now;
    this.#allowed = affinity(local);
  }

  /** CPUs that this thread may use. */
  get allowed(): readonly number[] {
    return this.#allowed;
  }

  set mode(mode: PlacementMode) {
    this.#mode = mode;
    this.place(this.cpu);
  }

  /** Looks where a thread is (at most every few milliseconds), and moves if need be. */
  follow(tid: number): void {
    const now = this.#now();
    if (tid <= 0 || now - this.#askedMs < INTERVAL_MS) return;
    this.#askedMs = now;
    const cpu = this.#cpuOf(tid);
    if (cpu >= 0) this.place(cpu);
  }

  /** Goes where the mode says, given the guest's CPU. */
  place(cpu: number): void {
    this.cpu = cpu;
    const cpus = this.#wanted(cpu);
    const key = cpus.join(",");
    if (key === this.#placed) return;
    // First of all those who are there and busy: this one would wait for the end of their time.
    for (const tid of this.#helpers) this.#placeHelper(tid);
    setAffinity(local, cpus);
    this.#placed = key;
  }

  /** A thread of this process that works for this one: it goes where this one is not. */
  addHelper(tid: number): void {
    this.#helpers.add(tid);
    this.#placeHelper(tid);
  }

  removeHelper(tid: number): void {
    this.#helpers.delete(tid);
  }

  #placeHelper(tid: number): void {
    const cpus = this.#wanted(this.cpu);
    const others = cpus.length === 1 ? this.#allowed.filter((cpu) => cpu !== cpus[0]) : this.#allowed;
    try {
      setAffinity(local, others.length > 0 ? others : this.#allowed, tid);
    } catch {
      // It has ended.
      this.#helpers.delete(tid);
    }
  }

  close(): void {
    for (const fd of this.#files.values()) local.call("close", fd);
    this.#files.clear();
  }

  #wanted(cpu: number): readonly number[] {
    if (cpu < 0) return this.#allowed;
    if (this.#mode === "same-cpu") return this.#allowed.includes(cpu) ? [cpu] : this.#allowed;
    const others = this.#allowed.filter((other) => other !== cpu);
    return others.length > 0 ? others : this.#allowed;
  }

  #cpuOf(tid: number): number {
    const fd = this.#file(tid);
    if (fd < 0) return -1;
    const { address, bytes } = local.scratch;
    const length = local.call("pread64", fd, address, STAT_BYTES, 0);
    if (length <= 0) return -1;
    // The name stands in parentheses and may contain anything.
    let at = bytes.subarray(0, length).lastIndexOf(0x29);
    for (let spaces = 0; spaces < FIELDS_BEFORE_CPU; at++) if (bytes[at] === 0x20) spaces++;
    let cpu = 0;
    for (; bytes[at] !== 0x20; at++) cpu = cpu * 10 + (bytes[at]! - 0x30);
    return cpu;
  }

  #file(tid: number): number {
    const known = this.#files.get(tid);
    if (known !== undefined) return known;
    const [oldest] = this.#files;
    if (oldest !== undefined && this.#files.size >= FILES_MAX) {
      local.call("close", oldest[1]);
      this.#files.delete(oldest[0]);
    }
    let fd = -1;
    try {
      fd = open(local, `/proc/${tid}/task/${tid}/stat`, O.RDONLY);
    } catch {
      // It has ended, or it is not ours to look at: then we stay where we are.
    }
    this.#files.set(tid, fd);
    return fd;
  }
}
