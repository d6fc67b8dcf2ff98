// Memory of this process that a pager fills: addresses, a userfaultfd on them, and the pager's thread. What lazy
// ArrayBuffers and lazy WebAssembly memories have in common.
//
// The userfaultfd must not know of EVENT_REMOVE and its like: the one who would have to read the event is a thread of
// this process, and whoever causes it would wait for it, maybe holding what that thread needs.

import { MADV, PAGE_SIZE } from "../../abi/memory.ts";
import type { FeatureName } from "../../abi/userfaultfd.ts";
import { countBits, nextClear } from "../../base/bitmap.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { local, madvise } from "../../linux/index.ts";
import {
  type PagerOptions,
  type RepairReport,
  type ReplayReport,
  startPager,
  type WriteMode,
} from "../../pager/index.ts";
import { openUserfaultfd } from "../../uffd/index.ts";
import { type RegionPager, startChildPager } from "./child/child-pager.ts";
import type { MemoryStatistics, ResidentPages } from "./options.ts";
import { startServedPager } from "./served/served-pager.ts";
import { openSwapFile } from "./swap-file.ts";
import { Turns } from "./turns.ts";

/** How writes are found: not at all, by scanning (WP_ASYNC), or by the pager taking each first one's fault. */
export type WriteFinding = "none" | "scan" | "track";

export interface PagedRegionOptions {
  readonly address: number;
  /** Whole pages. */
  readonly byteLength: number;
  /** Where the pager finds the bytes. */
  readonly content: Pick<PagerOptions, "image" | "source">;
  /** Drops what lies there already, once nobody can see the gap. Default: there is nothing. */
  readonly discards?: boolean;
  readonly writes: WriteFinding;
  /** 0: none. */
  readonly budgetBytes: number;
  readonly swapFolder: string | undefined;
  readonly plan: PagerOptions["plan"] | undefined;
  readonly trace?: boolean | undefined;
  /** Where the pager runs. Default: a thread of this process. */
  readonly pagerIn?: "thread" | "process" | undefined;
  /** The socket of a page server that has the content, too. */
  readonly server?: string | undefined;
  readonly placement: PagerOptions["placement"] | undefined;
  readonly onError: (error: MinorfaultError) => void;
  /** Pages that fail are told of by the pager's thread itself, on standard error, and not to `onError`. */
  readonly says: boolean;
}

type Uffd = ReturnType<typeof openUserfaultfd>;

const WRITE_MODE: Readonly<Record<WriteFinding, WriteMode>> = {
  none: "ignore",
  scan: "protect",
  track: "track",
};
const SWEEP_PAGES = 512;
/** LIMIT: failures that are kept for a prefetch to find its own. */
const FAILURES_MAX = 64;

/** Throws ERR_UFFD_MISSING, ERR_UFFD_DENIED, ERR_FEATURE_MISSING. */
export function openOwnUserfaultfd(writes: WriteFinding): Uffd {
  const features: FeatureName[] = ["THREAD_ID"];
  if (writes === "scan") features.push("WP_ASYNC");
  return openUserfaultfd("kernel", local, { features });
}

export class PagedRegion {
  readonly address: number;
  readonly byteLength: number;
  readonly isUserModeOnly: boolean;
  readonly pager: RegionPager;
  readonly #uffd: Uffd;
  readonly #budgetBytes: number;
  readonly #failures: MinorfaultError[];
  readonly #turns = new Turns();
  #isClosed = false;

  private constructor(
    options: PagedRegionOptions,
    uffd: Uffd,
    pager: RegionPager,
    failures: MinorfaultError[],
  ) {
    this.#failures = failures;
    this.address = options.address;
    this.byteLength = options.byteLength;
    this.#budgetBytes = options.budgetBytes;
    this.isUserModeOnly = uffd.way === "user-mode-only";
    this.#uffd = uffd;
    this.pager = pager;
    pager.keepAlive(false);
    pager.ended.then((end) => {
      if (end.reason !== "failed") return;
      options.onError(end.error);
      this.#poisonMissing();
    });
  }

