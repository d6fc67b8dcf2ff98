// Reads a working set and hands it over frame by frame, each in a slot of its own; faults come first in between.
//
// It begins when the source has been opened, while the thread that serves is still getting ready: what has been
// verified by then waits in its slots, and is installed in one go.

import { PAGE_SIZE } from "../../abi/memory.ts";
import type { Unproven } from "../../image/content.ts";
import type { OpenedImage } from "../../image/index.ts";
import { type DecodedList, RUN_PAGES, ZERO_RUN } from "../../image/working-set.ts";
import type { FrameReader } from "../../image/working-set-reader.ts";
import { noteOf } from "../notes.ts";
import type { WireNews } from "./order.ts";
import type { ProofsLeft } from "./proving.ts";
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
  /** Which frames somebody else verifies. */
  readonly proofs: ProofsLeft;
  readonly tell: (news: WireNews) => void;
  /** Serves what is asked for meanwhile; with `waits`, until a slot is free again or all is over (false). */
  readonly serve: (waits: boolean) => boolean;
}

export class Replayer {
  readonly #options: ReplayerOptions;
  readonly #abort = new AbortController();
  readonly #frames: FrameReader;
  #list: DecodedList = { frames: [], runs: new Uint32Array(0) };
  /** The next run, and the next frame. */
  #at = 0;
  #frame = 0;
  /** Of which nobody has heard yet, who could say that it is free again. */
  #filling: number | undefined;

  /** Sets the disk to work. */
  constructor(options: ReplayerOptions) {
    this.#options = options;
    this.#frames = options.image.framesOf(options.workingSet, this.#abort.signal);
  }

  stop(): void {
    this.#abort.abort();
  }

  async run(): Promise<void> {
    const { workingSet, pool, tell } = this.#options;
    try {
      this.#list = await this.#frames.open();
      const { runs, frames } = this.#list;
      const slots = frames.length + Math.ceil(runs.length / (2 * RUNS_MAX)) + 1;
      tell({ kind: "replaying", workingSet, slots });
      while (this.#at < runs.length) {
        const goesOn = this.#bring();
        if (goesOn === false || (goesOn !== true && !(await goesOn))) return;
      }
      tell({ kind: "replayed", workingSet });
    } catch (error) {
      if (this.#filling !== undefined) pool.free(this.#filling);
      if (!this.#abort.signal.aborted) tell({ kind: "replayed", workingSet, error: noteOf(error) });
    }
  }

  /** Brings the next piece, at once where that can be; false: all is over. By itself, so that it is compiled by itself. */
  #bring(): boolean | Promise<boolean> {
    const slot = this.#takeSlot();
    if (slot === undefined) return false;
    this.#filling = slot;
    const { runs, frames } = this.#list;
    const { next, hasBytes } = pieceOf(runs, this.#at, frames[this.#frame]?.contentBytes ?? 0);
    if (!hasBytes) return this.#hand(slot, next, undefined);
    this.#frame++;
    const { slots, proofs } = this.#options;
    const unproven = proofs.isWelcome ? this.#frames.nextUnproven(slots(slot)) : undefined;
    const reading = unproven === undefined ? this.#frames.next(slots(slot)) : undefined;
    if (reading === undefined) return this.#hand(slot, next, unproven);
    return reading.then(() => this.#hand(slot, next, undefined));
  }

  /** Hands on what lies in a slot, up to a run. */
  #hand(slot: number, next: number, unproven: Unproven | undefined): boolean {
    if (this.#abort.signal.aborted) return false;
    const { tell, proofs } = this.#options;
    tell({ kind: "piece", slot, runs: this.#list.runs.slice(this.#at, next), unproven });
    if (unproven !== undefined) proofs.leave();
    this.#filling = undefined;
    this.#at = next;
    return true;
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
