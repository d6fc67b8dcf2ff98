// The pager of a lazy memory that a page server fills: `open(…, { server })`. The userfaultfd is handed over in the form
// that Firecracker uses; ours stays open, so that nothing reads as zeros whatever becomes of the server.
//
//   this process                                  minorfault serve
//   memory, userfaultfd ── one message ──▶ socket of the image ──▶ pager, keeper, spare
//                       ◀── one line: taken, or why not

import { Socket } from "node:net";
import { createInterface } from "node:readline";
import { Worker } from "node:worker_threads";
import { PAGE_SIZE } from "../../../abi/memory.ts";
import { setBits, wordsFor } from "../../../base/bitmap.ts";
import { ERRORS, type ErrorCode, MinorfaultError } from "../../../base/errors.ts";
import { connect, local, send } from "../../../linux/index.ts";
import type {
  InstallOptions,
  PagerEnd,
  PagerStatistics,
  RepairReport,
  Residency,
} from "../../../pager/index.ts";
import { NO_STATISTICS, type RegionPager } from "../child/child-pager.ts";
import { presentPages } from "../present-pages.ts";

export interface ServedPagerOptions {
  /** Path of the image's socket. */
  readonly server: string;
  readonly address: number;
  readonly byteLength: number;
  readonly uffd: number;
}

/** What the server says to whom it serves; once more when its pager has changed. */
interface Answer {
  readonly guest?: string;
  readonly byteLength?: number;
  readonly error?: { readonly code: string; readonly message: string; readonly hint: string };
}

/** What the populating thread is told and answers. */
export interface PopulateOrder {
  readonly id: number;
  readonly start: number;
  readonly until: number;
}

export interface PopulateNote {
  readonly id: number;
  /** 0: all of it is there. */
  readonly errno: number;
}

/** @throws ERR_NO_SERVER, and whatever the server refuses it for */
export async function startServedPager(options: ServedPagerOptions): Promise<RegionPager> {
  const { server, address, byteLength, uffd } = options;
  let fd: number;
  try {
    fd = connect(local, server);
  } catch (cause) {
    throw new MinorfaultError("ERR_NO_SERVER", `No page server answers at ${server}`, { cause });
  }
  const region = { base_host_virt_addr: address, size: byteLength, offset: 0, page_size: PAGE_SIZE };
  const message = [{ ...region, page_size_kib: PAGE_SIZE, ends_with_connection: true }];
  send(local, fd, new TextEncoder().encode(JSON.stringify(message)), [uffd]);
  const pager = new ServedPager(options, new Socket({ fd }));
  await pager.ready;
  return pager;
}

class ServedPager implements RegionPager {
  readonly ready: Promise<void>;
  readonly ended: Promise<PagerEnd>;
  readonly replayed: Promise<undefined> = Promise.resolve(undefined);
  readonly #options: ServedPagerOptions;
  readonly #socket: Socket;
  readonly #installs = new Map<number, (errno: number) => void>();
  #populating: Worker | undefined;
  #installId = 0;
  #isClosing = false;

  constructor(options: ServedPagerOptions, socket: Socket) {
    this.#options = options;
    this.#socket = socket;
    const lines = createInterface({ input: socket });
    let refusal: MinorfaultError | undefined;
    let isTaken = false;
    let take: () => void;
    const taken = new Promise<void>((resolve) => {
      take = resolve;
    });
    lines.on("line", (line) => {
      const answer = JSON.parse(line) as Answer;
      isTaken ||= answer.guest !== undefined;
      if (answer.error !== undefined) refusal = errorOf(answer.error);
      take();
    });
    // What an error means is told by the end that follows.
    for (const emitter of [socket, lines]) emitter.on("error", () => undefined);
    this.ended = new Promise((resolve) => {
      // The server lets go when everything is there, or when it refuses; a server that is killed is another one's.
      socket.on("close", () => {
        void this.#populating?.terminate();
        for (const settle of this.#installs.values()) settle(0);
        const lost = new MinorfaultError("ERR_NO_SERVER", `The page server at ${options.server} has hung up`);
        const isOver = this.#isClosing || (isTaken && refusal === undefined && this.#isComplete);
        resolve(isOver ? { reason: "closed" } : { reason: "failed", error: refusal ?? lost });
      });
    });
    this.ready = Promise.race([taken, this.ended]).then(async () => {
      if (isTaken) return;
      const end = await this.ended;
      throw end.reason === "failed" ? end.error : new MinorfaultError("ERR_CLOSED", "The memory was closed");
    });
  }

  keepAlive(on: boolean): void {
    if (on) this.#socket.ref();
    else if (this.#installs.size === 0) this.#socket.unref();
  }

  /** Has a thread ask for the pages: whoever waits for them in the kernel is not this one. */
  async installAll({ range, signal }: InstallOptions = {}): Promise<void> {
    signal?.throwIfAborted();
    const { address, byteLength } = this.#options;
    const { start = address, until = address + byteLength } = range ?? {};
    const id = ++this.#installId;
    const errno = await new Promise<number>((resolve) => {
      this.#installs.set(id, resolve);
      this.#socket.ref();
      const order: PopulateOrder = { id, start, until };
      this.#populator.postMessage(order);
    });
    this.#installs.delete(id);
    this.keepAlive(false);
    signal?.throwIfAborted();
    if (errno === 0) return;
    throw new MinorfaultError("ERR_HANDLER_FAILED", "Not all of the memory could be brought", { errno });
  }

  get #populator(): Worker {
    if (this.#populating !== undefined) return this.#populating;
    const worker = new Worker(new URL("./populate-worker.js", import.meta.url), { execArgv: [] });
    worker.unref();
    worker.on("message", ({ id, errno }: PopulateNote) => this.#installs.get(id)?.(errno));
    this.#populating = worker;
    return worker;
  }

  get #isComplete(): boolean {
    const [{ pageCount, resident }] = this.residency() as [Residency];
    for (let page = 0; page < pageCount; page++) {
      if ((resident[page >>> 5]! & (1 << (page & 31))) === 0) return false;
    }
    return true;
  }

  /** The server counts; `minorfault guest show` tells. */
  statistics(): PagerStatistics {
    return NO_STATISTICS;
  }

  /** What the page table says now. */
  residency(): readonly Residency[] {
    const { address, byteLength } = this.#options;
    const pageCount = byteLength / PAGE_SIZE;
    const resident = new Uint32Array(wordsFor(pageCount));
    presentPages(address, pageCount, (page) => setBits(resident, page, page + 1));
    return [{ start: address, pageSize: PAGE_SIZE, pageCount, resident }];
  }

  async repair(): Promise<RepairReport> {
    throw unserved("repairs nothing");
  }

  trace(): never {
    throw unserved("records no touches");
  }

  writes(): readonly [] {
    return [];
  }

  async flush(): Promise<never> {
    throw unserved("tracks no writes");
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#socket.ref();
    this.#socket.destroy();
    await this.ended;
  }
}

function unserved(what: string): MinorfaultError {
  return new MinorfaultError("ERR_BAD_ARGUMENT", `A memory that a page server fills ${what}`);
}

function errorOf({ code, message, hint }: NonNullable<Answer["error"]>): MinorfaultError {
  return new MinorfaultError(code in ERRORS ? (code as ErrorCode) : "ERR_BUG", message, { hint });
}
