// Reads a working set and hands it over frame by frame, each in a slot of its own; faults come first in between.
//
// It begins when the source has been opened, while the thread that serves is still getting ready: what has been
// verified by then waits in its slots, and is installed in one go.

import { PAGE_SIZE } from "../../abi/memory.ts";
import type { OpenedImage } from "../../image/index.ts";
import { RUN_PAGES, ZERO_RUN } from "../../image/working-set.ts";
import type { FrameReader } from "../../image/working-set-reader.ts";
import { noteOf } from "../notes.ts";
import type { WireNews } from "./order.ts";
import type { ReplaySlots } from "./replay-slots.ts";
import type { SlotMemory } from "./slots.ts";

/** LIMIT: runs in one piece. */
const RUNS_MAX = 4096;

export interface ReplayerOptions {
  readonly image: OpenedImage;
  readonly workingSet: string;
  readonly slots: SlotMemory;
  /** Which of them can be used. */
  readonly pool: ReplaySlots;
  readonly tell: (news: WireNews) => void;
  /** Serves what is asked for meanwhile; with `waits`, until a slot is free again or all is over (false). */
  readonly serve: (waits: boolean) => boolean;
}

export class Replayer {
  readonly #options: ReplayerOptions;
  readonly #abort = new AbortController();
  readonly #frames: FrameReader;

  /** Sets the disk to work. */
  constructor(options: ReplayerOptions) {
    this.#options = options;
    this.#frames = options.image.framesOf(options.workingSet, this.#abort.signal);
  }

  stop(): void {
    this.#abort.abort();
  }

  async run(): Promise<void> {
    const { workingSet, slots, pool, tell } = this.#options;
    let filling: number | undefined;
    try {
      const { runs, frames } = await this.#frames.open();
      const slotsMax = frames.length + Math.ceil(runs.length / (2 * RUNS_MAX)) + 1;
      tell({ kind: "replaying", workingSet, slots: slotsMax });
      let frame = 0;
      for (let at = 0; at < runs.length; ) {
        const slot = this.#takeSlot();
        if (slot === undefined) return;
        filling = slot;
        const contentBytes = frames[frame]?.contentBytes ?? 0;
        const { next, hasBytes } = pieceOf(runs, at, contentBytes);
        if (hasBytes) {
          const reading = this.#frames.next(slots(slot));
          if (reading !== undefined) await reading;
          frame++;
        }
        if (this.#abort.signal.aborted) return;
        tell({ kind: "piece", slot, runs: runs.slice(at, next) });
        filling = undefined;
        at = next;
      }
      tell({ kind: "replayed", workingSet });
    } catch (error) {
      // Nobody has heard of it, who could say that it is free again.
      if (filling !== undefined) pool.free(filling);
      if (!this.#abort.signal.aborted) tell({ kind: "replayed", workingSet, error: noteOf(error) });
    }
  }

  /** Undefined: all is over. */
  #takeSlot(): number | undefined {
    const { serve, pool } = this.#options;
    if (!serve(false)) return undefined;
    for (;;) {
      const slot = pool.take();
      if (slot !== undefined || !serve(true)) return slot;
    }
  }
}

interface Piece {
  /** Whether a frame belongs to it. */
  readonly hasBytes: boolean;
  /** Where the next piece begins. */
  readonly next: number;
}

/** The runs from `first` on that are in the next frame, with those of zeros before and among them. */
function pieceOf(runs: Uint32Array, first: number, frameBytes: number): Piece {
  let left = frameBytes;
  let next = first;
  for (; next < runs.length; next += 2) {
    const run = runs[next + 1]!;
    if (left === 0 && run < ZERO_RUN) break;
    // Nothing but zeros so far: they need not wait for the frame.
    if (left === frameBytes && next - first >= 2 * RUNS_MAX) break;
    if (run < ZERO_RUN) left -= (run & RUN_PAGES) * PAGE_SIZE;
  }
  return { hasBytes: left < frameBytes, next };
}
