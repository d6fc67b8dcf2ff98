// A host: one thread that serves, its guests, and their sources. `startPager` is a host of one guest.
//
//   owner's thread                       serving thread (pager-worker.ts)        one thread a source (fetch/)
//   PagerHandle for each guest  orders▶  Seat for each guest    ◀── bytes ──     reads, verifies, decompresses
//                              ◀answers   Companion for each source ─ wants ─▶

import { fstatSync, readFileSync } from "node:fs";
import { isMainThread, Worker } from "node:worker_threads";
import { PAGE_SIZE } from "../abi/memory.ts";
import { UFFD_FEATURE } from "../abi/userfaultfd.ts";
import { MinorfaultError } from "../base/errors.ts";
import { close, local, open } from "../linux/index.ts";
import { checkImage, checkPagerOptions, checkPlacement } from "./check-options.ts";
import type { ImageOrder } from "./control.ts";
import { makeGuestOrder } from "./guest-order.ts";
import type {
  Pager,
  PagerHost,
  PagerHostOptions,
  PagerOptions,
  PagerSource,
  PlacementChoice,
  PlacementReport,
  WarmSource,
} from "./options.ts";
import { PagerHandle } from "./pager.ts";
import { TOUCHER_WORDS } from "./self-test.ts";
import { Sources } from "./sources.ts";
import { watchGuest } from "./watch.ts";
import { WorkerLink } from "./worker-link.ts";

/** LIMIT: guests of one host, where nothing else is said. */
const GUESTS_MAX = 4096;

/** What the first self-test of this process has found: it holds for the next threads too. */
let tested: PlacementReport | undefined;

/** Starts serving the faults of a userfaultfd; resolves when the pager's thread is about to wait for the first one. */
export async function startPager(options: PagerOptions): Promise<Pager> {
  checkPagerOptions(options);
  const host = new ThreadHost(options.placement ?? "auto", 1, true);
  try {
    return await host.start(options);
  } catch (error) {
    await host.close();
    throw error;
  }
}

/** Starts a thread that serves many guests. */
export async function openPagerHost(options: PagerHostOptions = {}): Promise<PagerHost> {
  const { placement = "auto", guestsMax = GUESTS_MAX } = options;
  checkPlacement(placement);
  if (!Number.isSafeInteger(guestsMax) || guestsMax < 1) {
    throw new MinorfaultError("ERR_OUT_OF_RANGE", `guestsMax must be a positive integer, not ${guestsMax}`);
  }
  const host = new ThreadHost(placement, guestsMax, false);
  await host.placed;
  return host;
}

/** Where a guest's bytes are, and what has to be done about them. */
interface PreparedImage {
  readonly order: ImageOrder;
  /** When the pager serves, or does not. */
  started(): void;
  /** When the pager has ended. */
  release(): Promise<void>;
}

class ThreadHost implements PagerHost {
  readonly placed: Promise<PlacementReport>;
  readonly #guestsMax: number;
  readonly #isSole: boolean;
  readonly #link: WorkerLink;
  readonly #sources: Sources;
  readonly #handles = new Map<number, PagerHandle>();
  /** Those who want the process to stay. */
  readonly #keepers = new Set<object>();
  #starting = 0;
  #last = 0;
  #placement: PlacementReport | undefined;
  #closing: Promise<void> | undefined;

