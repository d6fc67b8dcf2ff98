// A stand-in for Firecracker: a process of its own with a small KVM machine, whose memory it hands over to a page server
// by Firecracker's protocol, byte for byte.
//
//   this process                      the VMM: a bare process                      the server
//   ┌──────────────┐  orders          ┌────────────────────────────────┐
//   │ Vmm          │ ───────────────▶ │ guest memory, userfaultfd ─────┼── one message, one descriptor ──▶
//   │ what pages   │  times, words,   │ a virtual CPU touches pages    │
//   │   may hold   │ ◀─────────────── │ a thread hashes them whole     │ ◀── pages
//   └──────────────┘  hashes          │ a thread gives pages away      │
//                                     └────────────────────────────────┘
//
// It does what Firecracker does in its order: map, open, register, connect, send; then the socket stays as it is (before
// 1.12 it was closed). It dies with us, and every wait of ours has a deadline.

import { setTimeout as delay } from "node:timers/promises";
import { MADV, PAGE_SIZE } from "../../src/abi/memory.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import type { Access } from "../../src/guest/kvm/index.ts";
import { type GuestProcess, type GuestThread, KernelSystem } from "../../src/guest/process/index.ts";
import { close, connect, receive, send } from "../../src/linux/index.ts";
import { openUserfaultfd } from "../../src/uffd/open.ts";
import { ImageContent, type Look, PageBook } from "./vmm-content.ts";
import { type Cpu, type CpuWalk, openCpu } from "./vmm-cpu.ts";
import { Hasher } from "./vmm-hasher.ts";
import { type MappedRegion, mapRegions, pageCountOf, regionOf, type VmmRegion } from "./vmm-memory.ts";
import { handOverMessage, type VmmVersion } from "./vmm-message.ts";

export { ImageContent } from "./vmm-content.ts";
export type { VmmRegion } from "./vmm-memory.ts";
export type { VmmVersion } from "./vmm-message.ts";

/** How often we look whether something has ended: soon at first. */
const GLANCE_MS = { first: 1, last: 4 } as const;
const DEADLINE_MS = 60_000;
/** LIMIT: pages that are hashed in one go. */
const HASHED_MAX = 65_536;

export interface VmmOptions {
  /** Where the server listens. */
  readonly socket: string;
  /** Bytes of one region, or several with a gap between them. */
  readonly regions: number | readonly VmmRegion[];
  /** A raw file of what memory should hold: then everything that is read is checked. */
  readonly image?: string | ImageContent;
  /** Default "1.12". */
  readonly version?: VmmVersion;
  /** Default: a virtual CPU where there is KVM. */
  readonly cpu?: Cpu["kind"];
  /** The CPU of this machine that all its threads stay on. */
  readonly pin?: number;
  /** Connects and hands over at once. Default true; else `handOver` does. */
  readonly handOver?: boolean;
  /** Whether the device was configured before 1.12, without which there are no events. Default true. */
  readonly balloon?: boolean;
  /** Whether there is a userfaultfd on its memory. Default true; false: for comparison, plain memory, nothing to hand over. */
  readonly watched?: boolean;
  /** Of everything that is waited for. Default 10 s. */
  readonly deadlineMs?: number;
  /** Whose processes it is one of. Default: a system of its own. */
  readonly system?: KernelSystem;
}

/** Pages in the order in which they are touched. */
export type TouchOrder =
  | Uint32Array
  | {
      readonly from?: number;
      /** Default: to the end. */
      readonly count?: number;
      readonly stride?: number;
      /** In random order, by this seed. */
      readonly shuffle?: number;
    };

export interface Touched {
  /** Of each access as the guest's clock saw it, in order. */
  readonly latenciesUs: Float64Array;
  /** What was read and should not have been; empty when all is right, or nothing was there to compare with. */
  readonly wrong: readonly string[];
}

/** A walk that goes on. */
export interface Walking {
  /** Accesses done so far. */
  readonly done: number;
  /** Blocks this thread until the walk has ended: for whoever measures that moment. */
  wait(): Touched;
  ended(): Promise<Touched>;
}

export function startVmm(options: VmmOptions): Vmm {
  return new Vmm(options);
}

export class Vmm {
  readonly process: GuestProcess;
  readonly regions: readonly MappedRegion[];
  readonly pageCount: number;
  readonly cpu: Cpu;
  /** Why the CPU is no virtual one. */
  readonly why: string | undefined;
  /** The userfaultfd's number in the VMM. */
  readonly uffd: number;
  readonly #options: VmmOptions;
  readonly #deadlineMs: number;
  readonly #system: KernelSystem;
  readonly #hasher: Hasher;
  readonly #balloon: GuestThread;
  readonly #content: ImageContent | undefined;
  readonly #book: PageBook | undefined;
  #socket = -1;
  #heard = "";
  #isHungUp = false;

