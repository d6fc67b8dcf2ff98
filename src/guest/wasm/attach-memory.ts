// An image becomes the content of a WebAssembly memory, and loads as the module touches it.
//
//   instance's memory   [ what the module has put there ]              [ grown ]
//   registered          [ · · · · · · · · · · · · · · · · · · · · · · ][ zeros ]
//   first touch           ▲ fault ──▶ pager ──▶ the image's page
//
// A local file that is not to be verified is mapped instead, privately (mapped-file.ts): no pager is faster.
//
// V8 reserves the addresses of a memory once and grows in place, so what is registered stays where it is; what grows
// beyond the image is ordinary zero pages. The memory belongs to V8: it is never unmapped or replaced here.

import { MADV, PAGE_SIZE } from "../../abi/memory.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { addressOfBuffer, local, madvise } from "../../linux/index.ts";
import type { FetchOptions, PlacementChoice, PlanOptions } from "../../pager/index.ts";
import { openContent } from "../array-buffer/content.ts";
import { unwatchExit, watchExit } from "../array-buffer/exit.ts";
import type { MemoryStatistics, ResidentPages } from "../array-buffer/options.ts";
import { PagedRegion } from "../array-buffer/paged-region.ts";
import { checkWithin } from "../array-buffer/ranges.ts";
import { warn } from "../array-buffer/warn.ts";
import { withWayOut } from "../array-buffer/way-out.ts";
import { mapFileInto } from "./mapped-file.ts";
import type { WasmMemory } from "./web-assembly.ts";

export const WASM_PAGE_SIZE = 65_536;

export interface AttachMemoryOptions {
  /**
   * `auto` (default): the kernel's own mapping for a local file and a memory that is not shared, else a pager. `kernel`: a pager.
   * `mmap`: the kernel's own mapping, or an error.
   */
  readonly implementation?: "auto" | "kernel" | "mmap";
  readonly placement?: PlacementChoice;
  /** Default: a window that follows the faults: runs in order widen it up to 2 MiB. */
  readonly plan?: PlanOptions;
  readonly fetch?: FetchOptions;
  /** Told of pages that could not be served. Default: a line on standard error, which comes before SIGBUS. */
  readonly onError?: (error: MinorfaultError) => void;
}

/** A WebAssembly memory whose pages come from an image. Keep it, and close or finish it: it keeps the memory. */
export interface LazyWasmMemory {
  readonly memory: WasmMemory;
  /** How pages come: see `LazyMemory.how`. */
  readonly how: "userfaultfd" | "mmap";
  /** Bytes of the image; the memory has at least as many. */
  readonly byteLength: number;
  /** See `LazyMemory.isUserModeOnly`. */
  readonly isUserModeOnly: boolean;
  resident(): ResidentPages;
  prefetch(offset?: number, byteLength?: number, options?: { readonly signal?: AbortSignal }): Promise<void>;
  statistics(): MemoryStatistics;
  /** Brings what is missing, and lets the memory go: it is an ordinary one from then on. */
  finish(options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Ends at once: the memory is zeros from then on. For a module that is done. Safe to call twice. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Replaces the content of a memory, all of it, by an image's; the memory grows if the image is larger. No other
 * thread may use the memory until this resolves.
 *
 * @throws ERR_LIMIT when the memory can't grow that far; ERR_UFFD_MISSING, ERR_UFFD_DENIED.
 */
export async function attachMemory(
  memory: WasmMemory,
  target: string | URL,
  options: AttachMemoryOptions = {},
): Promise<LazyWasmMemory> {
  const { placement, plan, onError = warn, implementation = "auto" } = options;
  const content = await openContent(target, options.fetch);
  growTo(memory, content.byteLength);
  const address = addressOfBuffer(memory.buffer);
  const byteLength = roundUp(content.byteLength, PAGE_SIZE);
  const rest = memory.buffer.byteLength - byteLength;
  // Behind the image everything is zeros, as in the memory that it was taken from.
  if (rest > 0) madvise(local, address + byteLength, rest, MADV.DONTNEED);
  const isBetterMapped = content.path !== undefined && !(memory.buffer instanceof SharedArrayBuffer);
  if (implementation === "mmap" || (implementation === "auto" && isBetterMapped)) {
    return mapFileInto(memory, content, address);
  }
  const opening = PagedRegion.open({
    address,
    byteLength,
    content: content.pager,
    writes: "none",
    budgetBytes: 0,
    swapFolder: undefined,
    discards: true,
    placement,
    plan,
    onError,
    says: options.onError === undefined,
  });
  const paged = await opening.catch((error: unknown) => {
    throw withWayOut(error);
  });
  return new AttachedWasmMemory(memory, content.byteLength, paged);
}

/** Makes the memory at least so long. */
export function growTo(memory: WasmMemory, byteLength: number): void {
  const missing = byteLength - memory.buffer.byteLength;
  if (missing <= 0) return;
  try {
    memory.grow(Math.ceil(missing / WASM_PAGE_SIZE));
  } catch (cause) {
    throw new MinorfaultError("ERR_LIMIT", `The memory can't grow to the ${byteLength} bytes of the image`, {
      cause,
      byteLength,
      hint: "Its maximum is too small, or it is not the memory that the image was taken from",
    });
  }
}

class AttachedWasmMemory implements LazyWasmMemory {
  readonly memory: WasmMemory;
  readonly how = "userfaultfd" as const;
  readonly byteLength: number;
  readonly isUserModeOnly: boolean;
  readonly #paged: PagedRegion;
  #ending: Promise<void> | undefined;

  constructor(memory: WasmMemory, byteLength: number, paged: PagedRegion) {
    this.memory = memory;
    this.byteLength = byteLength;
    this.isUserModeOnly = paged.isUserModeOnly;
    this.#paged = paged;
    // It also keeps the memory from being collected, and its addresses from being used for something else.
    watchExit(this);
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

  statistics(): MemoryStatistics {
    return this.#paged.statistics();
  }

  async finish(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    this.#checkOpen();
    await this.#paged.prefetch(0, this.#paged.byteLength, options.signal);
    this.#checkOpen();
    this.#ending = this.#letGo();
    await this.#ending;
  }

  async close(): Promise<void> {
    this.#ending ??= this.#discard();
    await this.#ending;
  }

  async #discard(): Promise<void> {
    this.#paged.release();
    this.#dropPages();
    await this.#letGo();
  }

  async #letGo(): Promise<void> {
    unwatchExit(this);
    await this.#paged.close();
  }

  /** At the end of this thread. */
  abandon(): void {
    this.#paged.release();
    this.#dropPages();
    this.#paged.abandon();
  }

  #dropPages(): void {
    madvise(local, this.#paged.address, this.#paged.byteLength, MADV.DONTNEED);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #checkOpen(): void {
    if (this.#ending !== undefined) {
      throw new MinorfaultError("ERR_CLOSED", "This memory has been finished or closed");
    }
  }
}
