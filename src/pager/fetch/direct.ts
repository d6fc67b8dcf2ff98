// Reads units of a local source in the thread that serves, at the fault itself: no other thread has to wake up for it.
//
// Only what is at hand: a file of this machine, whose read is no longer than the kernel's own would be for a mapping of
// it. It is opened at the first fault that asks for it, since a replay may leave none. What can't be read so, or
// fails, takes the way over the thread that fetches.

import { local } from "../../linux/index.ts";
import { openUnitsSync, type UnitReader } from "./opened-source.ts";
import type { SourceDescriptor } from "./options.ts";

export interface DirectReader {
  /** Address of what `read` has read. */
  readonly address: number;
  /** A unit costs no more than a read: it is cheaper to read it for each guest than to fetch it once for all. */
  readonly isPlain: boolean;
  /** Reads a unit to `address`; undefined: it can't be read so. */
  read(unit: number): "bytes" | "zero" | undefined;
}

export class DirectUnits implements DirectReader {
  readonly #source: SourceDescriptor;
  readonly #unitBytes: number;
  readonly #identity: string | undefined;
  #opened: { readonly reader: UnitReader; readonly address: number; readonly target: Uint8Array } | undefined;
  #isOpenable = true;

  /** `identity`: what whoever fetches has opened. */
  constructor(source: SourceDescriptor, unitBytes: number, identity: string | undefined) {
    this.#source = source;
    this.#unitBytes = unitBytes;
    this.#identity = identity;
  }

  get address(): number {
    return this.#opened?.address ?? 0;
  }

  get isPlain(): boolean {
    return this.#opened?.reader.image === undefined;
  }

  /** Opens it now, while nobody waits. */
  prepare(): void {
    try {
      this.#opened ??= this.#open();
    } catch {
      // As in `#open`.
    }
  }

  read(unit: number): "bytes" | "zero" | undefined {
    if (!this.#isOpenable) return undefined;
    try {
      this.#opened ??= this.#open();
      return this.#opened?.reader.readSync(unit, this.#opened.target);
    } catch {
      return undefined;
    }
  }

  #open() {
    this.#isOpenable = false;
    // If this throws, whoever fetches has opened it, and will say what is wrong now.
    const reader = openUnitsSync(this.#source, this.#unitBytes, this.#identity);
    if (reader === undefined) return undefined;
    const { address, bytes } = local.share(reader.unitBytes);
    this.#isOpenable = true;
    return { reader, address, target: bytes.subarray(0, reader.unitBytes) };
  }
}
