// Which pages differ from the content, for a flush: found by the kernel's own marks, or kept by the pager.
//
//   begin()  what has been written so far, protected again: a write from now on belongs to the next flush
//   end()    it is durable now, or it is not and stays dirty

import { PAGE_SIZE } from "../../abi/memory.ts";
import { nextClear, nextSet, setBits, wordsFor } from "../../base/bitmap.ts";
import { close, failure, local, open } from "../../linux/index.ts";
import type { Pager } from "../../pager/index.ts";
import { scanWritten } from "../../uffd/index.ts";
import type { ByteRange } from "./ranges.ts";

type WriteKeeper = Pick<Pager, "flush" | "writes">;

export interface DirtyPages {
  begin(): Promise<ByteRange[]>;
  /** `isSeenByPager`: the pager's image has the new bytes too. */
  end(isDurable: boolean, isSeenByPager: boolean): Promise<void>;
  close(): void;
}

/** WP_ASYNC: the first write to a protected page costs the guest a microsecond, and nobody is told; a scan finds it. */
export class ScannedPages implements DirtyPages {
  readonly #address: number;
  readonly #byteLength: number;
  readonly #pagemap: number;
  /** Found by a flush that has not succeeded. */
  readonly #pending: Uint32Array;

  constructor(address: number, byteLength: number) {
    this.#address = address;
    this.#byteLength = byteLength;
    this.#pagemap = open(local, "/proc/self/pagemap");
    this.#pending = new Uint32Array(wordsFor(byteLength / PAGE_SIZE));
  }

  async begin(): Promise<ByteRange[]> {
    const options = { protect: true, populatedOnly: true };
    const found = scanWritten(local, this.#pagemap, this.#address, this.#byteLength, options);
    if (typeof found === "number") throw failure(found, "PAGEMAP_SCAN", { address: this.#address });
    for (const { start, until } of found) {
      setBits(this.#pending, (start - this.#address) / PAGE_SIZE, (until - this.#address) / PAGE_SIZE);
    }
    return rangesOf(this.#pending, this.#byteLength / PAGE_SIZE);
  }

  async end(isDurable: boolean): Promise<void> {
    if (isDurable) this.#pending.fill(0);
  }

  close(): void {
    close(local, this.#pagemap);
  }
}

/** The pager has taken the fault of each first write, and has a bit of it; pages may have gone to the swap file. */
export class TrackedPages implements DirtyPages {
  readonly #pager: WriteKeeper;
  readonly #pageCount: number;

  constructor(pager: WriteKeeper, pageCount: number) {
    this.#pager = pager;
    this.#pageCount = pageCount;
  }

  async begin(): Promise<ByteRange[]> {
    await this.#pager.flush("begin");
    const [bits] = this.#pager.writes();
    if (bits === undefined) return [];
    // A page that another thread has written again by now has left `flushing`; its older write is due all the same.
    const dirty = bits.flushing.map((word, index) => word | (bits.written[index] ?? 0));
    return rangesOf(dirty, this.#pageCount);
  }

  async end(isDurable: boolean, isSeenByPager: boolean): Promise<void> {
    // Where the pager would fetch the old bytes, a page must not be dropped without being saved: it stays written, and
    // the next flush looks at it again.
    await this.#pager.flush(isDurable && isSeenByPager ? "done" : "failed");
  }

  close(): void {
    // The bits are the pager's.
  }
}

function rangesOf(words: Uint32Array, pageCount: number): ByteRange[] {
  const ranges: ByteRange[] = [];
  for (let page = nextSet(words, 0, pageCount); page < pageCount; ) {
    const until = nextClear(words, page, pageCount);
    ranges.push({ offset: page * PAGE_SIZE, byteLength: (until - page) * PAGE_SIZE });
    page = nextSet(words, until, pageCount);
  }
  return ranges;
}
