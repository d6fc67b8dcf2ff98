// The other thread at the panes, made up: it looks for what is wanted when chance says so, takes its time, and may never end.
//
// While it has taken a unit anything may lie there: whoever reads it, or writes to it, is caught.

import type { Random } from "../../src/base/random.ts";
import { PaneFiller, UNIT_STATE } from "../../src/pager/fetch/panes.ts";
import type { SimulatedImage, Weather } from "./link.ts";

export interface SimulatedFillerOptions {
  readonly random: Random;
  readonly image: SimulatedImage;
  readonly panes: Int32Array;
  readonly memory: Uint8Array;
  readonly weather: Weather;
}

export class SimulatedFiller {
  weather: Weather;
  readonly #options: SimulatedFillerOptions;
  readonly #filler: PaneFiller;
  #taken: { readonly slot: number; readonly unit: number; readonly isHung: boolean } | undefined;

  constructor(options: SimulatedFillerOptions) {
    this.#options = options;
    this.weather = options.weather;
    this.#filler = new PaneFiller(options.panes, () => undefined);
    this.#filler.listens = options.random.below(4) > 0;
  }

  /** It begins with a unit, goes on with it, or ends it. */
  progress(): void {
    const { random } = this.#options;
    if (random.below(30) === 0) this.#filler.listens = random.below(4) > 0;
    if (this.#taken === undefined) {
      const claimed = this.#filler.claim();
      if (claimed === undefined) return;
      this.#taken = { ...claimed, isHung: random.below(100) < this.weather.hanging };
    }
    this.#target(this.#taken.slot).fill(random.below(256));
    if (random.below(2) === 0) this.end();
  }

  /** It ends what it has taken, unless it hangs. */
  end(): void {
    const taken = this.#taken;
    if (taken === undefined || taken.isHung) return;
    this.#taken = undefined;
    const { random, image } = this.#options;
    const { slot, unit } = taken;
    const target = this.#target(slot);
    if (random.below(100) < this.weather.failing) {
      target.fill(random.below(256));
      this.#filler.end(slot, UNIT_STATE.FAILED);
    } else if (image.isHole(unit)) {
      this.#filler.end(slot, UNIT_STATE.ZERO);
    } else {
      image.fill(unit, target);
      this.#filler.end(slot, UNIT_STATE.THERE);
    }
  }

  checkNotTaken(slot: number): void {
    if (this.#taken?.slot === slot)
      throw new Error(`Slot ${slot} of the panes is written to by both threads`);
  }

  #target(slot: number): Uint8Array {
    const { unitBytes } = this.#options.image;
    return this.#options.memory.subarray(slot * unitBytes, (slot + 1) * unitBytes);
  }
}
