// A local file as the kernel maps it: where nothing is to be verified, decompressed or fetched, nobody does it better.

import { MAP, PAGE_SIZE, PROT } from "../../abi/memory.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { AddressRange, check, close, local, madvise, mmap, open } from "../../linux/index.ts";
import type { RepairReport, Trace } from "../../pager/index.ts";
import { Buffers } from "./buffers.ts";
import type { Content } from "./content.ts";
import type {
  FlushReport,
  LazyMemory,
  MemoryHandle,
  MemoryRegion,
  MemoryStatistics,
  ResidentPages,
} from "./options.ts";
import { checkWithin } from "./ranges.ts";

const MADV_POPULATE_READ = 22;
/** Pages asked of mincore(2) at once: its answer has a byte for each. */
const PAGES_PER_LOOK = 32_768;
/** Bytes brought at once: the thread is not held for longer. */
const PIECE_BYTES = 8 * 1024 * 1024;

/** Maps the file, to be read. Throws ERR_BAD_ARGUMENT where the content is not a local file. */
export function openMappedMemory(content: Content, why: string): LazyMemory {
  const { path } = content;
  if (path === undefined) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${content.name} is not a local file: it can't be mapped`);
  }
  const fd = open(local, path);
  try {
    const byteLength = roundUp(content.byteLength, PAGE_SIZE);
    const address = mmap(local, byteLength, { protection: PROT.READ, flags: MAP.SHARED, fd });
    return new MappedMemory(content, AddressRange.adopt(address, byteLength), why);
  } finally {
    close(local, fd);
  }
}

class MappedMemory implements LazyMemory {
  readonly name: string;
  readonly mode = "read" as const;
  readonly how = "mmap" as const;
  readonly why: string;
  readonly isUserModeOnly = false;
  readonly replayed: Promise<undefined> = Promise.resolve(undefined);
  readonly byteLength: number;
  readonly regions: readonly MemoryRegion[];
  readonly #range: AddressRange;
  readonly #buffers: Buffers;

  constructor(content: Content, range: AddressRange, why: string) {
    this.name = content.name;
    this.byteLength = content.byteLength;
    this.regions = content.regions;
    this.why = why;
    this.#range = range;
    this.#buffers = new Buffers(range, content.byteLength);
  }

  get buffer(): ArrayBuffer {
    return this.#buffers.whole;
  }

  window(offset: number, byteLength: number): ArrayBuffer {
    return this.#buffers.window(offset, byteLength);
  }

  /** What the page cache has of the file, whoever brought it there. */
  resident(): ResidentPages {
    const { scratch } = local;
    const pagesTotal = this.#range.byteLength / PAGE_SIZE;
    let pages = 0;
    for (let first = 0; first < pagesTotal && !this.#range.isClosed; first += PAGES_PER_LOOK) {
      const count = Math.min(PAGES_PER_LOOK, pagesTotal - first);
      const address = this.#range.address + first * PAGE_SIZE;
      check(local.call("mincore", address, count * PAGE_SIZE, scratch.address), "mincore", { address });
      for (const byte of scratch.bytes.subarray(0, count)) pages += byte & 1;
    }
    return { pages, pagesTotal, bytes: pages * PAGE_SIZE };
  }

  async prefetch(
    offset = 0,
    byteLength: number = this.byteLength - offset,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
    const first = this.#range.address + offset - (offset % PAGE_SIZE);
    const until = roundUp(this.#range.address + offset + byteLength, PAGE_SIZE);
    for (let at = first; at < until; at += PIECE_BYTES) {
      options.signal?.throwIfAborted();
      this.#checkOpen();
      madvise(local, at, Math.min(PIECE_BYTES, until - at), MADV_POPULATE_READ);
      await new Promise(setImmediate);
    }
  }

  async read(
    offset: number,
    byteLength: number,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<Uint8Array> {
    await this.prefetch(offset, byteLength, options);
    return new Uint8Array(this.#buffers.window(offset, byteLength)).slice();
  }

  /** No page of it can be poisoned. */
  async repair(offset = 0, byteLength: number = this.byteLength - offset): Promise<RepairReport> {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
    return { repaired: 0, lost: 0 };
  }

  async flush(): Promise<FlushReport> {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", 'A memory in mode "read" has nothing to flush');
  }

  /** The kernel serves these faults, and does not tell us of them. */
  statistics(): MemoryStatistics {
    const latencyUs = { p50: 0, p99: 0, max: 0 };
    return { faults: 0, bytesInstalled: 0, bytesEvicted: 0, bytesSwapped: 0, poisoned: 0, latencyUs };
  }

  trace(): Trace {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", 'This memory was not opened with "trace"');
  }

  share(): MemoryHandle {
    this.#checkOpen();
    const { name, byteLength } = this;
    return { kind: "minorfault-memory", name, byteLength, range: this.#range.handle };
  }

  async close(): Promise<void> {
    this.#range.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #checkOpen(): void {
    if (this.#range.isClosed) throw new MinorfaultError("ERR_CLOSED", "This memory has been closed");
  }
}
