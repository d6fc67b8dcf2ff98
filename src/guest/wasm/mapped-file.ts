// A local file mapped into a WebAssembly memory by the kernel: pages come from the page cache, writes make private copies.
//
// The mapping takes the place of V8's own in the middle of what V8 has reserved; growing, protecting and unmapping by V8
// go on as before, they work on addresses. The file must stay as it is while it is mapped. A memory that other threads
// write to is better served by a pager: `finish` would lose what they write meanwhile.

import { MADV, MAP, MREMAP, PAGE_SIZE } from "../../abi/memory.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundDown, roundUp } from "../../base/range.ts";
import { close, local, madvise, mmap, mremap, open, viewMemory } from "../../linux/index.ts";
import type { Content } from "../array-buffer/content.ts";
import type { MemoryStatistics, ResidentPages } from "../array-buffer/options.ts";
import { presentPages } from "../array-buffer/present-pages.ts";
import { checkWithin } from "../array-buffer/ranges.ts";
import type { LazyWasmMemory } from "./attach-memory.ts";
import type { WasmMemory } from "./web-assembly.ts";

/** Bytes brought at once: the thread is not held for longer. */
const PIECE_BYTES = 8 * 1024 * 1024;

/** Maps the file over the beginning of the memory, whose address is given. */
export function mapFileInto(memory: WasmMemory, content: Content, address: number): LazyWasmMemory {
  const { path, byteLength } = content;
  if (path === undefined) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${content.name} is not a local file: it can't be mapped`);
  }
  const fd = open(local, path);
  try {
    const mapped = roundUp(byteLength, PAGE_SIZE);
    mmap(local, mapped, { at: address, flags: MAP.PRIVATE | MAP.FIXED | MAP.NORESERVE, fd });
    return new MappedWasmMemory(memory, byteLength, address, mapped);
  } finally {
    close(local, fd);
  }
}

class MappedWasmMemory implements LazyWasmMemory {
  readonly memory: WasmMemory;
  readonly how = "mmap" as const;
  readonly byteLength: number;
  readonly isUserModeOnly = false;
  readonly #address: number;
  readonly #mapped: number;
  #isClosed = false;

  constructor(memory: WasmMemory, byteLength: number, address: number, mapped: number) {
    this.memory = memory;
    this.byteLength = byteLength;
    this.#address = address;
    this.#mapped = mapped;
  }

  /** Pages that this memory has: mapped here, not only in the page cache. */
  resident(): ResidentPages {
    const pagesTotal = this.#mapped / PAGE_SIZE;
    let pages = 0;
    if (!this.#isClosed) presentPages(this.#address, pagesTotal, () => pages++);
    return { pages, pagesTotal, bytes: pages * PAGE_SIZE };
  }

  async prefetch(
    offset = 0,
    byteLength: number = this.byteLength - offset,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    checkWithin(offset, byteLength, this.byteLength);
    const until = roundUp(this.#address + offset + byteLength, PAGE_SIZE);
    for (let at = roundDown(this.#address + offset, PAGE_SIZE); at < until; at += PIECE_BYTES) {
      options.signal?.throwIfAborted();
      this.#checkOpen();
      madvise(local, at, Math.min(PIECE_BYTES, until - at), MADV.POPULATE_READ);
      await new Promise(setImmediate);
    }
  }

  /** The kernel serves these faults, and does not tell us of them. */
  statistics(): MemoryStatistics {
    const latencyUs = { p50: 0, p99: 0, max: 0 };
    return { faults: 0, bytesInstalled: 0, bytesEvicted: 0, bytesSwapped: 0, poisoned: 0, latencyUs };
  }

  /**
   * Every page becomes the memory's own, piece by piece. Private copies within the mapping would not do: whoever
   * truncates the file takes them away too.
   */
  async finish(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    for (let at = 0; at < this.#mapped; at += PIECE_BYTES) {
      options.signal?.throwIfAborted();
      this.#checkOpen();
      this.#replace(at, Math.min(PIECE_BYTES, this.#mapped - at));
      await new Promise(setImmediate);
    }
    this.#isClosed = true;
  }

  #replace(offset: number, byteLength: number): void {
    const target = this.#address + offset;
    const copy = mmap(local, byteLength);
    // SAFETY: nobody keeps this view, and the addresses go to the memory when the bytes are in it.
    new Uint8Array(viewMemory(copy, byteLength)).set(new Uint8Array(this.memory.buffer, offset, byteLength));
    mremap(local, copy, byteLength, byteLength, MREMAP.MAYMOVE | MREMAP.FIXED, target);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const flags = MAP.PRIVATE | MAP.FIXED | MAP.ANONYMOUS | MAP.NORESERVE;
    mmap(local, this.#mapped, { at: this.#address, flags });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new MinorfaultError("ERR_CLOSED", "This memory has been finished or closed");
  }
}
