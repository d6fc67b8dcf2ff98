// What a pager records of its guest's first touches: which page, when, and by which kind of access.
//
// In memory that the pager's thread writes and its owner reads: one writer, and the count is written after the entry.
//
//   0: touches   1: touches that found no room   then two numbers a touch: offset (+ 1 for a write), milliseconds

/** LIMIT: touches that are recorded, 16 bytes each: 1 GiB of memory, page by page. */
export const TOUCHES_MAX = 262_144;

const HEADER = 2;

export type TraceMemory = Float64Array;

export interface Touch {
  /** Of the page in the image. */
  readonly offset: number;
  /** Milliseconds since the pager's start. */
  readonly ms: number;
  readonly access: "read" | "write";
}

export interface Trace {
  /** In the order in which the pages were touched, each once. */
  readonly touches: readonly Touch[];
  /** Touches that found no room. */
  readonly dropped: number;
}

export function makeTrace(touchesMax: number = TOUCHES_MAX): TraceMemory {
  const bytes = (HEADER + 2 * touchesMax) * Float64Array.BYTES_PER_ELEMENT;
  return new Float64Array(new SharedArrayBuffer(bytes));
}

/** The pager's side. */
export class Tracer {
  readonly #memory: TraceMemory;
  readonly #startedMs: number;

  constructor(memory: TraceMemory, startedMs: number) {
    this.#memory = memory;
    this.#startedMs = startedMs;
  }

  record(offset: number, isWrite: boolean, now: number): void {
    const memory = this.#memory;
    const count = memory[0]!;
    const at = HEADER + 2 * count;
    if (at >= memory.length) {
      memory[1]! += 1;
      return;
    }
    memory[at] = isWrite ? offset + 1 : offset;
    memory[at + 1] = now - this.#startedMs;
    memory[0] = count + 1;
  }
}

/** The owner's side. A page that was evicted and touched again counts once. */
export function readTrace(memory: TraceMemory): Trace {
  const touches: Touch[] = [];
  const seen = new Set<number>();
  const count = memory[0]!;
  for (let index = 0; index < count; index++) {
    const word = memory[HEADER + 2 * index]!;
    const isWrite = word % 2 === 1;
    const offset = isWrite ? word - 1 : word;
    if (seen.has(offset)) continue;
    seen.add(offset);
    touches.push({ offset, ms: memory[HEADER + 2 * index + 1]!, access: isWrite ? "write" : "read" });
  }
  return { touches, dropped: memory[1]! };
}

/**
 * One order of pages from several runs: by the earliest place that a page had in any of them. What `addWorkingSet` takes.
 * With `runsMin` only pages that so many runs have touched.
 */
export function mergeTraces(traces: readonly Trace[], runsMin = 1): number[] {
  const places = new Map<number, { place: number; runs: number }>();
  for (const { touches } of traces) {
    for (const [place, { offset }] of touches.entries()) {
      const known = places.get(offset);
      if (known === undefined) places.set(offset, { place, runs: 1 });
      else {
        known.place = Math.min(known.place, place);
        known.runs++;
      }
    }
  }
  return [...places]
    .filter(([, { runs }]) => runs >= runsMin)
    .sort(([offsetA, a], [offsetB, b]) => a.place - b.place || offsetA - offsetB)
    .map(([offset]) => offset);
}