  constructor(options: VmmOptions) {
    this.#options = options;
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    this.#system = options.system ?? new KernelSystem();
    this.process = this.#system.spawnProcess();
    const { process } = this;
    const regions = typeof options.regions === "number" ? [{ byteLength: options.regions }] : options.regions;
    this.regions = mapRegions(process, regions);
    this.pageCount = pageCountOf(this.regions);
    this.uffd = options.watched === false ? -1 : this.#watch();
    const { cpu, why } = openCpu(process, this.regions, options.cpu);
    this.cpu = cpu;
    this.why = why;
    this.#hasher = new Hasher(process, Math.min(this.pageCount, HASHED_MAX));
    this.#balloon = process.spawnThread();
    if (options.pin !== undefined) process.pin(options.pin);
    const { image } = options;
    this.#content = typeof image === "string" ? new ImageContent(image) : image;
    this.#book = this.#content === undefined ? undefined : this.#makeBook(this.#content);
    if (options.handOver !== false) this.handOver();
  }

  get pid(): number {
    return this.process.pid;
  }

  /** What Firecracker sends. */
  get message(): string {
    return handOverMessage(this.regions, this.#options.version);
  }

  /** Connects and sends, in one message; answers when that began (performance.now). */
  handOver(): number {
    this.#socket = connect(this.process, this.#options.socket);
    const bytes = new TextEncoder().encode(this.message);
    const began = performance.now();
    const sent = send(this.process, this.#socket, bytes, [this.uffd]);
    if (sent !== bytes.byteLength) throw new Error(`Only ${sent} of ${bytes.byteLength} bytes were sent`);
    const { version = "1.12" } = this.#options;
    if (version !== "1.12") {
      close(this.process, this.#socket);
      this.#socket = -1;
    }
    return began;
  }

  /** What the server has said so far, and whether it has hung up. Firecracker never looks. */
  heard(): { readonly text: string; readonly isHungUp: boolean } {
    while (this.#socket >= 0 && !this.#isHungUp) {
      const received = receive(this.process, this.#socket, undefined, { now: true });
      if (received === undefined) break;
      this.#isHungUp = received.bytes.byteLength === 0;
      this.#heard += new TextDecoder().decode(received.bytes);
    }
    return { text: this.#heard, isHungUp: this.#isHungUp };
  }

  /** Waits until the server has hung up; what it said. */
  async refusal(): Promise<string> {
    await this.#until("The server's hanging up", () => this.heard().isHungUp || undefined);
    return this.#heard;
  }

  /** Sends the CPU to touch pages. A read leaves what it read, and that is checked; a load is faster. */
  begin(order: TouchOrder, access: Access = "read"): Walking {
    const pages = this.#pagesOf(order);
    const look = access === "read" ? this.#book?.beginLook(pages) : undefined;
    if (access === "store") this.#book?.beginStore(pages);
    this.cpu.start(pages, access);
    const end = (walk: CpuWalk): Touched => this.#ended(pages, access, look, walk);
    const { cpu } = this;
    const what = () => `The walk (${cpu.done} of ${pages.length} pages)`;
    return {
      get done() {
        return cpu.done;
      },
      wait: () => end(this.#blockedUntil(what, () => cpu.poll(), cpu.thread)),
      ended: async () => end(await this.#until(what, () => cpu.poll())),
    };
  }

  touch(order: TouchOrder, access: Access = "read"): Promise<Touched> {
    return this.begin(order, access).ended();
  }

  /** Has a thread of the VMM hash pages whole, touching what is missing; what is wrong. */
  async verify(order: TouchOrder = {}): Promise<readonly string[]> {
    const all = this.#pagesOf(order);
    const wrong: string[] = [];
    for (let from = 0; from < all.length; from += HASHED_MAX) {
      const pages = all.subarray(from, from + HASHED_MAX);
      const look = this.#book?.beginLook(pages);
      this.#hasher.start(Array.from(pages, (page) => this.addressOf(page)));
      await this.#endOf(this.#hasher.thread, "The hashing of pages");
      if (look !== undefined) {
        wrong.push(...this.#book!.endLookAtHashes(look, this.#hasher.hashes(pages.length)));
      }
    }
    return wrong;
  }

  /** Gives pages away, as the balloon does: while the CPU walks, if it does. They are zeros from then on. */
  async balloon(from: number, count: number): Promise<void> {
    const { firstPage, byteLength } = regionOf(this.regions, from);
    const until = from + count;
    if (until > firstPage + byteLength / PAGE_SIZE) throw new RangeError("A balloon lies in one region");
    this.#book?.beginDiscard(from, until);
    const args = [this.addressOf(from), count * PAGE_SIZE, MADV.DONTNEED];
    this.#balloon.start({ kind: "call", name: "madvise", args });
    const result = await this.#endOf(this.#balloon, "The balloon's madvise");
    if (result !== 0) throw new Error(`madvise answered ${result}`);
    this.#book?.endDiscard(from, until);
  }

  addressOf(page: number): number {
    const { address, firstPage } = regionOf(this.regions, page);
    return address + (page - firstPage) * PAGE_SIZE;
  }

  /** Whether it lives. */
  get isAlive(): boolean {
    return this.process.exited === undefined;
  }

  /** Waits until somebody has ended it; its wait status. */
  died(): Promise<number> {
    return this.#until("The end of the VMM", () => this.process.exited);
  }

  /** SIGKILL, at whatever it does. */
  kill(): void {
    this.process.kill();
  }

  close(): void {
    this.process.kill();
    if (this.#options.system === undefined) this.#system.close();
    if (typeof this.#options.image === "string") this.#content?.close();
  }

  /** Opens a userfaultfd and registers all memory. */
  #watch(): number {
    const { version = "1.12", balloon = true } = this.#options;
    const uffd = openUserfaultfd("kernel", this.process, {
      // KVM touches memory from inside the kernel: a userfaultfd for user space only would not let it wait.
      ways: ["device", "syscall"],
      features: version === "1.12" || balloon ? ["EVENT_REMOVE"] : [],
      nonBlocking: true,
    });
    for (const { address, byteLength } of this.regions) uffd.register(address, byteLength, { missing: true });
    return uffd.fd;
  }

  #makeBook(content: ImageContent): PageBook {
    return new PageBook({
      pageCount: this.pageCount,
      content,
      offsetOf: (page) => {
        const { imageOffset, firstPage } = regionOf(this.regions, page);
        return imageOffset + (page - firstPage) * PAGE_SIZE;
      },
      stored: (page, word) => this.cpu.stored(page, word),
    });
  }

  #pagesOf(order: TouchOrder): Uint32Array {
    if (order instanceof Uint32Array) return order;
    const { from = 0, stride = 1, shuffle } = order;
    const count = order.count ?? Math.ceil((this.pageCount - from) / stride);
    if (shuffle === undefined)
      return Uint32Array.from({ length: count }, (_, index) => from + index * stride);
    return new Random(shuffle).sample(count, count).map((index) => from + index * stride);
  }

  #ended(pages: Uint32Array, access: Access, look: Look | undefined, walk: CpuWalk): Touched {
    const { latenciesUs, words } = walk;
    if (access === "store") this.#book?.endStore(pages);
    const wrong = look !== undefined && words !== undefined ? this.#book!.endLookAtWords(look, words) : [];
    return { latenciesUs, wrong };
  }

  async #endOf(thread: GuestThread, what: string): Promise<number> {
    const ending = await this.#until(what, () => thread.ending);
    if (ending.kind === "value") return ending.value;
    if (ending.kind === "gone") throw new MinorfaultError("ERR_CLOSED", `${what}: the guest has ended`);
    throw new MinorfaultError("ERR_MEMORY_FAULT", `${what} ended in signal ${ending.signal}`);
  }

  async #until<T>(what: string | (() => string), look: () => T | undefined): Promise<T> {
    const until = performance.now() + this.#deadlineMs;
    for (let pause: number = GLANCE_MS.first; ; pause = Math.min(2 * pause, GLANCE_MS.last)) {
      const found = look();
      if (found !== undefined) return found;
      this.#checkDeadline(until, what);
      await delay(pause);
    }
  }

  #blockedUntil<T>(what: () => string, look: () => T | undefined, thread: GuestThread): T {
    const until = performance.now() + this.#deadlineMs;
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      this.#checkDeadline(until, what);
      thread.wait(50);
    }
  }

  #checkDeadline(until: number, what: string | (() => string)): void {
    if (performance.now() < until) return;
    const name = typeof what === "string" ? what : what();
    const heard = this.isAlive ? this.heard().text.trim() : "";
    const said = heard === "" ? "" : `; the server said ${heard}`;
    throw new MinorfaultError("ERR_DEADLINE", `${name} did not come in ${this.#deadlineMs} ms${said}`);
  }
}
