// A lazy memory whose pages are brought by a pager of this process, behind Linux's userfaultfd.

import { PAGE_SIZE, PROT } from "../../abi/memory.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { AddressRange } from "../../linux/index.ts";
import type { RepairReport, ReplayReport, Trace } from "../../pager/index.ts";
import { Buffers } from "./buffers.ts";
import type { Content } from "./content.ts";
import { type DirtyPages, ScannedPages, TrackedPages } from "./dirty-pages.ts";
import { unwatchExit, watchExit } from "./exit.ts";
import { type FlushTarget, flushTarget } from "./flush-target.ts";
import { readMemory } from "./memory-reader.ts";
import type {
  FlushReport,
  LazyMemory,
  MemoryHandle,
  MemoryMode,
  MemoryRegion,
  MemoryStatistics,
  OpenMemoryOptions,
  ResidentPages,
} from "./options.ts";
import { PagedRegion, type WriteFinding } from "./paged-region.ts";
import { checkWithin } from "./ranges.ts";
import { Turns } from "./turns.ts";

/** LIMIT: bytes that one `read` copies. */
const READ_BYTES_MAX = 2 ** 31 - 1;

export interface KernelMemoryOptions extends OpenMemoryOptions {
  readonly mode: MemoryMode;
  readonly budgetBytes: number;
  readonly why: string;
  readonly onError: (error: MinorfaultError) => void;
  readonly says: boolean;
}

export async function openKernelMemory(content: Content, options: KernelMemoryOptions): Promise<LazyMemory> {
  const { mode, budgetBytes, onError, swapFolder, plan, placement, trace = false, pager } = options;
  // Refused before anything is opened.
  if (mode === "write-back") flushTarget(content);
  const byteLength = roundUp(content.byteLength, PAGE_SIZE);
  const range = AddressRange.reserve(byteLength, mode === "read" ? PROT.READ : PROT.READ | PROT.WRITE);
  const { address } = range;
  const base = {
    address,
    byteLength,
    content: content.pager,
    budgetBytes,
    swapFolder,
    plan,
    placement,
    trace,
    pagerIn: pager,
    server: options.server,
    onError,
    says: options.says,
  };
  try {
    const finding = findingFor(mode, budgetBytes);
    const region = await openFinding(finding, (writes) => PagedRegion.open({ ...base, writes }));
    return new KernelMemory(content, options, range, region);
  } catch (error) {
    range.close();
    throw error;
  }
}

function findingFor(mode: MemoryMode, budgetBytes: number): WriteFinding {
  if (mode === "read") return "none";
  // What is evicted has to be known exactly when it is evicted; a scan comes too late.
  if (budgetBytes > 0) return "track";
  return mode === "write-back" ? "scan" : "none";
}

/** Kernels before 6.7 have no WP_ASYNC. */
async function openFinding(
  finding: WriteFinding,
  open: (finding: WriteFinding) => Promise<PagedRegion>,
): Promise<{ finding: WriteFinding; paged: PagedRegion }> {
  try {
    return { finding, paged: await open(finding) };
  } catch (error) {
    const isTooOld = error instanceof MinorfaultError && error.code === "ERR_FEATURE_MISSING";
    if (!isTooOld || finding !== "scan") throw error;
    return { finding: "track", paged: await open("track") };
  }
}

class KernelMemory implements LazyMemory {
  readonly name: string;
  readonly mode: MemoryMode;
  readonly how = "userfaultfd" as const;
  readonly why: string;
  readonly byteLength: number;
  readonly regions: readonly MemoryRegion[];
  readonly isUserModeOnly: boolean;
  readonly #range: AddressRange;
  readonly #paged: PagedRegion;
  readonly #isTraced: boolean;
  readonly #buffers: Buffers;
  readonly #dirty: DirtyPages | undefined;
  readonly #target: FlushTarget | undefined;
  readonly #flushes = new Turns();
  #closing: Promise<void> | undefined;

