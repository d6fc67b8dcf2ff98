// Does what is asked for: reads, verifies and decompresses units into their slots, and tells how each ended.
//
// What lies in this machine's files is read one by one, whenever `work` is called: faults before what nobody waits for. A fault
// whose bytes are still on the disk waits for them there, as long as there is something else to do.
//
// What has to be waited for is gathered first: units that lie side by side and were asked for together are one read.
//
//   asked for   8 9 10 11   40        reads   [8 9 10 11]   [40]        faults before what nobody waits for
//   slots       2 3  4  5   17                one read fills slots that lie side by side as well
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

/** A unit that waits for its read, or a run of them. */
interface Asked {
  readonly ticket: number;
  readonly unit: number;
  readonly slot: number;
  readonly count: number;
  readonly rank: Rank;
  /** Tickets of units that are still wanted, and have not ended. */
  readonly wanted: Set<number>;
  /** The disk has been told. */
  isExpected?: boolean;
}

/** What is read as one. */
interface Read {
  readonly controller: AbortController;
  readonly gathered: readonly Asked[];
}

export class FetchAgent {
  readonly #options: AgentOptions;
  /** What `work` has to do, in the order of its asking: faults, and what nobody waits for. */
  readonly #dueFaults = new Map<number, Asked>();
  readonly #due = new Map<number, Asked>();
  /** What has to be waited for, in the order of its asking. */
  readonly #asked = new Map<number, Asked>();
  readonly #reads = new Set<Read>();
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

  /** What waits for something. */
  get running(): number {
    return this.#reads.size + this.#asked.size;
  }

  handle(request: WireRequest): void {
    if (request.kind === "free") this.onFree?.(request.slot);
    else if (request.kind === "keep") this.onKeep?.(request.slot);
    else if (request.kind === "replay") this.onReplay?.(request.workingSet);
    else if (request.kind === "fill") this.onFill?.();
    else if (request.kind === "cancel") this.#cancel(request.ticket);
    else if (request.kind === "fetch") this.#fetch(request);
  }

  /** Reads one unit that need not be waited for; false: there is none. */
  work(): boolean {
    const due = this.#nextDue();
    if (due === undefined) return false;
    this.#dueFaults.delete(due.ticket);
    this.#due.delete(due.ticket);
    this.#readOrAsk(due);
    return true;
  }

