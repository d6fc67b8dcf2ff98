// Does what is asked for: reads, verifies and decompresses units into their slots, and tells how each ended.
//
// A slot is written to from its request until its end is told, and never later: also a cancelled fetch has its end, when
// its source has let go.

import { MinorfaultError } from "../../base/errors.ts";
import { noteOf } from "../notes.ts";
import type { UnitReader } from "./opened-source.ts";
import type { WireEnd, WireRequest } from "./order.ts";

export interface AgentOptions {
  readonly reader: UnitReader;
  /** The memory of all slots. */
  readonly staging: Uint8Array;
  /** One bit a unit; only written here. */
  readonly holes: Uint32Array;
  readonly tell: (end: WireEnd) => void;
}

export class FetchAgent {
  readonly #options: AgentOptions;
  readonly #running = new Map<number, AbortController>();
  readonly #spans = new Set<number>();
  /** Told of slots of the replay that can be filled again. */
  onFree: ((slot: number) => void) | undefined;
  /** Told of working sets that are to be replayed. */
  onReplay: ((workingSet: string) => void) | undefined;
  /** The last read was made at once. */
  isLocal = false;

  constructor(options: AgentOptions) {
    this.#options = options;
  }

  /** Reads that wait for something. */
  get running(): number {
    return this.#running.size;
  }

  handle(request: WireRequest): void {
    if (request.kind === "free") this.onFree?.(request.slot);
    else if (request.kind === "replay") this.onReplay?.(request.workingSet);
    else if (request.kind === "cancel") this.#running.get(request.ticket)?.abort(cancelled());
    else if (request.kind === "fetch") this.#fetch(request.ticket, request.unit, request.slot);
  }

  /** Ends everything. */
  abort(): void {
    for (const controller of this.#running.values()) controller.abort(cancelled());
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

  #fetch(ticket: number, unit: number, slot: number): void {
    const { reader, tell } = this.#options;
    const target = this.#slot(slot);
    try {
      const result = reader.readSync(unit, target);
      if (result !== undefined) {
        this.isLocal = true;
        tell({ kind: "end", ticket, result });
        this.#learnAround(unit);
        return;
      }
    } catch (error) {
      tell({ kind: "end", ticket, result: "failed", error: noteOf(error) });
      return;
    }
    this.isLocal = false;
    void this.#fetchLater(ticket, unit, target);
  }

  async #fetchLater(ticket: number, unit: number, target: Uint8Array): Promise<void> {
    const { reader, tell } = this.#options;
    const controller = new AbortController();
    this.#running.set(ticket, controller);
    let end: WireEnd;
    try {
      end = { kind: "end", ticket, result: await reader.read(unit, target, controller.signal) };
    } catch (error) {
      end = { kind: "end", ticket, result: "failed", error: noteOf(error) };
    }
    this.#running.delete(ticket);
    tell(end);
    if (end.result !== "failed") this.#learnAround(unit);
  }

  #slot(slot: number): Uint8Array {
    const { reader, staging } = this.#options;
    return staging.subarray(slot * reader.unitBytes, (slot + 1) * reader.unitBytes);
  }
}

function cancelled(): MinorfaultError {
  return new MinorfaultError("ERR_CLOSED", "The fetch was cancelled: nobody waits for it any more");
}
