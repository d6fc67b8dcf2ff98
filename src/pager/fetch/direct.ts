// Reads units of a local source in the thread that serves, at the fault itself: no other thread has to wake up for it.
//
// Only what is at hand: a file of this machine. As it is, it is read as far as the fault's window goes, and nothing is read
// ahead: two CPUs that speak about a read cost more than the read. What has to be verified is read unit by unit, for a
// guest of a host that is alone with its image (verified-window.ts). What can't be read so, or fails, takes the way over
// the thread that fetches.

import type { Memory } from "../../linux/index.ts";
import { giveMemory, takeMemory } from "../memory-pool.ts";
import { isPlainFile, openUnitsSync, type UnitReader } from "./opened-source.ts";
import type { SourceDescriptor } from "./options.ts";
import { paneUnits } from "./panes.ts";
import { type SlotMemory, slotsAt } from "./slots.ts";

/** LIMIT: bytes that are read at one fault, of what costs no more than a read. */
const READ_BYTES_MAX = 2 * 1024 * 1024;

export interface DirectReader {
  /** Address of slot 0: of what `read` has read where all is plain, else of the panes. */
  readonly address: number;
  /** A unit costs no more than a read: it is cheaper to read it for each guest than to fetch it once for all. */
  readonly isPlain: boolean;
  /** Units that are read at once, at most. */
  readonly unitsMax: number;
  /** Whether a unit is read without waiting for a disk; undefined: that is not known. */
  isCached(unit: number): boolean | undefined;
  /**
   * Reads units that lie side by side to a slot and those behind it, one at once of what has to be verified. Answers how many
   * of them, from the first on, have bytes: 0 when the first one is zeros; undefined: it can't be read so.
   */
  read(first: number, count: number, slot: number): number | undefined;
}

export interface DirectUnitsOptions {
  readonly source: SourceDescriptor;
  readonly unitBytes: number;
  /** What whoever fetches has opened. */
  readonly identity: string | undefined;
  /** Where the panes are. */
  readonly paneStaging: number;
}

export class DirectUnits implements DirectReader {
  readonly isPlain: boolean;
  readonly unitsMax: number;
  readonly #options: DirectUnitsOptions;
  readonly #panes: SlotMemory;
  #reader: UnitReader | undefined;
  /** Of plain files. */
  #memory: Memory | undefined;
  #isOpenable = true;

  constructor(options: DirectUnitsOptions) {
    const { source, unitBytes, identity, paneStaging } = options;
    this.#options = options;
    this.isPlain = isPlainFile(source, identity);
    this.#panes = slotsAt(paneStaging, unitBytes);
    this.unitsMax = this.isPlain ? Math.max(1, Math.floor(READ_BYTES_MAX / unitBytes)) : paneUnits(unitBytes);
  }

  get address(): number {
    return this.isPlain ? (this.#memory?.address ?? 0) : this.#options.paneStaging;
  }

  /** Opens it now, while nobody waits. */
  prepare(): void {
    try {
      this.#reader ??= this.#open();
    } catch {
      // As in `#open`.
    }
  }

  isCached(unit: number): boolean | undefined {
    return this.#reader?.isCached(unit);
  }

  read(first: number, count: number, slot: number): number | undefined {
    if (!this.#isOpenable) return undefined;
    try {
      this.#reader ??= this.#open();
      if (this.#reader === undefined) return undefined;
      if (!this.isPlain) {
        const result = this.#reader.readSync(first, this.#panes(slot));
        return result === undefined ? undefined : result === "zero" ? 0 : 1;
      }
      const units = Math.min(count, this.unitsMax);
      const target = this.#memory!.bytes.subarray(0, units * this.#options.unitBytes);
      return this.#reader.readSync(first, target) === undefined ? undefined : units;
    } catch {
      return undefined;
    }
  }

  /** Nothing can be read any more. What it has opened is closed when this returns: a thread that serves has no later. */
  close(): void {
    this.#isOpenable = false;
    // It was only read from: what its closing has to say is of no use to anybody.
    this.#reader?.close().catch(() => undefined);
    if (this.#memory !== undefined) giveMemory(this.#memory, this.#byteLength);
    this.#reader = undefined;
    this.#memory = undefined;
  }

  get #byteLength(): number {
    return this.unitsMax * this.#options.unitBytes;
  }

  #open(): UnitReader | undefined {
    const { source, unitBytes, identity } = this.#options;
    this.#isOpenable = false;
    // If this throws, whoever fetches has opened it, and will say what is wrong now.
    const reader = openUnitsSync(source, unitBytes, identity);
    if (reader === undefined) return undefined;
    if (this.isPlain) this.#memory = takeMemory(this.#byteLength);
    this.#isOpenable = true;
    return reader;
  }
}