  /** Takes the memory over: from now on its missing pages are the image's. */
  static async open(options: PagedRegionOptions): Promise<PagedRegion> {
    const { address, byteLength, writes, budgetBytes } = options;
    const failures: MinorfaultError[] = [];
    const uffd = openOwnUserfaultfd(writes);
    const hasSwap = writes === "track" && budgetBytes > 0;
    const swap = hasSwap ? openSwapFile(options.swapFolder, byteLength) : undefined;
    try {
      // A child of fork(2) would have neither the pages nor a pager.
      madvise(local, address, byteLength, MADV.DONTFORK);
      uffd.register(address, byteLength, { missing: true, writeProtect: writes !== "none" });
      if (options.discards) madvise(local, address, byteLength, MADV.DONTNEED);
      const onError = (error: MinorfaultError): void => {
        failures.push(error);
        if (failures.length > FAILURES_MAX) failures.shift();
        if (!options.says) options.onError(error);
      };
      const pager = await startPagerFor(options, uffd, swap?.descriptor, onError);
      return new PagedRegion(options, uffd, pager, failures);
    } catch (error) {
      uffd.close();
      throw error;
    } finally {
      // The pager has a duplicate.
      swap?.close();
    }
  }

  resident(): ResidentPages {
    const [residency] = this.pager.residency();
    const pages = residency === undefined ? 0 : countBits(residency.resident, residency.pageCount);
    return { pages, pagesTotal: this.byteLength / PAGE_SIZE, bytes: pages * PAGE_SIZE };
  }

  /** Brings [offset, offset + byteLength); one after the other. */
  async prefetch(offset: number, byteLength: number, signal?: AbortSignal): Promise<void> {
    if (this.#budgetBytes > 0 && byteLength > this.#budgetBytes / 2) {
      throw new MinorfaultError(
        "ERR_LIMIT",
        `${byteLength} bytes at once are more than half of the budget of ${this.#budgetBytes}`,
        { byteLength, hint: "Work through the memory in smaller pieces" },
      );
    }
    const start = this.address + offset;
    const range = { start, until: start + byteLength };
    await this.#turns.take(async () => {
      this.#failures.length = 0;
      await this.pager.installAll({ range, ...(signal === undefined ? {} : { signal }) });
      this.#checkBrought(offset, byteLength);
    });
  }

  /** Throws what the pager has reported meanwhile, if pages of the range are missing: reading them would end in SIGBUS. */
  #checkBrought(offset: number, byteLength: number): void {
    const [residency] = this.pager.residency();
    if (residency === undefined) return;
    const until = Math.ceil((offset + byteLength) / PAGE_SIZE);
    if (nextClear(residency.resident, Math.floor(offset / PAGE_SIZE), until) >= until) return;
    const failure = this.#failures.at(-1);
    if (failure !== undefined) throw failure;
    // With a budget, others may have needed the room already.
    if (this.#budgetBytes > 0) return;
    throw new MinorfaultError(
      "ERR_HANDLER_FAILED",
      `Not all of the ${byteLength} bytes at ${offset} could be brought`,
    );
  }

  /** Asks once more for pages of [offset, offset + byteLength) that could not be brought. */
  async repair(offset: number, byteLength: number): Promise<RepairReport> {
    const start = this.address + offset;
    return await this.#turns.take(() => this.pager.repair({ start, until: start + byteLength }));
  }

  /** How the replay ends. Who asks keeps the process from ending before. */
  async replayed(): Promise<ReplayReport | undefined> {
    this.pager.keepAlive(true);
    try {
      return await this.pager.replayed;
    } finally {
      if (!this.#isClosed) this.pager.keepAlive(false);
    }
  }

  statistics(): MemoryStatistics {
    const { faults, bytesInstalled, bytesEvicted, bytesSwapped, outcomes, latencyUs } =
      this.pager.statistics();
    return { faults, bytesInstalled, bytesEvicted, bytesSwapped, poisoned: outcomes.poisoned, latencyUs };
  }

  /** The memory is not paged from now on: its missing pages are zeros. Wakes who waits. */
  release(): void {
    if (!this.#isClosed) this.#uffd.unregister(this.address, this.byteLength);
  }

  /** Ends the pager. What waits goes on with whatever lies at the addresses then: replace or load it first. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.pager.close();
    this.#uffd.close();
  }

  /** The same at the end of the thread that opened it, without waiting for anybody. */
  abandon(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#uffd.wake(this.address, this.byteLength);
    this.#uffd.close();
  }

  /** The pager has failed: whoever touches what it has not brought is told by SIGBUS, instead of waiting for ever. */
  #poisonMissing(): void {
    if (this.#isClosed) return;
    const [residency] = this.pager.residency();
    if (residency === undefined) return;
    const { resident, pageCount } = residency;
    for (let page = nextClear(resident, 0, pageCount); page < pageCount; ) {
      const until = Math.min(pageCount, page + SWEEP_PAGES);
      for (let at = page; at < until; at = nextClear(resident, at + 1, pageCount)) {
        this.#uffd.poison(this.address + at * PAGE_SIZE, PAGE_SIZE);
      }
      page = nextClear(resident, until, pageCount);
    }
    // Who stands at a page that was brought without a wake-up, as a replay's are, goes on.
    this.#uffd.wake(this.address, this.byteLength);
  }
}

async function startPagerFor(
  options: PagedRegionOptions,
  uffd: Uffd,
  swapDescriptor: number | undefined,
  onError: (error: MinorfaultError) => void,
): Promise<RegionPager> {
  if (options.server !== undefined) return await startServed(options, options.server, uffd);
  if (options.pagerIn === "process") return await startChild(options, uffd, onError);
  return await startThread(options, uffd, swapDescriptor, onError);
}

async function startServed(options: PagedRegionOptions, server: string, uffd: Uffd): Promise<RegionPager> {
  const { address, byteLength, writes, budgetBytes, trace = false } = options;
  if (writes !== "none" || budgetBytes > 0 || trace) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      'A memory that a page server fills is of mode "read" or "private", without budget and trace',
    );
  }
  return await startServedPager({ server, address, byteLength, uffd: uffd.fd });
}

