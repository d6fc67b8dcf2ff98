// The source of a post-copy migration, as a pure state machine: what happens goes in, what is to be done comes out.
// It knows no socket, no image and no clock but the one it is given.
//
//   connected ──▶ prefetching ── start() ──▶ starting ── PONG 3 ──▶ running ── all sent ──▶ finishing ── SHUT ──▶ completed
//                                                            │         ▲ ▼ lost                │ lost
//                                                            │   recovering ◀── connected ── paused
//                                                            └ refused at any moment: failed
//
// LAW 1  No page is sent twice on one machine: QEMU ends at the second one.
// LAW 2  What the guest waits for goes first; what is pushed behind its back is bounded.
// LAW 3  Of a request that cannot be, nothing is believed: the connection is given up, with a reason.
//
// The order of what is sent (QEMU's own): header, configuration, return path, PING 1, ADVISE, section ram with the
// blocks; pages known to be needed; DISCARD of everything else, since one page that was sent may have brought a huge
// page of zeros along, whose other pages would never be asked for; PING 2, a package {LISTEN, devices, PING 3, RUN},
// PING 4; then pages until none is left.

import { type ErrorCode, MinorfaultError } from "../../base/errors.ts";
import { Allowance } from "./allowance.ts";
import { HostPages } from "./host-pages.ts";
import { type Pages, pagesWithin } from "./page-content.ts";
import { bitmapBytesOf, PageLedger, type PageRun, type SourceBlock } from "./page-ledger.ts";
import { PageRecords } from "./page-records.ts";
import type { ReturnMessage } from "./return-path.ts";
import type { SourceAction, SourceCounters, SourceMachineOptions, SourceState } from "./source-contract.ts";
import { DISCARD_RANGES_MAX, PAGE_BYTES, RAM_SECTION } from "./stream-format.ts";
import { StreamWriter } from "./stream-writer.ts";

const PING = { connected: 1, discarded: 2, running: 3, loaded: 4 } as const;
const STEP_MS = 30_000;
const SHARE_WHILE_WAITING = 4;
/** LIMIT: requests that may come while a connection is being recovered. */
const EARLY_REQUESTS_MAX = 4096;

export class SourceMachine {
  readonly ledger: PageLedger;
  readonly #options: SourceMachineOptions;
  readonly #records: PageRecords;
  readonly #writer = new StreamWriter();
  readonly #hostPages = new HostPages();
  readonly #now: () => number;
  /** A host page that is never prefetched, so that there is something to discard: QEMU 7.2 hangs without. */
  readonly #keptBack: PageRun;
  #actions: SourceAction[] = [];
  #state: SourceState = "idle";
  #deadline = Number.POSITIVE_INFINITY;
  /** The block of the last request that named one. */
  #requestBlock: SourceBlock | undefined;
  /** Blocks whose received pages are still to be told. */
  readonly #unrecovered = new Set<SourceBlock>();
  #early: (ReturnMessage & { readonly kind: "request" })[] = [];
  #unsentBytes = 0;
  readonly #allowance: Allowance;
  readonly #counters = { requests: 0, crossed: 0, pagesSent: 0, zerosSent: 0, recoveries: 0 };

