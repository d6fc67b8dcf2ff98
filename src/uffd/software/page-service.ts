// Serves the faults of a paged memory: takes messages, asks the handler, installs what it answers.
//
// A handler may answer at once or later. Each page is asked for once, however many wait for it. What a handler
// throws poisons the page, so that whoever touches it is told, until the page is discarded.

import { ERRNO } from "../../abi/errno.ts";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { hex, MinorfaultError } from "../../base/errors.ts";
import { FaultWaiter, type Sleeper } from "./context.ts";
import { FAULT, type Faulter, fault } from "./fault.ts";
import { type CopySource, FILL, type FillProgress, type FillRequest, fill } from "./fill.ts";
import type { PagedRegion } from "./paged-region.ts";

/** What a page holds, or undefined for zeros. */
export type PageBytes = Uint8Array | undefined;
/** Brings a page by its number. */
export type PageHandler = (page: number) => PageBytes | Promise<PageBytes>;

/** Whoever accesses synchronously: it never sleeps, so nothing has to wake it. */
const NOBODY: Sleeper = { tid: 0, wake() {}, messageRead() {} };

/** The answer of a handler as a source of COPY. */
class Answer implements CopySource {
  bytes: Uint8Array = new Uint8Array(0);

  isResident(): boolean {
    return true;
  }

  readInto(pool: Uint8Array, at: number): void {
    pool.set(this.bytes, at);
  }
}

/** A FillRequest that is used again for every page. */
type Reusable = { -readonly [K in keyof FillRequest]: FillRequest[K] };

export class PageService {
  readonly #region: PagedRegion;
  readonly #handler: PageHandler;
  readonly #answer = new Answer();
  readonly #request: Reusable;
  readonly #progress: FillProgress = { done: 0, stop: 0 };
  readonly #faulter: Faulter = { waiter: new FaultWaiter(NOBODY) };
  /** Pages that a handler is bringing. */
  readonly #coming = new Set<number>();
  #comingCount = 0;
  readonly #failures = new Map<number, unknown>();

  constructor(region: PagedRegion, handler: PageHandler) {
    this.#region = region;
    this.#handler = handler;
    this.#request = {
      kind: FILL.COPY,
      ctx: region.ctx,
      target: 0,
      byteLength: PAGE_SIZE,
      protect: true,
      source: this.#answer,
      sourceAddress: 0,
    };
  }

  /** Makes an access possible now. @throws ERR_FAULT_PENDING when the handler needs time for the page. */
  touchNow(address: number, access: number): void {
    // A handler may itself touch the memory, while its caller stands in a fault.
    const nested = this.#faulter.waiter.list !== undefined;
    const faulter = nested ? { waiter: new FaultWaiter(NOBODY) } : this.#faulter;
    for (;;) {
      const result = fault(this.#region.space, faulter, address, access, false);
      if (result === FAULT.DONE) return;
      if (result !== FAULT.WAIT) this.#throwFailure(address);
      this.#serve();
      const { list } = faulter.waiter;
      if (list === undefined) continue;
      list.remove(faulter.waiter);
      throw new MinorfaultError(
        "ERR_FAULT_PENDING",
        `The page at offset ${hex(this.#offset(address))} is coming`,
        {
          address: this.#offset(address),
        },
      );
    }
  }

  /** Waits until an access is possible. */
  async touch(address: number, access: number, signal?: AbortSignal): Promise<void> {
    for (;;) {
      signal?.throwIfAborted();
      let wake = (): void => {};
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const waiter = new FaultWaiter({ tid: 0, wake, messageRead() {} });
      const result = fault(this.#region.space, { waiter }, address, access, false);
      if (result === FAULT.DONE) return;
      if (result !== FAULT.WAIT) this.#throwFailure(address);
      signal?.addEventListener("abort", wake, { once: true });
      this.#serve();
      await woken;
      signal?.removeEventListener("abort", wake);
      waiter.list?.remove(waiter);
    }
  }

  /** The pages from `from` until `until` are dropped: what failed may be asked for again. */
  forget(from: number, until: number): void {
    for (const page of this.#failures.keys()) if (page >= from && page < until) this.#failures.delete(page);
  }

  /** Asks the handler for every page that a message is there for. */
  #serve(): void {
    const { ctx, address } = this.#region;
    for (let message = ctx.takeFault(); message !== undefined; message = ctx.takeFault()) {
      const page = Math.floor((message.address - address) / PAGE_SIZE);
      if (this.#comingCount === 0 || !this.#coming.has(page)) this.#ask(page);
    }
  }

  #ask(page: number): void {
    let bytes: PageBytes | Promise<PageBytes>;
    try {
      bytes = this.#handler(page);
    } catch (error) {
      this.#poison(page, error);
      return;
    }
    if (bytes === undefined || bytes instanceof Uint8Array) this.#install(page, bytes);
    else void this.#await(page, bytes);
  }

  async #await(page: number, coming: Promise<PageBytes>): Promise<void> {
    this.#coming.add(page);
    this.#comingCount++;
    let bytes: PageBytes;
    let failure: { readonly error: unknown } | undefined;
    try {
      bytes = await coming;
    } catch (error) {
      failure = { error };
    }
    this.#coming.delete(page);
    this.#comingCount--;
    if (failure === undefined) this.#install(page, bytes);
    else this.#poison(page, failure.error);
  }

  #install(page: number, bytes: PageBytes): void {
    if (bytes !== undefined && (!(bytes instanceof Uint8Array) || bytes.length !== PAGE_SIZE)) {
      const what = bytes instanceof Uint8Array ? `${bytes.length} bytes` : String(bytes);
      this.#poison(
        page,
        new MinorfaultError("ERR_BAD_ARGUMENT", `A handler must answer 4096 bytes, got ${what}`),
      );
      return;
    }
    if (bytes !== undefined) this.#answer.bytes = bytes;
    const errno = this.#fill(page, bytes === undefined ? FILL.ZERO : FILL.COPY);
    // Somebody else may have filled it meanwhile, or the memory is closed.
    if (errno === 0 || errno === ERRNO.EEXIST || errno === ERRNO.ENOENT) return;
    const hint = "Raise `memoryBytes` of the system, or discard pages";
    this.#poison(page, new MinorfaultError("ERR_LIMIT", "Physical memory is used up", { errno, hint }));
  }

  #poison(page: number, error: unknown): void {
    this.#failures.set(page, error);
    this.#fill(page, FILL.POISON);
  }

  /** Fills a page and wakes who waits for it: 0 or a positive errno. */
  #fill(page: number, kind: number): number {
    const request = this.#request;
    const { ctx, address } = this.#region;
    request.kind = kind;
    request.protect = kind === FILL.COPY;
    request.target = address + page * PAGE_SIZE;
    this.#progress.done = 0;
    fill(request, this.#progress);
    ctx.wake(request.target, request.target + PAGE_SIZE);
    return -this.#progress.stop;
  }

  #offset(address: number): number {
    return address - this.#region.address;
  }

  #throwFailure(address: number): never {
    const offset = this.#offset(address);
    const page = Math.floor(offset / PAGE_SIZE);
    if (!this.#failures.has(page)) {
      throw new MinorfaultError("ERR_MEMORY_FAULT", `The access at offset ${hex(offset)} ended in a signal`, {
        address: offset,
      });
    }
    const cause = this.#failures.get(page);
    if (cause instanceof MinorfaultError && cause.code === "ERR_LIMIT") throw cause;
    throw new MinorfaultError("ERR_HANDLER_FAILED", `The handler failed for page ${page}`, {
      cause,
      address: offset,
    });
  }
}