async function startThread(
  options: PagedRegionOptions,
  uffd: Uffd,
  swapDescriptor: number | undefined,
  onError: (error: MinorfaultError) => void,
): Promise<RegionPager> {
  const { address, byteLength, writes, budgetBytes, placement, trace = false } = options;
  // A window that is too wide costs little while nothing has to be evicted for it.
  const plan = options.plan ?? (budgetBytes === 0 ? { adaptive: true } : undefined);
  return await startPager({
    descriptor: uffd.fd,
    regions: [{ start: address, byteLength, imageOffset: 0 }],
    ...options.content,
    isOwnMemory: true,
    writes: WRITE_MODE[writes],
    trace,
    onError,
    says: options.says,
    ...(budgetBytes === 0 ? {} : { budgetBytes }),
    ...(swapDescriptor === undefined ? {} : { swapDescriptor }),
    ...(plan === undefined ? {} : { plan }),
    ...(placement === undefined ? {} : { placement }),
  });
}

/** Evicting is done within the guest's process: no other one may drop its pages. */
async function startChild(
  options: PagedRegionOptions,
  uffd: Uffd,
  onError: (error: MinorfaultError) => void,
): Promise<RegionPager> {
  const { address, byteLength, writes, budgetBytes, plan, placement, trace } = options;
  if (budgetBytes > 0) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      "A pager in a process of its own has no budget: the kernel lets no process drop the pages of another one",
      { hint: 'Leave pager: "process" out, or limit the memory by a cgroup with swap' },
    );
  }
  if (writes === "track") {
    throw new MinorfaultError(
      "ERR_FEATURE_MISSING",
      "A pager in a process of its own needs WP_ASYNC to find written pages (Linux 6.7)",
      { hint: 'Leave pager: "process" out' },
    );
  }
  return await startChildPager({
    address,
    byteLength,
    content: options.content,
    uffd: uffd.fd,
    onError,
    writes: WRITE_MODE[writes],
    ...(trace ? { trace } : {}),
    ...(plan === undefined ? {} : { plan }),
    ...(placement === undefined ? {} : { placement }),
  });
}