  constructor(
    content: Content,
    options: KernelMemoryOptions,
    range: AddressRange,
    { finding, paged }: { finding: WriteFinding; paged: PagedRegion },
  ) {
    this.name = content.name;
    this.mode = options.mode;
    this.why = options.why;
    this.byteLength = content.byteLength;
    this.regions = content.regions;
    this.isUserModeOnly = paged.isUserModeOnly;
    this.#isTraced = options.trace ?? false;
    this.#range = range;
    this.#paged = paged;
    this.#buffers = new Buffers(range, content.byteLength);
    if (options.mode === "write-back") {
      this.#target = flushTarget(content);
      const { address, byteLength } = range;
      this.#dirty =
        finding === "scan"
          ? new ScannedPages(address, byteLength)
          : new TrackedPages(paged.pager, byteLength / PAGE_SIZE);
    }
    watchExit(this);
  }

  get buffer(): ArrayBuffer {
    return this.#buffers.whole;
  }

  window(offset: number, byteLength: number): ArrayBuffer {
    return this.#buffers.window(offset, byteLength);
  }

  resident(): ResidentPages {
    return this.#paged.resident();
  }

  async prefetch(
    offset = 0,
    byteLength: number = this.byteLength - offset,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
    await this.#paged.prefetch(offset, byteLength, options.signal);
  }

  async read(
    offset: number,
    byteLength: number,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<Uint8Array> {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
    if (byteLength > READ_BYTES_MAX) {
      throw new MinorfaultError("ERR_LIMIT", `One read copies at most ${READ_BYTES_MAX} bytes`);
    }
    await this.#paged.prefetch(offset, byteLength, options.signal);
    this.#checkOpen();
    // What has been evicted meanwhile is brought again: JavaScript itself may always touch it.
    return new Uint8Array(this.#buffers.window(offset, byteLength)).slice();
  }

  async repair(offset = 0, byteLength: number = this.byteLength - offset): Promise<RepairReport> {
    this.#checkOpen();
    checkWithin(offset, byteLength, this.byteLength);
    return await this.#paged.repair(offset, byteLength);
  }

  async flush(): Promise<FlushReport> {
    this.#checkOpen();
    return await this.#flushes.take(() => this.#flush());
  }

  async #flush(): Promise<FlushReport> {
    const dirty = this.#dirty;
    const target = this.#target;
    if (dirty === undefined || target === undefined) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `A memory in mode "${this.mode}" has nothing to flush`, {
        hint: 'Open it with mode: "write-back"',
      });
    }
    const pages = await dirty.begin();
    // The last page of a file may be a part of one.
    const ranges = pages.map(({ offset, byteLength }) => ({
      offset,
      byteLength: Math.min(byteLength, this.byteLength - offset),
    }));
    let isDurable = false;
    let dropped: readonly string[] = [];
    try {
      if (ranges.length > 0) {
        dropped = await target.write(ranges, readMemory(this.#range));
      }
      isDurable = true;
    } finally {
      await dirty.end(isDurable, target.isSeenByPager);
    }
    const bytesWritten = pages.reduce((sum, { byteLength }) => sum + byteLength, 0);
    return { bytesWritten, ranges: ranges.length, ...(dropped.length > 0 && { dropped }) };
  }

  statistics(): MemoryStatistics {
    return this.#paged.statistics();
  }

  trace(): Trace {
    if (this.#isTraced) return this.#paged.pager.trace();
    throw new MinorfaultError("ERR_BAD_ARGUMENT", 'This memory was not opened with "trace"');
  }

  get replayed(): Promise<ReplayReport | undefined> {
    return this.#paged.replayed();
  }

  share(): MemoryHandle {
    this.#checkOpen();
    const { name, byteLength } = this;
    return { kind: "minorfault-memory", name, byteLength, range: this.#range.handle };
  }

  async close(options: { readonly flush?: boolean } = {}): Promise<void> {
    this.#closing ??= this.#close(options.flush ?? true);
    await this.#closing;
  }

  async #close(flush: boolean): Promise<void> {
    try {
      if (this.mode === "write-back" && flush) await this.#flushes.take(() => this.#flush());
    } finally {
      await this.#flushes.ended();
      unwatchExit(this);
      this.#dirty?.close();
      // First the addresses: whoever waits for a page finds zeros when the pager lets him go.
      this.#range.close();
      await this.#paged.close();
    }
  }

  /** At the end of this thread. */
  abandon(): void {
    this.#range.close();
    this.#paged.abandon();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new MinorfaultError("ERR_CLOSED", "This memory has been closed");
  }
}
