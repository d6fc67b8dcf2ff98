// Reads units of a local source in the thread that serves, at the fault itself: no other thread has to wake up for it.
//
// Only what is at hand: a file of this machine, whose read is no longer than the kernel's own would be for a mapping of
// it. What can't be read so, or fails, takes the way over the thread that fetches.

import { local } from "../../linux/index.ts";
import { openUnits, type UnitReader } from "./opened-source.ts";
import type { SourceDescriptor } from "./options.ts";

export interface DirectReader {
  /** Address of what `read` has read. */
  readonly address: number;
  /** Reads a unit to `address`; undefined: it can't be read so. */
  read(unit: number): "bytes" | "zero" | undefined;
}

export class DirectUnits implements DirectReader {
  readonly address: number;
  readonly #reader: UnitReader;
  readonly #target: Uint8Array;

  private constructor(reader: UnitReader) {
    this.#reader = reader;
    const memory = local.share(reader.unitBytes);
    this.address = memory.address;
    this.#target = memory.bytes.subarray(0, reader.unitBytes);
  }

  /** For a source that lies in this machine's files; else undefined. */
  static async open(source: SourceDescriptor, unitBytes: number): Promise<DirectUnits | undefined> {
    // A scheme means a network, or something that says itself where it is.
    if (!("url" in source) || /^[a-z][a-z0-9+.-]+:/i.test(source.url)) return undefined;
    try {
      const reader = await openUnits(source, unitBytes);
      if (reader.unitBytes !== unitBytes) return undefined;
      await reader.openAll();
      return new DirectUnits(reader);
    } catch {
      // Whoever fetches has opened it, and will say what is wrong now.
      return undefined;
    }
  }

  read(unit: number): "bytes" | "zero" | undefined {
    try {
      return this.#reader.readSync(unit, this.#target);
    } catch {
      return undefined;
    }
  }
}
