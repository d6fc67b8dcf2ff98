// A thousand guests of one pager: bare processes with some pages each, and the times of their faults as they see them.

import { MADV, MAP, PAGE_SIZE } from "../src/abi/memory.ts";
import type { Scratch } from "../src/abi/system.ts";
import type { FeatureName } from "../src/abi/userfaultfd.ts";
import { type GuestProcess, type GuestThread, KernelSystem } from "../src/guest/process/index.ts";
import { affinity, close, local, mmap } from "../src/linux/index.ts";
import type { Pager, PagerHost, PagerOptions } from "../src/pager/index.ts";
import { openUserfaultfd } from "../src/uffd/open.ts";
import type { Post } from "./c-handler.ts";
import type { LoadMeter } from "./load.ts";

/** LIMIT: a walk that takes longer hangs. */
const WALK_MS = 60_000;

export interface CrowdOptions {
  readonly guests: number;
  readonly pages: number;
  /** Pages of a walk, at most; default: all. */
  readonly recordPages?: number;
  readonly features?: readonly FeatureName[];
  /** What the guests use of the CPUs is the benchmark's own. */
  readonly meter: LoadMeter;
  /** Beside descriptor, regions and guest. */
  readonly pager: Partial<PagerOptions>;
}

/** What is needed of a pager here. */
export type Served = Pick<Pager, "threadId" | "close"> &
  Partial<Pick<Pager, "installAll" | "residency">> & { readonly ended: Promise<unknown> };

/** Where somebody else finds a guest. */
export type Place = Pick<Post, "pid" | "fd" | "base">;

export interface Member {
  readonly process: GuestProcess;
  readonly thread: GuestThread;
  readonly base: number;
  readonly pager: Served;
  readonly record: Scratch;
  /** Pages that it has touched. */
  touched: number;
}

/** Microseconds. */
export interface Times {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export class Crowd {
  readonly members: Member[] = [];
  readonly #system = new KernelSystem();
  readonly #options: CrowdOptions;
  #ticksPerUs = 1;

  constructor(options: CrowdOptions) {
    this.#options = options;
  }

  /** Starts the processes, each with its memory in the host's hands. */
  async start(host: PagerHost): Promise<void> {
    await this.startEach((options) => host.start(options));
  }

  /** The same, each served by whatever `serve` starts. */
  async startEach(serve: (options: PagerOptions, place: Place) => Promise<Served>): Promise<void> {
    for (let index = 0; index < this.#options.guests; index++) this.members.push(await this.#member(serve));
    this.#ticksPerUs = this.members[0]!.process.tickRate() / 1e6;
  }

  async #member(serve: (options: PagerOptions, place: Place) => Promise<Served>): Promise<Member> {
    const { pages, recordPages = pages, features = [], pager: more, meter } = this.#options;
    const byteLength = pages * PAGE_SIZE;
    const process = this.#system.spawnProcess();
    meter.add(process.pid);
    const thread = process.spawnThread();
    const [home = 0] = affinity(local);
    thread.pin(home);
    const base = mmap(process, byteLength, { flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE });
    const uffd = openUserfaultfd("kernel", process, { features });
    uffd.register(base, byteLength, { missing: true });
    const record = process.share(recordPages * 4);
    record.bytes.fill(1);
    const count = Math.ceil((recordPages * 4) / PAGE_SIZE);
    thread.walk({ base: record.address, order: { count, stride: 1 } });
    thread.wait(WALK_MS);
    const descriptor = process.descriptor(uffd.fd);
    try {
      const pager = await serve(
        {
          descriptor,
          regions: [{ start: base, byteLength, imageOffset: 0 }],
          guest: { pid: process.pid, tid: thread.tid },
          onError: (error) => console.error("pager:", error.message),
          ...more,
        },
        { pid: process.pid, fd: uffd.fd, base },
      );
      return { process, thread, base, pager, record, touched: 0 };
    } finally {
      close(local, descriptor);
    }
  }

  /** These touch their next pages, one guest after the other; what each page took. */
  touch(members: readonly Member[], pages: number): number[] {
    return members.flatMap((member) => {
      this.#begin(member, pages);
      return this.#finish(member, pages);
    });
  }

  /** The same, all guests at once; what each page took, by guest. */
  touchTogether(members: readonly Member[], pages: number): number[][] {
    for (const member of members) this.#begin(member, pages);
    return members.map((member) => this.#finish(member, pages));
  }

  /** A guest drops all of its memory. */
  discard({ thread, base }: Member): void {
    const args = [base, this.#options.pages * PAGE_SIZE, MADV.DONTNEED];
    thread.start({ kind: "call", name: "madvise", args });
    if (!thread.wait(WALK_MS)) throw new Error("The guest hangs in madvise");
  }

  #begin(member: Member, pages: number): void {
    const { thread, base, record, touched } = member;
    if (touched + pages > this.#options.pages) throw new Error("This guest has no untouched pages left");
    thread.walk({ base: base + touched * PAGE_SIZE, order: { count: pages, stride: 1 }, record });
  }

  #finish(member: Member, pages: number): number[] {
    const { thread, record } = member;
    if (!thread.wait(WALK_MS)) throw new Error(`Guest ${member.process.pid} hangs`);
    member.touched += pages;
    const ticks = new Uint32Array(record.bytes.buffer, record.bytes.byteOffset, pages);
    return Array.from(ticks, (tick) => tick / this.#ticksPerUs);
  }

  /** A process that uses all of a CPU: wherever the scheduler puts it, or the guests' one. Answers how to end it. */
  hog(isPinned: boolean): () => void {
    const { meter } = this.#options;
    const process = this.#system.spawnProcess();
    meter.add(process.pid);
    const thread = process.spawnThread();
    const [home = 0] = affinity(local);
    if (isPinned) thread.pin(home);
    const base = mmap(process, PAGE_SIZE);
    thread.walk({ base, order: { count: 2 ** 31, stride: 0 } });
    return () => {
      meter.leave(process.pid);
      process.kill();
    };
  }

  /** Ends the guests, and waits for their pagers to see it. */
  async close(): Promise<void> {
    for (const { process } of this.members) this.#options.meter.leave(process.pid);
    this.#system.close();
    await Promise.all(this.members.map(({ pager }) => pager.ended));
  }
}

export function times(samples: readonly number[]): Times {
  const sorted = Float64Array.from(samples).sort();
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: sorted.at(-1)! };
}