  constructor(options: SourceMachineOptions) {
    this.#options = options;
    this.ledger = new PageLedger(options.blocks);
    this.#records = new PageRecords(options.allocate ?? ((byteLength) => new Uint8Array(byteLength)));
    this.#now = options.now ?? (() => performance.now());
    this.#allowance = new Allowance(options.pushBytesPerSecond, this.#now());
    const [first] = options.blocks as [SourceBlock];
    this.#keptBack = {
      first: first.firstPage + (first.byteLength - first.pageSize) / PAGE_BYTES,
      count: first.pageSize / PAGE_BYTES,
    };
    if (options.isResumed) this.#state = "paused";
  }

  get state(): SourceState {
    return this.#state;
  }

  get counters(): SourceCounters {
    return { ...this.#counters, pagesThere: this.ledger.sentCount, pagesTotal: this.ledger.total };
  }

  /** When `tick` is to be called at the latest; Infinity: no need. */
  get wakeAt(): number {
    const needsAllowance = this.#isPlacing && this.#allowance.isUsedUp;
    return needsAllowance ? Math.min(this.#deadline, this.#now() + 5) : this.#deadline;
  }

  /** There is a connection to the destination: its first one, or one more after a loss. */
  connected(): readonly SourceAction[] {
    this.#unsentBytes = 0;
    this.#records.restart();
    if (this.#state === "idle") this.#greet();
    else if (this.#state === "paused") this.#recover();
    else throw new MinorfaultError("ERR_BUSY", `A machine that is ${this.#state} is not connected again`);
    return this.#done();
  }

  /** Everything that is known to be needed has been given: the machine may run. */
  start(): readonly SourceAction[] {
    if (this.#state !== "prefetching") {
      throw new MinorfaultError("ERR_BUSY", `A machine that is ${this.#state} is not started`);
    }
    this.#hostPages.clear();
    this.#writer.endOfRecords().footer(this.#options.sectionId);
    this.#discard();
    this.#writer.command({ name: "ping", value: PING.discarded });
    const inside = new StreamWriter()
      .command({ name: "postcopy-listen" })
      .verbatim(this.#options.devices)
      .command({ name: "ping", value: PING.running })
      .command({ name: "postcopy-run" });
    this.#writer
      .command({ name: "packaged", bytes: inside.take() })
      .command({ name: "ping", value: PING.loaded });
    this.#openPart();
    this.#enter("starting", this.#stepDeadline());
    return this.#done();
  }

  /** A message of the destination. */
  message(message: ReturnMessage): readonly SourceAction[] {
    switch (message.kind) {
      case "pong":
        this.#pong(message.value);
        break;
      case "request":
        this.#request(message);
        break;
      case "received":
        this.#received(message.block, message.bitmap);
        break;
      case "resumed":
        this.#resumed(message.value);
        break;
      case "shut":
        this.#shut(message.code);
        break;
      case "switchover":
        // An answer to a question that was not asked; it changes nothing.
        break;
    }
    return this.#done();
  }

  /** Bytes of pages from page `first` on, which lie in one block; those that were sent already are left out. */
  pages(first: number, bytes: Uint8Array): readonly SourceAction[] {
    return this.place({ first, count: bytes.byteLength / PAGE_BYTES, bytes, stride: PAGE_BYTES });
  }

  /** Pages that hold nothing but zeros. */
  zeros(first: number, count: number): readonly SourceAction[] {
    return this.place({ first, count, bytes: undefined, stride: PAGE_BYTES });
  }

  /** Either of them; those of a block of small pages may be records that are ready to be sent. */
  place(pages: Pages): readonly SourceAction[] {
    this.#place(pages);
    return this.#done();
  }

  /** Pages that were wanted cannot be had for now: rather none than wrong ones. All others go on. */
  withhold(first: number, count: number): readonly SourceAction[] {
    this.ledger.withhold(first, first + count);
    return this.#done();
  }

  /** Bytes of `send` have left. */
  written(byteLength: number): readonly SourceAction[] {
    this.#unsentBytes = Math.max(0, this.#unsentBytes - byteLength);
    return this.#done();
  }

  /** The connection is gone. A machine that runs waits to be recovered; one that does not has ended with it. */
  lost(): readonly SourceAction[] {
    switch (this.#state) {
      case "running":
      case "finishing":
      case "recovering":
        this.#pause();
        break;
      case "prefetching":
      case "starting":
        this.#close("ERR_QEMU", `QEMU closed the connection before the machine ran (${this.#state})`);
        break;
    }
    return this.#done();
  }

  /** Time has passed. */
  tick(): readonly SourceAction[] {
    const now = this.#now();
    this.#allowance.renew(now);
    this.#excuse();
    if (now >= this.#deadline) {
      const waited = `${this.#options.stepMs ?? STEP_MS} ms`;
      this.#close("ERR_DEADLINE", `QEMU did not answer within ${waited}, the machine is ${this.#state}`);
    }
    return this.#done();
  }

  #greet(): void {
    const { configuration, sectionId, blocks } = this.#options;
    this.#writer.header();
    if (configuration !== undefined) this.#writer.verbatim(configuration);
    const pageSizes = blocks.reduce((all, { pageSize }) => all | BigInt(pageSize), 0n);
    this.#writer
      .command({ name: "open-return-path" })
      .command({ name: "ping", value: PING.connected })
      .command({ name: "postcopy-advise", pageSizes: Number(pageSizes), targetPageSize: PAGE_BYTES })
      .sectionStart(sectionId, RAM_SECTION.name, RAM_SECTION.instance, RAM_SECTION.version)
      .blocks(
        blocks.map(({ name, byteLength, pageSize }) => ({
          name,
          byteLength,
          ...(pageSize !== PAGE_BYTES && { pageSize }),
        })),
      )
      .endOfRecords()
      .footer(sectionId);
    this.#openPart();
    this.#enter("prefetching", Number.POSITIVE_INFINITY);
  }

  #recover(): void {
    this.#requestBlock = undefined;
    this.#early = [];
    this.#hostPages.clear();
    this.#unrecovered.clear();
    for (const block of this.ledger.blocks) {
      this.#unrecovered.add(block);
      this.#writer.command({ name: "recv-bitmap", block: block.name });
    }
    this.#enter("recovering", this.#stepDeadline());
  }

  #openPart(): void {
    this.#writer.sectionPart(this.#options.sectionId);
    this.#records.restart();
  }

  #discard(): void {
    for (const block of this.ledger.blocks) {
      const ranges = this.ledger.unsent(block);
      for (let at = 0; at < ranges.length; at += DISCARD_RANGES_MAX) {
        const some = ranges.slice(at, at + DISCARD_RANGES_MAX);
        this.#writer.command({ name: "postcopy-discard", block: block.name, ranges: some });
      }
    }
  }

  #pong(value: number): void {
    switch (value) {
      case PING.connected:
      case PING.discarded:
      case PING.loaded:
        return;
      case PING.running:
        if (this.#state !== "starting") break;
        this.#enter("running", Number.POSITIVE_INFINITY);
        return;
    }
    this.#refuse(`it answers PING ${value}, which was not asked`);
  }

  #request(message: ReturnMessage & { readonly kind: "request" }): void {
    if (this.#state === "recovering") {
      if (this.#early.push(message) > EARLY_REQUESTS_MAX)
        this.#refuse("it asks for pages before it has resumed");
      return;
    }
    if (!this.#isPlacing && this.#state !== "finishing") {
      this.#refuse(`it asks for pages while the machine is ${this.#state}`);
      return;
    }
    const block = message.block === undefined ? this.#requestBlock : this.ledger.named(message.block);
    if (block === undefined) {
      const name = message.block === undefined ? "no block" : `block ${JSON.stringify(message.block)}`;
      this.#refuse(`it asks for pages of ${name}, which the machine does not have`);
      return;
    }
    this.#requestBlock = block;
    const { start, byteLength } = message;
    const range = `${byteLength} bytes at ${start} of block ${block.name}`;
    if (start % block.pageSize !== 0 || byteLength !== block.pageSize) {
      this.#refuse(`it asks for ${range}, which is no page of ${block.pageSize}`);
      return;
    }
    if (start + byteLength > block.byteLength) {
      this.#refuse(`it asks for ${range}, which has ${block.byteLength}`);
      return;
    }
    this.#serve(block.firstPage + start / PAGE_BYTES, byteLength / PAGE_BYTES);
  }

  #serve(first: number, count: number): void {
    this.#counters.requests++;
    this.#actions.push({ kind: "touched", first, count });
    if (this.ledger.await(first, first + count))
      this.#actions.push({ kind: "want", first, count, urgency: "request" });
    else if (this.ledger.isSent(first)) this.#counters.crossed++;
  }

  #received(name: string, bitmap: Uint8Array): void {
    const block = this.ledger.named(name);
    if (this.#state !== "recovering" || block === undefined || !this.#unrecovered.delete(block)) {
      this.#refuse(`it tells what it has of block ${JSON.stringify(name)}, which was not asked`);
      return;
    }
    if (bitmap.byteLength !== bitmapBytesOf(block.byteLength)) {
      this.#refuse(
        `it tells with ${bitmap.byteLength} bytes what it has of block ${name} (${block.byteLength})`,
      );
      return;
    }
    this.ledger.recover(block, bitmap);
    if (this.#unrecovered.size === 0) this.#writer.command({ name: "postcopy-resume" });
  }

  #resumed(value: number): void {
    if (this.#state !== "recovering" || this.#unrecovered.size > 0 || value !== 1) {
      this.#refuse(`it says that it has resumed (${value}) while the machine is ${this.#state}`);
      return;
    }
    this.#counters.recoveries++;
    this.#openPart();
    this.#enter("running", Number.POSITIVE_INFINITY);
    const early = this.#early;
    this.#early = [];
    for (const message of early) this.#request(message);
  }

  #shut(code: number): void {
    if (code !== 0) {
      this.#close("ERR_QEMU", `QEMU could not load the machine (it answers SHUT ${code})`);
    } else if (this.#state === "finishing") {
      this.#enter("completed", Number.POSITIVE_INFINITY);
    } else {
      this.#refuse(`it ends while the machine is ${this.#state}`);
    }
  }

  get #isPlacing(): boolean {
    return this.#state === "starting" || this.#state === "running";
  }

  #place(pages: Pages): void {
    const { first, count } = pages;
    this.#excuse();
    const block = this.ledger.blockOf(first);
    const until = first + count;
    if (
      block === undefined ||
      !Number.isInteger(count) ||
      until > block.firstPage + block.byteLength / PAGE_BYTES
    ) {
      throw new MinorfaultError("ERR_OUT_OF_RANGE", `Pages ${first} to ${until} are not within one block`);
    }
    if (!this.#isPlacing && this.#state !== "prefetching") {
      this.ledger.arrived(first, until);
      return;
    }
    if (block.pageSize === PAGE_BYTES) this.#placeSmall(block, pages);
    else this.#placeHuge(block, pages);
  }

  #placeSmall(block: SourceBlock, pages: Pages): void {
    const { first, count } = pages;
    const until = first + count;
    for (let page = this.#nextToSend(first, until); page < until; page = this.#nextToSend(page, until)) {
      const end = this.ledger.nextSent(page, this.#runEnd(page, until));
      this.#emit(block, pagesWithin(pages, page, end));
      page = end;
    }
    this.ledger.arrived(first, until);
  }

  #placeHuge(block: SourceBlock, pages: Pages): void {
    const hostPages = block.pageSize / PAGE_BYTES;
    const until = pages.first + pages.count;
    for (let page = pages.first; page < until; ) {
      const start = page - ((page - block.firstPage) % hostPages);
      const end = Math.min(until, start + hostPages);
      const isWanted = this.#nextToSend(start, start + 1) === start;
      const { bytes: part } = pagesWithin(pages, page, end);
      const whole = isWanted ? this.#hostPages.add(start, hostPages, page, end - page, part) : undefined;
      if (whole !== undefined) {
        const bytes = whole.isZero ? undefined : whole.bytes;
        this.#emit(block, { first: start, count: hostPages, bytes, stride: PAGE_BYTES });
      }
      page = end;
    }
  }

  /** The first page that may be sent now. */
  #nextToSend(first: number, until: number): number {
    const page = this.ledger.nextUnsent(first, until);
    const { first: kept, count } = this.#keptBack;
    if (this.#state !== "prefetching" || page < kept || page >= kept + count) return page;
    return Math.min(until, kept + count) === until ? until : this.ledger.nextUnsent(kept + count, until);
  }

  /** Where a run of pages that may be sent ends, whatever has been sent. */
  #runEnd(page: number, until: number): number {
    const { first: kept } = this.#keptBack;
    return this.#state === "prefetching" && page < kept ? Math.min(until, kept) : until;
  }

  /** Sends pages, none of which was sent. */
  #emit(block: SourceBlock, { first, count, bytes, stride }: Pages): void {
    this.#flush();
    this.#counters[bytes === undefined ? "zerosSent" : "pagesSent"] += count;
    if (bytes === undefined) this.#send(this.#records.zeros(block, first, first + count));
    else if (stride === PAGE_BYTES) this.#send(this.#records.pages(block, first, bytes));
    else for (const part of this.#records.ready(block, first, bytes)) this.#send(part);
    this.ledger.send(first, first + count);
  }

  /** What is to be done in any case after anything has happened. */
  #done(): readonly SourceAction[] {
    if (this.#isPlacing && this.ledger.isAllSent && this.#state === "running") this.#finish();
    if (this.#isPlacing) this.#push();
    this.#flush();
    const actions = this.#actions;
    this.#actions = [];
    return actions;
  }

  #finish(): void {
    const { sectionId } = this.#options;
    this.#writer.endOfRecords().footer(sectionId);
    this.#writer.sectionFinish(sectionId).endOfRecords().footer(sectionId).end();
    this.#enter("finishing", this.#stepDeadline());
  }

  #push(): void {
    const { push = true, pushPagesMax = 256, pushUnit = 16, unsentBytesMax = 2 ** 20 } = this.#options;
    if (!push || this.#unsentBytes >= unsentBytesMax || this.ledger.withholdsMost) return;
    const isWaiting = this.ledger.waitedCount > 0;
    const limit = isWaiting ? Math.ceil(pushPagesMax / SHARE_WHILE_WAITING) : pushPagesMax;
    while (this.ledger.pushedCount < limit) {
      if (this.#allowance.isUsedUp) return;
      const run = this.ledger.push(limit - this.ledger.pushedCount, pushUnit);
      if (run === undefined) return;
      this.#allowance.use(run.count * PAGE_BYTES);
      this.#actions.push({ kind: "want", ...run, urgency: "push" });
    }
  }

  #pause(): void {
    this.ledger.forgetAsked();
    this.#hostPages.clear();
    this.#enter("paused", Number.POSITIVE_INFINITY);
  }

  #refuse(reason: string): void {
    this.#close("ERR_BAD_MESSAGE", `The destination is refused: ${reason}`);
  }

  /** Gives the connection up. A machine that runs can be recovered over another one. */
  #close(code: ErrorCode, message: string): void {
    if (this.#state === "failed" || this.#state === "completed" || this.#state === "paused") return;
    const isRunning =
      this.#state === "running" || this.#state === "finishing" || this.#state === "recovering";
    if (isRunning) this.#pause();
    else this.#enter("failed", Number.POSITIVE_INFINITY);
    this.#writer.take();
    this.#actions.push({ kind: "close", error: new MinorfaultError(code, message) });
  }

  #enter(state: SourceState, deadline: number): void {
    this.#flush();
    this.#state = state;
    this.#deadline = deadline;
    this.#actions.push({ kind: "state", state });
  }

  /** A destination that cannot load its devices without pages that cannot be had is not late. */
  #excuse(): void {
    if (this.#state === "starting" && this.ledger.withheldCount > 0) this.#deadline = this.#stepDeadline();
  }

  #stepDeadline(): number {
    return this.#now() + (this.#options.stepMs ?? STEP_MS);
  }

  /** Sends what was written before whatever is sent next. */
  #flush(): void {
    if (this.#writer.byteLength > 0) this.#send(this.#writer.take());
  }

  #send(bytes: Uint8Array): void {
    this.#unsentBytes += bytes.byteLength;
    this.#actions.push({ kind: "send", bytes });
  }
}
