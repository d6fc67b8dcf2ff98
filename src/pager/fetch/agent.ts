// Does what is asked for: reads, verifies and decompresses units into their slots, and tells how each ended.
//
// What lies in this machine's files is read one by one, whenever `work` is called: faults before what nobody waits for. A fault
// whose bytes are still on the disk waits for them there, as long as there is something else to do.
//
// What has to be waited for is gathered first: units that lie side by side and were asked for together are one read.
//
//   asked for   8 9 10 11   40        reads   [8 9 10 11]   [40]        faults before what nobody waits for
//
// A slot is written to from its request until its end is told, and never later: also a cancelled fetch has its end, when
// its source has let go.

import { MinorfaultError } from "../../base/errors.ts";
import { noteOf } from "../notes.ts";
import { RANK, type Rank } from "./machine.ts";
import { GATHERED_MAX, type UnitReader } from "./opened-source.ts";
import type { WireEnd, WireNews, WireRequest } from "./order.ts";
import type { SlotMemory } from "./slots.ts";

export interface AgentOptions {
  readonly reader: UnitReader;
  readonly slots: SlotMemory;
  /** One bit a unit; only written here. */
  readonly holes: Uint32Array;
  /** LIMIT: reads that wait for something at once. */
  readonly readsMax: number;
  readonly tell: (news: WireNews) => void;
}

/** A unit that waits for its read. */
interface Asked {
  readonly ticket: number;
  readonly unit: number;
  readonly rank: Rank;
  readonly target: Uint8Array;
  /** The disk has been told. */
  isExpected?: boolean;
}

interface Read {
  readonly controller: AbortController;
  /** Units that are still wanted. */
  wanted: number;
}

