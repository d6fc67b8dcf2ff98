// A memory that was loaded whole: what there is where nothing can stop JavaScript at a missing page.

import { MinorfaultError } from "../../base/errors.ts";
import type { RepairReport, Trace } from "../../pager/index.ts";
import type { Content } from "./content.ts";
import type {
  FlushReport,
  LazyMemory,
  MemoryHandle,
  MemoryMode,
  MemoryRegion,
  MemoryStatistics,
  ResidentPages,
} from "./options.ts";
import { checkWithin } from "./ranges.ts";

const PAGE_SIZE = 4096;
const PIECE_BYTES = 4 * 1024 * 1024;

/** Loads everything. Throws ERR_LIMIT where that exceeds the budget. */
export async function loadEagerly(
  content: Content,
  mode: MemoryMode,
  budgetBytes: number,
  why: string,
): Promise<LazyMemory> {
  if (mode === "write-back") {
    throw new MinorfaultError("ERR_UNSUPPORTED_HOST", "Write-back needs a userfaultfd to find written pages");
  }
  if (budgetBytes > 0 && content.byteLength > budgetBytes) {
    throw new MinorfaultError(
      "ERR_LIMIT",
      `Without a userfaultfd all ${content.byteLength} bytes have to be loaded, the budget has ${budgetBytes}`,
      { hint: "PagedMemory of minorfault/software loads page by page on every host" },
    );
  }
  const source = await content.openSource();
  try {
    const bytes = new Uint8Array(content.byteLength);
    for (let at = 0; at < bytes.byteLength; at += PIECE_BYTES) {
      await source.read(at, bytes.subarray(at, Math.min(bytes.byteLength, at + PIECE_BYTES)));
    }
    return new EagerMemory(content, mode, bytes, why);
  } finally {
    await source.close();
  }
}

class EagerMemory implements LazyMemory {
  readonly name: string;
  readonly mode: MemoryMode;
  readonly how = "eager" as const;
  readonly why: string;
  readonly isUserModeOnly = false;
  readonly replayed: Promise<undefined> = Promise.resolve(undefined);
  readonly byteLength: number;
  readonly regions: readonly MemoryRegion[];
  #bytes: Uint8Array<ArrayBuffer>;
  #isClosed = false;

  constructor(content: Content, mode: MemoryMode, bytes: Uint8Array<ArrayBuffer>, why: string) {
    this.name = content.name;
    this.regions = content.regions;
    this.byteLength = bytes.byteLength;
    this.mode = mode;
    this.why = why;
    this.#bytes = bytes;
  }

  get buffer(): ArrayBuffer {
    this.#checkOpen();
    return this.#bytes.buffer;
  }

  window(offset: number, byteLength: number): ArrayBuffer {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
    if (offset === 0 && byteLength === this.byteLength) return this.#bytes.buffer;
    throw new MinorfaultError("ERR_UNSUPPORTED_HOST", "A loaded memory has one buffer and no windows", {
      hint: "Make a typed array over a part of `buffer`",
    });
  }

  resident(): ResidentPages {
    const pages = Math.ceil(this.byteLength / PAGE_SIZE);
    return { pages, pagesTotal: pages, bytes: this.byteLength };
  }

  async prefetch(offset = 0, byteLength: number = this.byteLength - offset): Promise<void> {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
  }

  async read(offset: number, byteLength: number): Promise<Uint8Array> {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
    return this.#bytes.slice(offset, offset + byteLength);
  }

  /** No page of it can be poisoned. */
  async repair(offset = 0, byteLength: number = this.byteLength - offset): Promise<RepairReport> {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
    return { repaired: 0, lost: 0 };
  }

  async flush(): Promise<FlushReport> {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `A memory in mode "${this.mode}" has nothing to flush`);
  }

  statistics(): MemoryStatistics {
    const latencyUs = { p50: 0, p99: 0, max: 0 };
    const bytesInstalled = this.byteLength;
    return { faults: 0, bytesInstalled, bytesEvicted: 0, bytesSwapped: 0, poisoned: 0, latencyUs };
  }

  trace(): Trace {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", 'This memory was not opened with "trace"');
  }

  share(): MemoryHandle {
    throw new MinorfaultError("ERR_UNSUPPORTED_HOST", "A loaded memory can't be shared between threads", {
      hint: "Post a copy of its buffer, or open it in each thread",
    });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // As with the others: a stale view reads zeros.
    this.#bytes.fill(0);
    this.#bytes = new Uint8Array(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new MinorfaultError("ERR_CLOSED", "This memory has been closed");
  }
}
