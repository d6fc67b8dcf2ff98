// Keeps the pager's thread where its placement says, relative to the thread whose faults it serves: on that thread's
// CPU, or on any but that one. Where no message tells which thread that is, and this one works beside a guest, it
// keeps away from all of the guest's threads that run: the system moves neither of two that share a CPU for as long as one
// of them may run there only.
//
// Where a thread runs is field 39 of /proc/TID/stat. The file stays open and is asked now and then, since the answer
// costs as much as three faults.

import { readdirSync } from "node:fs";
import { O } from "../abi/memory.ts";
import { affinity, local, open, setAffinity } from "../linux/index.ts";
import type { PlacementMode } from "./options.ts";

const STAT_BYTES = 1024;
/** LIMIT: open files; a guest with more threads that fault is followed by the last ones. */
const FILES_MAX = 16;
/** How often to ask at most; and as long as none of a guest's threads has been seen to run. */
const INTERVAL_MS = 5;
const UNSEEN_INTERVAL_MS = 1;
/** Fields between the name and the CPU. */
const FIELDS_BEFORE_CPU = 37;
/** State R, for a thread that runs or would like to. */
const RUNNING = 0x52;

export class Follower {
  /** Where the guest was seen last; none: not known. */
  #guestCpus: readonly number[] = [];
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
    this.#place();
  }

  /** Looks where a thread is (at most every few milliseconds), and moves if need be. */
  follow(tid: number): void {
    if (tid <= 0 || !this.#isDue()) return;
    const seen = this.#look(tid);
    if (seen !== undefined) this.#goBy([seen.cpu]);
  }

  /** The same with all threads of a process that run; as long as none does it stays where it is. */
  followProcess(pid: number): void {
    if (pid <= 0 || !this.#isDue(this.#guestCpus.length > 0 ? INTERVAL_MS : UNSEEN_INTERVAL_MS)) return;
    const cpus = new Set<number>();
    for (const tid of threadsOf(pid)) {
      const seen = this.#look(tid);
      if (seen?.isRunning) cpus.add(seen.cpu);
    }
    if (cpus.size > 0) this.#goBy([...cpus]);
  }

  /** Where the next guest runs nobody knows. */
  forget(): void {
    this.#goBy([]);
    this.#askedMs = Number.NEGATIVE_INFINITY;
  }

  #isDue(intervalMs = INTERVAL_MS): boolean {
    const now = this.#now();
    if (now - this.#askedMs < intervalMs) return false;
    this.#askedMs = now;
    return true;
  }

  #goBy(guestCpus: readonly number[]): void {
    this.#guestCpus = guestCpus;
    this.#place();
  }

  /** Goes where the mode says. */
  #place(): void {
    const cpus = this.#wanted;
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
    const cpus = this.#wanted;
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

  get #wanted(): readonly number[] {
    const isWithGuest = this.#mode === "same-cpu" && this.#guestCpus.length > 0;
    const cpus = this.#allowed.filter((cpu) => this.#guestCpus.includes(cpu) === isWithGuest);
    return cpus.length > 0 ? cpus : this.#allowed;
  }

  /** Undefined: nothing is to be seen of it. */
  #look(tid: number): { readonly cpu: number; readonly isRunning: boolean } | undefined {
    const fd = this.#file(tid);
    if (fd < 0) return undefined;
    const { address, bytes } = local.scratch;
    const length = local.call("pread64", fd, address, STAT_BYTES, 0);
    if (length <= 0) return undefined;
    // The name stands in parentheses and may contain anything; the state is behind it.
    let at = bytes.subarray(0, length).lastIndexOf(0x29);
    const isRunning = bytes[at + 2] === RUNNING;
    for (let spaces = 0; spaces < FIELDS_BEFORE_CPU; at++) if (bytes[at] === 0x20) spaces++;
    let cpu = 0;
    for (; bytes[at] !== 0x20; at++) cpu = cpu * 10 + (bytes[at]! - 0x30);
    return { cpu, isRunning };
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

/** At most as many as are looked at. */
function threadsOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).slice(0, FILES_MAX).map(Number);
  } catch {
    // It has ended, or it is not ours to look at.
    return [];
  }
}
