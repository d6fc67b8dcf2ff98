// Reads a working set in one go and hands it over in pieces, as many as there are slots; faults come first in between.

import type { Image } from "../../image/index.ts";
import { noteOf } from "../notes.ts";
import { REPLAY_BYTES, REPLAY_SLOTS } from "./link.ts";
import type { WireNews } from "./order.ts";

export interface ReplayerOptions {
  readonly image: Image;
  readonly workingSet: string;
  /** The memory of the replay's slots. */
  readonly staging: Uint8Array;
  readonly tell: (news: WireNews) => void;
  /** Serves what is asked for meanwhile; with `waits`, until a slot is free again or all is over (false). */
  readonly serve: (waits: boolean) => boolean;
}

export class Replayer {
  readonly #options: ReplayerOptions;
  readonly #free = Array.from({ length: REPLAY_SLOTS }, (_, index) => index);
  readonly #abort = new AbortController();
  #slot: number | undefined;
  #used = 0;
  #runs: number[] = [];

  constructor(options: ReplayerOptions) {
    this.#options = options;
  }

  /** A piece has been installed. */
  release(slot: number): void {
    this.#free.push(slot);
  }

  get hasFree(): boolean {
    return this.#free.length > 0;
  }

  stop(): void {
    this.#abort.abort();
  }

  async run(): Promise<void> {
    const { image, workingSet, tell, serve } = this.#options;
    try {
      for await (const { offset, bytes, isZero } of image.readWorkingSet(workingSet, this.#abort.signal)) {
        serve(false);
        if (this.#abort.signal.aborted || !this.#add(offset, bytes, isZero)) return;
      }
      this.#send();
      tell({ kind: "replayed", workingSet });
    } catch (error) {
      if (!this.#abort.signal.aborted) tell({ kind: "replayed", workingSet, error: noteOf(error) });
    }
  }

  #add(offset: number, bytes: Uint8Array, isZero: boolean): boolean {
    const stored = isZero ? 0 : bytes.byteLength;
    if (this.#used + stored > REPLAY_BYTES) this.#send();
    while (this.#slot === undefined) {
      this.#slot = this.#free.pop();
      if (this.#slot === undefined && !this.#options.serve(true)) return false;
    }
    const { staging } = this.#options;
    if (!isZero) staging.set(bytes, this.#slot * REPLAY_BYTES + this.#used);
    const last = this.#runs.length - 3;
    // Frames end within runs: what goes on where the last one ended is the same run.
    const goesOn = last >= 0 && this.#runs[last]! + this.#runs[last + 1]! === offset;
    if (goesOn && this.#runs[last + 2] === (isZero ? 1 : 0)) this.#runs[last + 1]! += bytes.byteLength;
    else this.#runs.push(offset, bytes.byteLength, isZero ? 1 : 0);
    this.#used += stored;
    return true;
  }

  #send(): void {
    const slot = this.#slot;
    if (slot === undefined) return;
    this.#options.tell({ kind: "piece", slot, runs: this.#runs });
    this.#slot = undefined;
    this.#used = 0;
    this.#runs = [];
  }
}
