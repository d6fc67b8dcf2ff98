// Gives the source of a post-copy migration its socket, its image and its time: whatever the pure machine
// (source-machine.ts) says is to be done is done here.
//
//            requests, PONGs                     want                    chunks
//   QEMU ──────────────────────▶ SourceMachine ────────▶ SourceSession ─────────▶ image
//        ◀────────────────────── send           ◀──────── pages, zeros ◀─────────
//
// A page that a guest waits for is read in this thread at once where the image is local, and its neighbours of the same
// chunk go with it; what is pushed behind the guest's back is read by a pool of threads. A chunk that is damaged or that
// cannot be read ends nothing: it is left out, told, and tried again (missing-chunks.ts).

import type { Socket } from "node:net";
import { MinorfaultError } from "../../base/errors.ts";
import { roundDown, roundUp } from "../../base/range.ts";
import type { Image } from "../../image/index.ts";
import { type MissingChunk, MissingChunks } from "./missing-chunks.ts";
import { type PageContent, type PageRange, type Pages, pagesWithin, runsOf } from "./page-content.ts";
import type { SourceBlock } from "./page-ledger.ts";
import { InlineReader, type PageReader } from "./page-reader.ts";
import { PushPace } from "./push-pace.ts";
import { PushQueue } from "./push-queue.ts";
import { type ReturnMessage, ReturnPathReader } from "./return-path.ts";
import { joined, SlabPool } from "./slab-pool.ts";
import type { SourceAction, SourceMachineOptions, SourceState } from "./source-contract.ts";
import { SourceMachine } from "./source-machine.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** LIMIT: bytes that lie in our queue while pages are pushed: what stands before a request. */
const UNSENT_BYTES = 256 * 2 ** 10;
/** So little is left in it when more of a working set is asked for. */
const DRAINED_BYTES = 32 * 2 ** 10;
/** Pages that are read as one piece, 1 MiB: telling a thread of one costs as much as reading some pages. */
const PIECE_PAGES = 256;
/** LIMIT: pieces that are on their way from the image. */
const PUSH_AHEAD = 4;

export interface SessionOptions
  extends Omit<
    SourceMachineOptions,
    "push" | "now" | "allocate" | "unsentBytesMax" | "pushUnit" | "pushPagesMax"
  > {
  readonly image: Image;
  /** Opens whoever reads what is pushed, and is closed with the session. Default: this thread. */
  readonly openPool?: () => PageReader;
  /** Opens whoever tries again what could not be read. Default: this thread, by the image as it was opened. */
  readonly openAgain?: (signal: AbortSignal) => Promise<PageReader>;
  /** LIMIT: how long a guest waits for a page that cannot be had until the connection is given up; default 30 s. */
  readonly patienceMs?: number | undefined;
  /** A chunk cannot be had, or has come after all. */
  readonly onMissing?: ((chunk: MissingChunk) => void) | undefined;
  readonly onState?: (state: SourceState) => void;
  /** The guest has asked for a page. */
  readonly onTouched?: (range: PageRange) => void;
}

/** How a connection has ended. */
export interface Ending {
  readonly state: SourceState;
  /** What was wrong, if it was not simply cut. */
  readonly error?: unknown;
  /** The image lacks what the machine needs: another connection would not help. */
  readonly isGivenUp: boolean;
}