  /** Ends everything. */
  abort(): void {
    this.#dueFaults.clear();
    this.#due.clear();
    this.#asked.clear();
    for (const { controller } of this.#reads) controller.abort(cancelled());
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

  #fetch({ ticket, unit, slot, count, rank }: Extract<WireRequest, { readonly kind: "fetch" }>): void {
    const one = asked(ticket, unit, slot, count, rank);
    if (this.isLocal) (rank === RANK.FAULT ? this.#dueFaults : this.#due).set(ticket, one);
    else this.#readOrAsk(one);
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

  /** Reads what need not be waited for, and asks for the rest. */
  #readOrAsk({ ticket, unit, slot, count, rank }: Asked): void {
    let away = 0;
    for (let index = 0; index <= count; index++) {
      if (index < count && !this.#readAtOnce(ticket + index, unit + index, slot + index)) {
        away++;
      } else if (away > 0) {
        const from = index - away;
        this.#ask(asked(ticket + from, unit + from, slot + from, away, rank));
        away = 0;
      }
    }
  }

  /** False: it has to be waited for. */
  #readAtOnce(ticket: number, unit: number, slot: number): boolean {
    const { reader, slots, tell } = this.#options;
    try {
      const result = reader.readSync(unit, slots(slot));
      this.isLocal = result !== undefined;
      if (result === undefined) return false;
      tell({ kind: "end", ticket, count: 1, result });
      this.#learnAround(unit);
    } catch (error) {
      tell({ kind: "end", ticket, count: 1, result: "failed", error: noteOf(error) });
    }
    return true;
  }

  #ask(one: Asked): void {
    this.#asked.set(one.ticket, one);
    if (this.#isGathering) return;
    // There is nothing that it could be gathered with, or that would be read before it.
    if (one.rank === RANK.FAULT && this.running === 1) {
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
    for (const queue of [this.#dueFaults, this.#due, this.#asked]) {
      for (const each of queue.values()) {
        if (!each.wanted.delete(ticket)) continue;
        if (each.wanted.size > 0) return;
        queue.delete(each.ticket);
        const error = noteOf(cancelled());
        this.#options.tell({ kind: "end", ticket: each.ticket, count: each.count, result: "failed", error });
        return;
      }
    }
    for (const { gathered, controller } of this.#reads) {
      if (!gathered.some(({ wanted }) => wanted.delete(ticket))) continue;
      if (gathered.every(({ wanted }) => wanted.size === 0)) controller.abort(cancelled());
      return;
    }
  }

  /** Begins as many reads as may be. */
  #begin(): void {
    const { readsMax } = this.#options;
    const lowMax = Math.max(1, readsMax - Math.max(1, readsMax >> 2));
    while (this.#reads.size < readsMax) {
      const first = this.#first();
      if (first === undefined || (first.rank !== RANK.FAULT && this.#lowReads >= lowMax)) return;
      void this.#read(this.#gather(first));
    }
  }

  /** Faults first. */
  #first(): Asked | undefined {
    let best: Asked | undefined;
    for (const each of this.#asked.values()) {
      if (best === undefined || each.rank < best.rank) best = each;
      if (best.rank === RANK.FAULT) return best;
    }
    return best;
  }

  /** Takes what is to be read, and what lies beside it there and in the slots, and is asked for with the same rank. */
  #gather(one: Asked): readonly Asked[] {
    const starts = new Map<number, Asked>();
    const ends = new Map<number, Asked>();
    for (const each of this.#asked.values()) {
      if (each.rank !== one.rank) continue;
      starts.set(each.unit, each);
      ends.set(each.unit + each.count, each);
    }
    let room = GATHERED_MAX - one.count;
    const gathered = [one];
    const take = (each: Asked | undefined, follows: (each: Asked) => boolean): each is Asked => {
      if (each === undefined || each.count > room || !follows(each)) return false;
      room -= each.count;
      return true;
    };
    for (let first = one; ; ) {
      const before = ends.get(first.unit);
      if (!take(before, ({ slot, count }) => slot + count === first.slot)) break;
      gathered.unshift(before);
      first = before;
    }
    for (let last = one; ; ) {
      const next = starts.get(last.unit + last.count);
      if (!take(next, ({ slot }) => slot === last.slot + last.count)) break;
      gathered.push(next);
      last = next;
    }
    for (const { ticket } of gathered) this.#asked.delete(ticket);
    return gathered;
  }

  async #read(gathered: readonly Asked[]): Promise<void> {
    const { reader, slots, tell } = this.#options;
    const [{ unit, slot, rank }] = gathered as readonly [Asked];
    const read: Read = { controller: new AbortController(), gathered };
    this.#reads.add(read);
    if (rank !== RANK.FAULT) this.#lowReads++;
    const units = gathered.flatMap((of) => Array.from({ length: of.count }, (_, index) => ({ of, index })));
    const open = new Set(units.keys());
    let ends: WireEnd[] = [];
    const end = (index: number, result: WireEnd["result"], error?: unknown): void => {
      if (!open.delete(index)) return;
      const { of, index: within } = units[index]!;
      const ticket = of.ticket + within;
      of.wanted.delete(ticket);
      // When those have come that come with it.
      if (ends.length === 0) {
        queueMicrotask(() => {
          tell(ends.length === 1 ? ends[0]! : { kind: "ends", ends });
          ends = [];
        });
      }
      addEnd(ends, ticket, result, error);
    };
    try {
      await reader.readRun(unit, slots(slot, units.length), read.controller.signal, end);
      this.#learnAround(unit);
    } catch (error) {
      for (const index of open) end(index, "failed", error);
    }
    this.#reads.delete(read);
    if (rank !== RANK.FAULT) this.#lowReads--;
    this.#begin();
  }
}

function asked(ticket: number, unit: number, slot: number, count: number, rank: Rank): Asked {
  const wanted = new Set<number>();
  for (let each = ticket; each < ticket + count; each++) wanted.add(each);
  return { ticket, unit, slot, count, rank, wanted };
}

/** Adds the end of a unit: to the last one, where they are alike. */
function addEnd(ends: WireEnd[], ticket: number, result: WireEnd["result"], error: unknown): void {
  const last = ends.at(-1);
  const follows = last !== undefined && last.ticket + last.count === ticket;
  if (follows && last.result === result && result !== "failed") {
    ends[ends.length - 1] = { ...last, count: last.count + 1 };
  } else {
    const note = error === undefined ? {} : { error: noteOf(error) };
    ends.push({ kind: "end", ticket, count: 1, result, ...note });
  }
}

function cancelled(): MinorfaultError {
  return new MinorfaultError("ERR_CLOSED", "The fetch was cancelled: nobody waits for it any more");
}
