// One guest, as the thread that serves it has it: the loops of its memory and of its children's, and what its owner has
// asked for beside faults.

import type { MinorfaultError } from "../base/errors.ts";
import type { Range } from "../base/range.ts";
import { close, local } from "../linux/index.ts";
import { Bulk, type BulkState } from "./bulk.ts";
import type { EndNote, GuestMessage, GuestOrder } from "./control.ts";
import { COUNTER } from "./counters.ts";
import { ErrorLimit } from "./error-limit.ts";
import type { FaultLoop } from "./fault-loop.ts";
import type { Companion } from "./fetch/companion.ts";
import { Repair } from "./repair.ts";
import { sayError } from "./stderr.ts";
import type { FlushStep } from "./writes.ts";

/** What becomes of a message: without the guest's number, which the seat knows. */
type Note = GuestMessage extends infer Message
  ? Message extends GuestMessage
    ? Omit<Message, "guest">
    : never
  : never;

export interface SeatOptions {
  readonly order: GuestOrder;
  /** Where its bytes have to be fetched. */
  readonly companion: Companion | undefined;
  readonly startedMs: number;
  readonly now: () => number;
  readonly tell: (message: GuestMessage) => void;
}

export class Seat {
  readonly order: GuestOrder;
  readonly companion: Companion | undefined;
  readonly startedMs: number;
  /** The guest's own first, then its children's. */
  readonly loops: FaultLoop[] = [];
  hasEnded = false;
  /** A descriptor that says when the guest has ended; -1: none. */
  pidfd = -1;
  readonly #tell: (message: GuestMessage) => void;
  readonly #errors: ErrorLimit;
  readonly #releases: (() => void)[] = [];
  #bulk: Bulk | undefined;
  #repair: Repair | undefined;

  constructor({ order, companion, startedMs, now, tell }: SeatOptions) {
    this.order = order;
    this.startedMs = startedMs;
    this.companion = companion;
    this.#tell = tell;
    this.#errors = new ErrorLimit((error) => {
      if (order.says) sayError(error);
      this.tell({ kind: "error", error });
    }, now);
  }

  get guest(): number {
    return this.order.guest;
  }

  tell(note: Note): void {
    this.#tell({ ...note, guest: this.guest } as GuestMessage);
  }

  /** Tells its owner of an error, unless there are too many of them. */
  report(error: MinorfaultError): void {
    this.#errors.report(error);
  }

  /** Something to be done when the guest has ended. */
  onRelease(release: () => void): void {
    this.#releases.push(release);
  }

  /** Whether there is something to be done beside faults. */
  get isBusy(): boolean {
    return this.#bulk !== undefined || this.#repair !== undefined;
  }

  get hasBulk(): boolean {
    return this.#bulk !== undefined;
  }

  /** Installs everything from now on, or, with the id 0, no longer. */
  beginBulk(id: number, pieceBytes: number, range: Range | undefined): void {
    this.#bulk = id === 0 ? undefined : new Bulk(id, this.loops, this.order.counters, pieceBytes, range);
  }

  beginRepair(id: number, range: Range): void {
    this.#repair = new Repair(id, this.loops, range);
  }

  flush(id: number, step: FlushStep): void {
    for (const loop of this.loops) loop.flush(step);
    this.tell({ kind: "flushed", id });
  }

  /** One piece of what there is beside faults; answers how that went, and adds to `bytes` what it may have copied. */
  work(account: { bytes: number }): BulkState {
    const bulk = this.#bulkStep(account);
    const repair = this.#repairStep();
    if (bulk === "more" || repair === "more") return "more";
    return bulk === "put-off" || repair === "put-off" ? "put-off" : "away";
  }

  #bulkStep(account: { bytes: number }): BulkState {
    const bulk = this.#bulk;
    if (bulk === undefined) return "away";
    const state = bulk.step();
    account.bytes += bulk.pieceBytes;
    if (state !== "done") return state;
    this.#bulk = undefined;
    this.tell({ kind: "installed", id: bulk.id });
    return "more";
  }

  #repairStep(): BulkState {
    const repair = this.#repair;
    if (repair === undefined) return "away";
    const state = repair.step();
    if (state !== "done") return state;
    this.#repair = undefined;
    const { id, repaired, lost } = repair;
    this.tell({ kind: "repaired", id, report: { repaired, lost } });
    return "more";
  }

  /** Messages that all its loops have read. */
  get messages(): number {
    const { counters } = this.order;
    return counters[COUNTER.FAULTS]! + counters[COUNTER.EVENTS]!;
  }

  /** Lets go of one loop. */
  release(loop: FaultLoop): void {
    this.loops.splice(this.loops.indexOf(loop), 1);
    this.companion?.fetcher.remove(loop);
    close(local, loop.port.fd);
    loop.port.close();
  }

  /** Wakes everybody who waits, gives everything back, and says how it ended. */
  end(end: EndNote): void {
    this.hasEnded = true;
    for (const loop of [...this.loops]) {
      loop.wakeAll();
      this.release(loop);
    }
    if (this.pidfd >= 0) close(local, this.pidfd);
    for (const release of this.#releases) release();
    this.#errors.end();
    this.tell({ kind: "ended", end });
  }
}