export class SourceSession {
  readonly machine: SourceMachine;
  readonly #options: SessionOptions;
  readonly #inline: InlineReader;
  readonly #reading = new Map<number, Promise<PageContent>>();
  /** First pages of the pieces that are being read to be pushed. */
  readonly #pushing = new Set<number>();
  readonly #chunkPages: number;
  readonly #piecePages: number;
  readonly #queue = new PushQueue();
  readonly #slabs = new SlabPool();
  readonly #abort = new AbortController();
  readonly #pool: PageReader;
  readonly #missing: MissingChunks;
  #socket: Socket | undefined;
  #settle: ((ending: Ending) => void) | undefined;
  #error: unknown;
  #isGivenUp = false;
  #confirmedPages = 0;
  #timer: NodeJS.Timeout | undefined;
  #unsentBytes = 0;
  #onDrained: (() => void) | undefined;
  readonly #pace = new PushPace();
  #pourTimer: NodeJS.Timeout | undefined;
  #pushes = false;
  #sendsNeighbours = false;
  #isGathering = false;
  /** What has not been given to the socket yet: what lies behind it leaves with it. */
  #gathered: Uint8Array | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#inline = new InlineReader(options.image);
    this.#chunkPages = options.image.chunkBytes / PAGE_BYTES;
    this.#piecePages = piecePagesOf(options.image, options.blocks);
    const session = this;
    this.machine = new SourceMachine({
      ...options,
      pushUnit: this.#piecePages,
      pushPagesMax: PUSH_AHEAD * this.#piecePages,
      allocate: (byteLength) => this.#slabs.take(byteLength),
      get push() {
        return session.#pushes;
      },
      unsentBytesMax: UNSENT_BYTES,
    });
    this.#pool = options.openPool?.() ?? this.#inline;
    const { openAgain = async () => this.#inline } = options;
    this.#missing = new MissingChunks({
      chunkBytes: options.image.chunkBytes,
      patienceMs: options.patienceMs,
      open: openAgain,
      isServing: () => this.state === "running" || this.state === "starting",
      isAllElseSent: () => this.machine.ledger.isAllElseSent,
      give: (content) => this.#giveAll(content),
      tell: options.onMissing,
      giveUp: (error) => {
        this.#isGivenUp = true;
        this.disconnect(error);
      },
    });
  }

  get state(): SourceState {
    return this.machine.state;
  }

  /** Pages that the destination had for certain when it began to run, or to run again: what was on its way may be lost. */
  get confirmedPages(): number {
    return this.#confirmedPages;
  }

  /** When the guest last asked for a page, as performance.now has it. */
  get touchedAt(): number {
    return this.#pace.touchedAt;
  }

  /** Whether pages go out that nobody asked for: the rest of the machine, and those beside a requested one. */
  set pushes(value: boolean) {
    this.#pushes = value;
    if (value) this.#perform(this.machine.tick());
  }

  set sendsNeighbours(value: boolean) {
    this.#sendsNeighbours = value;
  }

  /** Serves a connection until its end. */
  async serve(socket: Socket): Promise<Ending> {
    const reader = new ReturnPathReader();
    this.#socket = socket;
    this.#unsentBytes = 0;
    this.#error = undefined;
    this.#isGivenUp = false;
    socket.setNoDelay(true);
    const ended = new Promise<Ending>((resolve) => {
      this.#settle = resolve;
    });
    socket.on("data", (bytes) => this.#received(reader, bytes));
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    socket.on("close", () => this.#lost());
    this.#perform(this.machine.connected());
    return ended;
  }

  /** Lets the machine run: everything it is known to need before that has been given. */
  start(): void {
    this.#perform(this.machine.start());
  }

  /** Sends pages that nobody asked for, those that are there already left out. */
  send(first: number, count: number, bytes: Uint8Array | undefined): void {
    this.#gather();
    for (let page = first; page < first + count; ) {
      const block = this.machine.ledger.blockOf(page);
      if (block === undefined) return;
      const until = Math.min(first + count, block.firstPage + block.byteLength / PAGE_BYTES);
      const part = bytes?.subarray((page - first) * PAGE_BYTES, (until - first) * PAGE_BYTES);
      this.#give({ first: page, count: until - page, bytes: part, stride: PAGE_BYTES });
      page = until;
    }
  }

  /** Resolves when little is left that has not gone to the socket, or the connection has ended. */
  async drained(): Promise<void> {
    if (this.#unsentBytes <= DRAINED_BYTES || this.#socket === undefined) return;
    await new Promise<void>((resolve) => {
      this.#onDrained = resolve;
    });
  }

  async close(): Promise<void> {
    this.#abort.abort();
    this.#missing.close();
    clearTimeout(this.#timer);
    clearTimeout(this.#pourTimer);
    this.#socket?.destroy();
    await this.#pool.close();
  }

  /**
   * Ends the connection: QEMU waits, if its machine runs, until it is resumed. One that is being recovered is let finish
   * first, or be late with it: a QEMU before 8.2 would end with the connection, and its machine be lost.
   */
  disconnect(reason: unknown): void {
    this.#error ??= reason;
    if (this.state !== "recovering") this.#socket?.destroy();
  }

  /** Pieces of this turn of the event loop leave together at its end. */
  #gather(): void {
    const socket = this.#socket;
    if (this.#isGathering || socket === undefined) return;
    this.#isGathering = true;
    socket.cork();
    setImmediate(() => {
      this.#isGathering = false;
      this.#letGo();
      socket.uncork();
    });
  }

  #received(reader: ReturnPathReader, bytes: Uint8Array): void {
    try {
      reader.push(bytes);
      for (let message = reader.read(); message !== undefined; message = reader.read()) {
        this.#message(message);
      }
    } catch (error) {
      this.disconnect(error);
    }
  }

  #message(message: ReturnMessage): void {
    if (message.kind === "request") this.#pace.touched(performance.now());
    this.#perform(this.machine.message(message));
  }

  #lost(): void {
    this.#socket = undefined;
    this.#gathered = undefined;
    clearTimeout(this.#timer);
    this.#perform(this.machine.lost());
    this.#onDrained?.();
    this.#settle?.({
      state: this.machine.state,
      isGivenUp: this.#isGivenUp,
      ...(this.#error === undefined ? {} : { error: this.#error }),
    });
    this.#settle = undefined;
  }

  #perform(actions: readonly SourceAction[]): void {
    const socket = this.#socket;
    // Many small pieces leave in one system call.
    socket?.cork();
    for (const action of actions) this.#do(action);
    socket?.uncork();
    this.#keepTime();
  }

  #do(action: SourceAction): void {
    switch (action.kind) {
      case "send":
        this.#write(action.bytes);
        return;
      case "want":
        if (action.urgency === "request") this.#bringRequested(action);
        else void this.#bringPushed(action);
        return;
      case "touched":
        this.#options.onTouched?.(action);
        return;
      case "state":
        this.#entered(action.state);
        return;
      case "close":
        this.disconnect(action.error);
        return;
    }
  }

  #entered(state: SourceState): void {
    if (state === "running") this.#confirmedPages = this.machine.ledger.sentCount;
    if (state === "paused") this.#missing.forgetWaiting();
    this.#options.onState?.(state);
    if (state === "completed") this.#socket?.end();
    else if (this.#error !== undefined) this.disconnect(this.#error);
  }

  #write(bytes: Uint8Array): void {
    const socket = this.#socket;
    if (socket === undefined || socket.destroyed) return;
    this.#unsentBytes += bytes.byteLength;
    if (!this.#isGathering || !this.#slabs.isSmall(bytes)) {
      this.#letGo();
      this.#put(socket, bytes);
      return;
    }
    const both = this.#gathered && joined(this.#gathered, bytes);
    if (both === undefined) this.#letGo();
    this.#gathered = both ?? bytes;
  }

  #letGo(): void {
    const bytes = this.#gathered;
    this.#gathered = undefined;
    if (bytes !== undefined && this.#socket !== undefined) this.#put(this.#socket, bytes);
  }

  #put(socket: Socket, bytes: Uint8Array): void {
    this.#queue.leaving(bytes);
    socket.write(bytes, () => {
      this.#slabs.give(bytes);
      this.#queue.left(bytes);
      if (socket !== this.#socket) return;
      this.#unsentBytes -= bytes.byteLength;
      if (this.#unsentBytes <= DRAINED_BYTES) {
        this.#onDrained?.();
        this.#onDrained = undefined;
      }
      this.#perform(this.machine.written(bytes.byteLength));
      this.#pour();
    });
  }

  /** What the guest waits for. The page itself goes first, then the others of its chunk. */
  #bringRequested(wanted: PageRange): void {
    for (const chunk of this.#chunksOf(wanted)) {
      try {
        const content = this.#inline.readSync(chunk);
        if (content !== undefined) this.#giveRequested(content, wanted);
        else void this.#bringLater(chunk, wanted);
      } catch (error) {
        this.#lacks(chunk, error, true);
      }
    }
  }

  async #bringLater(chunk: PageRange, wanted: PageRange): Promise<void> {
    let reading = this.#reading.get(chunk.first);
    if (reading === undefined) {
      reading = this.#inline.read(chunk, this.#abort.signal).finally(() => this.#reading.delete(chunk.first));
      this.#reading.set(chunk.first, reading);
    }
    try {
      this.#giveRequested(await reading, wanted);
    } catch (error) {
      this.#lacks(chunk, error, true);
    }
  }

  /** What is left of a piece is pushed at once, however scattered: its chunks are read once. */
  async #bringPushed(range: PageRange): Promise<void> {
    const piece = this.#around(range, this.#piecePages);
    if (this.#pushing.has(piece.first)) return;
    this.#pushing.add(piece.first);
    try {
      this.#push(await this.#readPushed(piece).finally(() => this.#pushing.delete(piece.first)));
    } catch (error) {
      await this.#bringApart(piece, error);
    }
  }

  /** Of a piece that could not be had as a whole, the chunks that can. */
  async #bringApart(piece: PageRange, error: unknown): Promise<void> {
    // A source that does not answer has none of them.
    const isDamage = error instanceof MinorfaultError && !error.retryable;
    for (const chunk of this.#chunksOf(piece)) {
      try {
        if (!isDamage) throw error;
        this.#push(await this.#readPushed(chunk));
      } catch (failure) {
        this.#lacks(chunk, failure, false);
      }
    }
  }

  #readPushed(range: PageRange): Promise<PageContent> {
    const { firstPage, pageSize } = this.machine.ledger.blockOf(range.first)!;
    // Huge pages are put together before they are sent, which takes pages and no records.
    const blockFirst = pageSize === PAGE_BYTES ? firstPage : undefined;
    return this.#pool.read(range, this.#abort.signal, blockFirst);
  }

  #push(content: PageContent): void {
    this.#queue.add(content);
    this.#pour();
  }

  /** Gives pieces as they leave, and as a guest that asks for pages lets us. */
  #pour(): void {
    while (!this.#queue.isEmpty && this.#unsentBytes < UNSENT_BYTES) {
      const now = performance.now();
      const isWaiting = this.machine.ledger.waitedCount > 0;
      const pauseMs = this.#pace.pause(now, isWaiting);
      if (pauseMs > 0) {
        this.#pourAgain(pauseMs);
        return;
      }
      this.#queue.take(this.#pace.portion(now, isWaiting), (pages) => this.#give(pages));
    }
  }

  #pourAgain(pauseMs: number): void {
    this.#pourTimer ??= setTimeout(() => {
      this.#pourTimer = undefined;
      this.#pour();
    }, pauseMs);
  }

  /** Pages of a chunk: those that are wanted first. */
  #giveRequested(content: PageContent, wanted: PageRange): void {
    const first = Math.max(content.first, wanted.first);
    const until = Math.min(content.first + content.count, wanted.first + wanted.count);
    const zeros = content.zeros.subarray(first - content.first, until - content.first);
    this.#giveAll({ ...content, ...pagesWithin(content, first, until), zeros } as PageContent);
    if (this.#sendsNeighbours && until - first < content.count) this.#giveAll(content);
  }

  #giveAll(content: PageContent): void {
    for (const run of runsOf(content)) this.#give(run);
  }

  #give(pages: Pages): void {
    this.#perform(this.machine.place(pages));
  }

  /** A chunk cannot be had; `isWaited`: a guest waits for it. Wrong bytes are not sent, all others are. */
  #lacks(chunk: PageRange, error: unknown, isWaited: boolean): void {
    if (this.#abort.signal.aborted) return;
    if (!(error instanceof MinorfaultError) || error.kind !== "source") {
      this.disconnect(error);
      return;
    }
    const until = chunk.first + chunk.count;
    if (this.machine.ledger.nextUnsent(chunk.first, until) === until) return;
    this.#missing.add(chunk, error, isWaited);
    this.#perform(this.machine.withhold(chunk.first, chunk.count));
  }

  /** The chunks that hold pages of a range, as far as they are its block's. */
  *#chunksOf({ first, count }: PageRange): Generator<PageRange> {
    for (let page = first; page < first + count; ) {
      const chunk = this.#around({ first: page, count: 1 }, this.#chunkPages);
      yield chunk;
      page = chunk.first + chunk.count;
    }
  }

  /** Whole units of so many pages around a range, as far as they are its block's. */
  #around({ first, count }: PageRange, unitPages: number): PageRange {
    const block = this.machine.ledger.blockOf(first)!;
    const start = Math.max(block.firstPage, roundDown(first, unitPages));
    const end = block.firstPage + block.byteLength / PAGE_BYTES;
    const until = Math.min(end, roundUp(first + count, unitPages));
    return { first: start, count: until - start };
  }

  #keepTime(): void {
    clearTimeout(this.#timer);
    const { wakeAt } = this.machine;
    if (wakeAt === Number.POSITIVE_INFINITY || this.#socket === undefined) return;
    const wait = Math.max(0, wakeAt - performance.now());
    this.#timer = setTimeout(() => this.#perform(this.machine.tick()), wait);
  }
}

/** Pages that are read at once to be pushed: whole chunks, and whole pages of the destination's host. */
export function piecePagesOf(image: Image, blocks: readonly SourceBlock[]): number {
  const hostPages = blocks.map(({ pageSize }) => pageSize / PAGE_BYTES);
  return Math.max(PIECE_PAGES, image.chunkBytes / PAGE_BYTES, ...hostPages);
}
