// Counts what goes through: for tables, tests and metrics. Reading a counter costs nothing and resets nothing.

import { LayeredSource } from "./layered-source.ts";
import type { PageSource } from "./page-source.ts";

export interface SourceCounters {
  /** Reads begun. */
  reads: number;
  /** Bytes delivered. */
  bytes: number;
  failures: number;
  /** Reads that ended because their caller aborted them. */
  aborts: number;
  /** Reads under way now, and the most there ever were. */
  active: number;
  activeMax: number;
  /** Of all reads together. */
  readMs: number;
}

export class CountingSource extends LayeredSource {
  readonly readSync?: (offset: number, target: Uint8Array) => void;
  readonly counters: SourceCounters = {
    reads: 0,
    bytes: 0,
    failures: 0,
    aborts: 0,
    active: 0,
    activeMax: 0,
    readMs: 0,
  };

  constructor(inner: PageSource) {
    super(inner);
    if (inner.readSync !== undefined) this.readSync = this.#readSync;
  }

  override async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const started = this.#begin();
    try {
      await this.inner.read(offset, target, signal);
      this.counters.bytes += target.byteLength;
    } catch (error) {
      if (signal?.aborted && error === signal.reason) this.counters.aborts++;
      else this.counters.failures++;
      throw error;
    } finally {
      this.#end(started);
    }
  }

  #readSync = (offset: number, target: Uint8Array): void => {
    const started = this.#begin();
    try {
      this.inner.readSync?.(offset, target);
      this.counters.bytes += target.byteLength;
    } catch (error) {
      this.counters.failures++;
      throw error;
    } finally {
      this.#end(started);
    }
  };

  #begin(): number {
    const { counters } = this;
    counters.reads++;
    counters.active++;
    counters.activeMax = Math.max(counters.activeMax, counters.active);
    return performance.now();
  }

  #end(started: number): void {
    this.counters.active--;
    this.counters.readMs += performance.now() - started;
  }
}