  constructor(asked: PlacementChoice, guestsMax: number, isSole: boolean) {
    this.#guestsMax = guestsMax;
    this.#isSole = isSole;
    const known = asked === "auto" ? tested : { asked, mode: asked, why: "asked for" };
    this.#link = new WorkerLink(
      {
        placement: known,
        toucher: known === undefined ? startToucher() : undefined,
        isNested: !isMainThread,
        isSole,
      },
      {
        onMessage: (message) => this.#handles.get(message.guest)?.hear(message),
        onDropped: (source) => this.#sources.dropped(source),
      },
    );
    this.placed = this.#link.placed.then((placement) => {
      this.#placement = placement;
      if (placement.selfTest !== undefined) tested = placement;
      return placement;
    });
    this.placed.catch(() => undefined);
    const { ended } = this.#link;
    this.#sources = new Sources({
      send: (order, transfer) => this.#link.send(order, transfer),
      isSole,
      ended,
    });
    void ended.then((error) => {
      const end = error === undefined ? { reason: "closed" as const } : { reason: "failed" as const, error };
      for (const handle of [...this.#handles.values()]) handle.end(end);
    });
    this.#keep(this, false);
  }

  get guests(): number {
    return this.#handles.size;
  }

  async start(options: PagerOptions): Promise<Pager> {
    checkPagerOptions(options);
    if (options.stateDescriptor !== undefined) checkForks(options.descriptor);
    this.#checkRoom();
    this.#starting++;
    try {
      return await this.#whileKept(() => this.#start(options));
    } finally {
      this.#starting--;
    }
  }

  async #start(options: PagerOptions): Promise<Pager> {
    let image: PreparedImage | undefined;
    let handle: PagerHandle | undefined;
    try {
      image = await this.#prepareImage(options);
      checkImage(options.regions, image.order.byteLength);
      handle = this.#add(options, image);
      await handle.ready;
      await this.placed;
      return handle;
    } catch (error) {
      await (handle === undefined ? image?.release() : handle.ended);
      throw error;
    } finally {
      image?.started();
    }
  }

  async warm(source: PagerSource): Promise<WarmSource> {
    if (this.#closing !== undefined) throw closed();
    const warm = await this.#sources.warm(source);
    // The thread lets go of it, and whoever waits for that is to see it.
    return { ...warm, close: () => this.#whileKept(() => warm.close()) };
  }

  close(): Promise<void> {
    this.#closing ??= this.#whileKept(() => this.#close());
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#handles.values()].map((handle) => handle.close()));
    await this.#sources.close();
    this.#link.stop();
    await this.#link.ended;
  }

  #add(options: PagerOptions, image: PreparedImage): PagerHandle {
    if (this.#closing !== undefined) throw closed();
    const guest = ++this.#last;
    const order = makeGuestOrder(guest, options, image.order);
    const handle: PagerHandle = new PagerHandle({
      order,
      onError: options.onError,
      threadId: () => this.#link.threadId,
      placement: () => this.#placement,
      send: (one) => this.#link.send(one),
      onKeepAlive: () => this.#keep(handle, handle.wantsAlive),
      release: async () => {
        stopWatch?.();
        // It wants nothing any more, but whoever waits for its end is to see it.
        await this.#whileKept(() => this.#letGo(image));
        this.#handles.delete(guest);
      },
    });
    // A thread of many hears of a process's end itself, and this process's own memory is there as long as this process.
    const isWatched = this.#isSole && options.guest?.pid !== process.pid;
    const stopWatch = isWatched ? watchGuest(options.descriptor, () => handle.guestIsGone()) : undefined;
    this.#handles.set(guest, handle);
    this.#keep(handle, handle.wantsAlive);
    this.#link.send({ kind: "guest", order });
    return handle;
  }

  async #letGo(image: PreparedImage): Promise<void> {
    if (this.#isSole) {
      this.#link.stop();
      await this.#link.ended;
    }
    await image.release();
  }

  /** The process stays until this is done. */
  async #whileKept<T>(run: () => Promise<T>): Promise<T> {
    const key = {};
    this.#keep(key, true);
    try {
      return await run();
    } finally {
      this.#keep(key, false);
    }
  }

  #checkRoom(): void {
    if (this.#closing !== undefined) throw closed();
    if (this.#handles.size + this.#starting < this.#guestsMax) return;
    throw new MinorfaultError("ERR_LIMIT", `This host has ${this.#guestsMax} guests, and takes no more`);
  }

  #keep(who: object, on: boolean): void {
    if (on) this.#keepers.add(who);
    else this.#keepers.delete(who);
    this.#link.keepAlive(this.#keepers.size > 0);
  }

  async #prepareImage({ image, source, content, regions, trace }: PagerOptions): Promise<PreparedImage> {
    const nothing = { started: () => undefined, release: async () => undefined };
    if (source !== undefined) {
      const pageBytes = Math.max(...regions.map(({ pageSize = PAGE_SIZE }) => pageSize));
      // What a replay has brought is not touched by anybody: no trace would show it.
      const acquired = await this.#sources.acquire(source, pageBytes, !trace, content);
      return { ...nothing, order: acquired.order, release: acquired.release };
    }
    if (image === undefined) {
      throw new MinorfaultError("ERR_BUG", "Options without image and source were not refused");
    }
    if (!("path" in image)) return { ...nothing, order: image };
    const descriptor = open(local, image.path);
    const order = { descriptor, byteLength: fstatSync(descriptor).size };
    // The thread has mapped it then, and a mapping does not need its descriptor.
    return { ...nothing, order, started: () => close(local, descriptor) };
  }
}

function closed(): MinorfaultError {
  return new MinorfaultError("ERR_CLOSED", "This host is closed");
}

/**
 * A fork's message brings a descriptor for the child along, which dies with whoever has read it: a guest that is to
 * survive its pager must not have such messages.
 */
function checkForks(descriptor: number): void {
  const info = readFileSync(`/proc/self/fdinfo/${descriptor}`, "latin1");
  const features = BigInt(`0x${/^API:\s*[0-9a-f]+:([0-9a-f]+):/m.exec(info)?.[1] ?? "0"}`);
  if ((features & UFFD_FEATURE.EVENT_FORK) === 0n) return;
  throw new MinorfaultError(
    "ERR_BAD_ARGUMENT",
    "A userfaultfd that tells of forks can't be taken over by another pager: open it without EVENT_FORK",
  );
}

/** The second thread of the self-test; it ends when it is dismissed. */
function startToucher(): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(TOUCHER_WORDS * 4));
  const worker = new Worker(new URL("./toucher-worker.js", import.meta.url), {
    workerData: words,
    execArgv: [],
  });
  worker.unref();
  // Its failure shows as a self-test that does not end, which has a deadline.
  worker.on("error", () => undefined);
  return words;
}
