// What Firecracker does when it restores a machine over `Uffd`, done by a process that we drive from outside: empty memory
// in regions, a userfaultfd on it, one message with one descriptor, and then guest code that touches pages.

import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { HUGE_PAGE_SIZE, MAP, PAGE_SIZE } from "../../src/abi/memory.ts";
import type { Thread } from "../../src/abi/system.ts";
import type { GuestProcess, KernelSystem } from "../../src/guest/process/index.ts";
import { connect, mmap, receive, send } from "../../src/linux/index.ts";
import { openUserfaultfd } from "../../src/uffd/index.ts";

export interface VmmRegion {
  readonly start: number;
  readonly byteLength: number;
  readonly offset: number;
  readonly pageSize: number;
}

/** The message of a version, byte for byte as serde_json writes it: no spaces, no end. */
export type Version = "1.6" | "1.7" | "1.12";

export function handOverText(regions: readonly VmmRegion[], version: Version = "1.12"): string {
  const items = regions.map(({ start, byteLength, offset, pageSize }) => ({
    base_host_virt_addr: start,
    size: byteLength,
    offset,
    ...(version === "1.12" ? { page_size: pageSize } : {}),
    ...(version === "1.6" ? {} : { page_size_kib: pageSize }),
  }));
  return JSON.stringify(items);
}

export interface VmmOptions {
  /** Bytes of each region; their content lies back to back in the image. */
  readonly regions: readonly number[];
  readonly isHuge?: boolean;
  /** As Firecracker does with a balloon device, and always from 1.12 on. Default true. */
  readonly tellsRemovals?: boolean;
}

export class Vmm {
  readonly process: GuestProcess;
  readonly regions: readonly VmmRegion[];
  readonly uffd: number;
  readonly thread: Thread;
  socket = -1;
  #memory = -1;

  constructor(system: KernelSystem, { regions, isHuge = false, tellsRemovals = true }: VmmOptions) {
    this.process = system.spawnProcess();
    const pageSize = isHuge ? HUGE_PAGE_SIZE : PAGE_SIZE;
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE | (isHuge ? MAP.HUGETLB | (21 << 26) : 0);
    let offset = 0;
    this.regions = regions.map((byteLength) => {
      const start = mmap(this.process, byteLength, { flags });
      offset += byteLength;
      return { start, byteLength, offset: offset - byteLength, pageSize };
    });
    const features = tellsRemovals ? (["EVENT_REMOVE"] as const) : [];
    const uffd = openUserfaultfd("kernel", this.process, { ways: ["device", "syscall"], features });
    for (const { start, byteLength } of this.regions) uffd.register(start, byteLength, { missing: true });
    this.uffd = uffd.fd;
    this.thread = this.process.spawnThread();
  }

  /** Connects and sends, from within the process, as whom the server sees. */
  handOver(path: string, text: string = handOverText(this.regions)): void {
    this.socket = connect(this.process, path);
    send(this.process, this.socket, new TextEncoder().encode(text), [this.uffd]);
  }

  /** Firecracker does not; a guest that does lives by the server alone. */
  closeOwnDescriptor(): void {
    this.process.call("close", this.uffd);
  }

  /** What the server has said so far, or its next line. */
  answer(): {
    readonly guest?: string;
    readonly error?: { readonly code: string; readonly message: string };
  } {
    const received = receive(this.process, this.socket);
    const text = new TextDecoder().decode(received?.bytes);
    return text === "" ? {} : JSON.parse(text);
  }

  /** The guest's thread loads 8 bytes of the image's byte `offset`; resolves when it has. */
  async load(offset: number): Promise<number> {
    this.thread.start({ kind: "load", address: this.addressOf(offset), size: 8 });
    const ending = await this.settled();
    if (ending.kind !== "value") throw new Error(`The load at ${offset} ended in ${JSON.stringify(ending)}`);
    return ending.value;
  }

  async settled(thread: Thread = this.thread): Promise<NonNullable<Thread["ending"]>> {
    for (;;) {
      const { ending } = thread;
      if (ending !== undefined) return ending;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  addressOf(offset: number): number {
    const region = this.regions.find(
      (each) => offset >= each.offset && offset < each.offset + each.byteLength,
    );
    return region!.start + offset - region!.offset;
  }

  /** SHA-256 of what lies in memory at an offset of the image, read from outside: pages that are missing fail. */
  hash(offset: number, byteLength: number): string {
    return createHash("sha256").update(this.read(offset, byteLength)).digest("hex");
  }

  read(offset: number, byteLength: number): Uint8Array {
    if (this.#memory < 0) this.#memory = openSync(`/proc/${this.process.pid}/mem`, "r");
    const bytes = new Uint8Array(byteLength);
    readSync(this.#memory, bytes, 0, byteLength, this.addressOf(offset));
    return bytes;
  }

  close(): void {
    if (this.#memory >= 0) closeSync(this.#memory);
    this.process.kill();
  }
}
