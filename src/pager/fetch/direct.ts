// Reads units of a local source in the thread that serves, at the fault itself: no other thread has to wake up for it.
//
// Only what is at hand: a file of this machine. As it is, it is read as far as the fault's window goes, and nothing is read
// ahead: two CPUs that speak about a read cost more than the read. What has to be verified is read likewise for a guest of a host
// that is alone with its image. What can't be read so, or fails, takes the way over the thread that fetches.

import type { Memory } from "../../linux/index.ts";
import { giveMemory, takeMemory } from "../memory-pool.ts";
import { isPlainFile, openUnitsSync, type UnitReader } from "./opened-source.ts";
import type { SourceDescriptor } from "./options.ts";

/** LIMIT: bytes that are read at one fault, of what costs no more than a read. */
const READ_BYTES_MAX = 2 * 1024 * 1024;
/** LIMIT: the same of what has to be verified: a tenth of a millisecond's work. */
const VERIFIED_BYTES_MAX = 256 * 1024;

export interface DirectReader {
  /** Address of what `read` has read. */
  readonly address: number;
  /** A unit costs no more than a read: it is cheaper to read it for each guest than to fetch it once for all. */
  readonly isPlain: boolean;
  /** Units that are read at once, at most. */
  readonly unitsMax: number;
  /** Whether a unit is read without waiting for a disk; undefined: that is not known. */
  isCached(unit: number): boolean | undefined;
  /**
   * Reads units that lie side by side to `address`, and answers how many of them, from the first on, have bytes: 0 when the
   * first one is zeros; undefined: it can't be read so.
   */
  read(first: number, count: number): number | undefined;
}

export class DirectUnits implements DirectReader {
  readonly #source: SourceDescriptor;
  readonly #unitBytes: number;
  readonly #identity: string | undefined;
  readonly isPlain: boolean;
  readonly unitsMax: number;
  #opened: { readonly reader: UnitReader; readonly memory: Memory; readonly target: Uint8Array } | undefined;
  #isOpenable = true;

  /** `identity`: what whoever fetches has opened. */
  constructor(source: SourceDescriptor, unitBytes: number, identity: string | undefined) {
    this.#source = source;
    this.#unitBytes = unitBytes;
    this.#identity = identity;
    this.isPlain = isPlainFile(source, identity);
    const bytesMax = this.isPlain ? READ_BYTES_MAX : VERIFIED_BYTES_MAX;
    this.unitsMax = Math.max(1, Math.floor(bytesMax / unitBytes));
  }

  get address(): number {
    return this.#opened?.memory.address ?? 0;
  }

  /** Opens it now, while nobody waits. */
  prepare(): void {
    try {
      this.#opened ??= this.#open();
    } catch {
      // As in `#open`.
    }
  }

  isCached(unit: number): boolean | undefined {
    return this.#opened?.reader.isCached(unit);
  }

  read(first: number, count: number): number | undefined {
    if (!this.#isOpenable) return undefined;
    try {
      this.#opened ??= this.#open();
      if (this.#opened === undefined) return undefined;
      const { reader, target } = this.#opened;
      const units = Math.min(count, this.unitsMax);
      if (!this.isPlain) return this.#readEach(reader, target, first, units);
      const result = reader.readSync(first, target.subarray(0, units * this.#unitBytes));
      return result === undefined ? undefined : units;
    } catch {
      return undefined;
    }
  }

  /** Nothing can be read any more. What it has opened is closed when this returns: a thread that serves has no later. */
  close(): void {
    const opened = this.#opened;
    this.#isOpenable = false;
    this.#opened = undefined;
    if (opened === undefined) return;
    // It was only read from: what its closing has to say is of no use to anybody.
    opened.reader.close().catch(() => undefined);
    giveMemory(opened.memory, this.#byteLength);
  }

  get #byteLength(): number {
    return this.unitsMax * this.#unitBytes;
  }

  /** Up to the first one that is zeros, or that is wrong: whoever asks for that one hears of it. */
  #readEach(reader: UnitReader, target: Uint8Array, first: number, count: number): number | undefined {
    for (let index = 0; index < count; index++) {
      const part = target.subarray(index * this.#unitBytes, (index + 1) * this.#unitBytes);
      const result = index === 0 ? reader.readSync(first, part) : readOr(reader, first + index, part);
      if (result === undefined) return index === 0 ? undefined : index;
      if (result === "zero") return index;
    }
    return count;
  }

  #open() {
    this.#isOpenable = false;
    // If this throws, whoever fetches has opened it, and will say what is wrong now.
    const reader = openUnitsSync(this.#source, this.#unitBytes, this.#identity);
    if (reader === undefined) return undefined;
    const memory = takeMemory(this.#byteLength);
    this.#isOpenable = true;
    return { reader, memory, target: memory.bytes.subarray(0, this.#byteLength) };
  }
}

function readOr(reader: UnitReader, unit: number, target: Uint8Array): "bytes" | "zero" | undefined {
  try {
    return reader.readSync(unit, target);
  } catch {
    return undefined;
  }
}