export class FetchAgent {
  readonly #options: AgentOptions;
  /** What `work` has to do, in the order of its asking: faults, and what nobody waits for. */
  readonly #dueFaults = new Map<number, Asked>();
  readonly #due = new Map<number, Asked>();
  /** What has to be waited for, in the order of its asking. */
  readonly #asked = new Map<number, Asked>();
  /** By the tickets of their units. */
  readonly #running = new Map<number, Read>();
  #reads = 0;
  #lowReads = 0;
  #isGathering = false;
  readonly #spans = new Set<number>();
  /** Told of slots of the replay that can be filled again. */
  onFree: ((slot: number) => void) | undefined;
  /** Told of slots of the replay that are left as they are. */
  onKeep: ((slot: number) => void) | undefined;
  /** Told of working sets that are to be replayed. */
  onReplay: ((workingSet: string) => void) | undefined;
  /** Told that everything will be asked for. */
  onFill: (() => void) | undefined;
  /** The last read was made at once, or the first one will be. */
  isLocal: boolean;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.isLocal = options.reader.isLocal;
  }

  /** Units that wait for something. */
  get running(): number {
    return this.#running.size + this.#asked.size;
  }

  handle(request: WireRequest): void {
    if (request.kind === "free") this.onFree?.(request.slot);
    else if (request.kind === "keep") this.onKeep?.(request.slot);
    else if (request.kind === "replay") this.onReplay?.(request.workingSet);
    else if (request.kind === "fill") this.onFill?.();
    else if (request.kind === "cancel") this.#cancel(request.ticket);
    else if (request.kind === "fetch") {
      this.#fetch(request.ticket, request.unit, request.slot, request.rank);
    }
  }

  /** Reads one unit that need not be waited for; false: there is none. */
  work(): boolean {
    const asked = this.#nextDue();
    if (asked === undefined) return false;
    this.#dueFaults.delete(asked.ticket);
    this.#due.delete(asked.ticket);
    if (!this.#readAtOnce(asked)) this.#ask(asked);
    return true;
  }

  /** Ends everything. */
  abort(): void {
    this.#dueFaults.clear();
    this.#due.clear();
    this.#asked.clear();
    for (const { controller } of this.#running.values()) controller.abort(cancelled());
  }

  /** Marks the holes among the first units, as far as the index is in memory. */
  learnFirst(units: number): void {
    this.#learn(0, units);
  }

  /** Marks the holes around a unit whose index is in memory now. */
  #learnAround(unit: number): void {
    const { spanUnits } = this.#options.reader;
    const span = Math.floor(unit / spanUnits);
    if (this.#spans.has(span)) return;
    this.#spans.add(span);
    this.#learn(span * spanUnits, (span + 1) * spanUnits);
  }

  #learn(first: number, last: number): void {
    const { reader, holes } = this.#options;
    if (reader.image === undefined) return;
    const until = Math.min(last, Math.ceil(reader.byteLength / reader.unitBytes));
    for (let unit = first; unit < until; unit++) {
      const isHole = reader.isHole(unit);
      if (isHole) Atomics.or(holes, unit >>> 5, 1 << (unit & 31));
      // Its page of the index is not there: that would tell of the rest of the span as well.
      if (isHole === undefined) unit = Math.floor(unit / reader.spanUnits + 1) * reader.spanUnits - 1;
    }
  }

  #fetch(ticket: number, unit: number, slot: number, rank: Rank): void {
    const asked: Asked = { ticket, unit, rank, target: this.#options.slots(slot) };
    if (this.isLocal) (rank === RANK.FAULT ? this.#dueFaults : this.#due).set(ticket, asked);
    else if (!this.#readAtOnce(asked)) this.#ask(asked);
  }

  #nextDue(): Asked | undefined {
    const { reader } = this.#options;
    const [other] = this.#due.values();
    const [first] = this.#dueFaults.values();
    const isAlone = other === undefined && this.#dueFaults.size < 2;
    if (first === undefined || isAlone) return first ?? other;
    for (const fault of this.#dueFaults.values()) {
      if (reader.isCached(fault.unit) !== false) return fault;
      if (!fault.isExpected) reader.expect(fault.unit);
      fault.isExpected = true;
    }
    return other ?? first;
  }

  /** False: it has to be waited for. */
  #readAtOnce({ ticket, unit, target }: Asked): boolean {
    const { reader, tell } = this.#options;
    try {
      const result = reader.readSync(unit, target);
      this.isLocal = result !== undefined;
      if (result === undefined) return false;
      tell({ kind: "end", ticket, result });
      this.#learnAround(unit);
    } catch (error) {
      tell({ kind: "end", ticket, result: "failed", error: noteOf(error) });
    }
    return true;
  }

  #ask(asked: Asked): void {
    this.#asked.set(asked.ticket, asked);
    if (this.#isGathering) return;
    // There is nothing that it could be gathered with, or that would be read before it.
    if (asked.rank === RANK.FAULT && this.running === 1) {
      this.#begin();
      return;
    }
    this.#isGathering = true;
    // When all messages that are there have been heard.
    setImmediate(() => {
      this.#isGathering = false;
      this.#begin();
    });
  }

  #cancel(ticket: number): void {
    if (this.#dueFaults.delete(ticket) || this.#due.delete(ticket) || this.#asked.delete(ticket)) {
      this.#options.tell({ kind: "end", ticket, result: "failed", error: noteOf(cancelled()) });
      return;
    }
    const read = this.#running.get(ticket);
    if (read !== undefined && --read.wanted === 0) read.controller.abort(cancelled());
  }

  /** Begins as many reads as may be. */
  #begin(): void {
    const { readsMax } = this.#options;
    const lowMax = Math.max(1, readsMax - Math.max(1, readsMax >> 2));
    while (this.#reads < readsMax) {
      const first = this.#first();
      if (first === undefined || (first.rank !== RANK.FAULT && this.#lowReads >= lowMax)) return;
      void this.#read(this.#gather(first));
    }
  }

  /** Faults first. */
  #first(): Asked | undefined {
    let best: Asked | undefined;
    for (const asked of this.#asked.values()) {
      if (best === undefined || asked.rank < best.rank) best = asked;
      if (best.rank === RANK.FAULT) return best;
    }
    return best;
  }

  /** Takes a unit, and those around it that are asked for with the same rank. */
  #gather(one: Asked): readonly Asked[] {
    const sameRank = new Map<number, Asked>();
    for (const asked of this.#asked.values()) if (asked.rank === one.rank) sameRank.set(asked.unit, asked);
    let first = one.unit;
    while (one.unit - first < GATHERED_MAX - 1 && sameRank.has(first - 1)) first--;
    const gathered: Asked[] = [];
    for (let asked = sameRank.get(first); asked !== undefined; asked = sameRank.get(asked.unit + 1)) {
      if (gathered.length === GATHERED_MAX) break;
      this.#asked.delete(asked.ticket);
      gathered.push(asked);
    }
    return gathered;
  }

  async #read(gathered: readonly Asked[]): Promise<void> {
    const { reader, tell } = this.#options;
    const [{ unit, rank }] = gathered as readonly [Asked];
    const read: Read = { controller: new AbortController(), wanted: gathered.length };
    for (const { ticket } of gathered) this.#running.set(ticket, read);
    this.#reads++;
    if (rank !== RANK.FAULT) this.#lowReads++;
    let ends: WireEnd[] = [];
    const end = (index: number, result: WireEnd["result"], error?: unknown): void => {
      const { ticket } = gathered[index]!;
      if (!this.#running.delete(ticket)) return;
      ends.push({ kind: "end", ticket, result, ...(error === undefined ? {} : { error: noteOf(error) }) });
      if (ends.length > 1) return;
      // When those have come that come with it.
      queueMicrotask(() => {
        tell(ends.length === 1 ? ends[0]! : { kind: "ends", ends });
        ends = [];
      });
    };
    const targets = gathered.map(({ target }) => target);
    try {
      await reader.readRun(unit, targets, read.controller.signal, end);
      this.#learnAround(unit);
    } catch (error) {
      for (const index of gathered.keys()) end(index, "failed", error);
    }
    this.#reads--;
    if (rank !== RANK.FAULT) this.#lowReads--;
    this.#begin();
  }
}

function cancelled(): MinorfaultError {
  return new MinorfaultError("ERR_CLOSED", "The fetch was cancelled: nobody waits for it any more");
}
