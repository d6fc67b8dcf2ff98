// The other thread at the panes and at what lies ahead, made up: it looks for what is wanted when chance says so, takes its time, and may never end.
//
// While it has taken a unit anything may lie there: whoever reads it, or writes to it, is caught.

import type { Random } from "../../src/base/random.ts";
import { AheadFiller } from "../../src/pager/fetch/ahead.ts";
import { PANE_UNITS, PANES, PaneFiller, UNIT_STATE, type UnitEnd } from "../../src/pager/fetch/panes.ts";
import type { SimulatedImage, Weather } from "./link.ts";

export interface SimulatedFillerOptions {
  readonly random: Random;
  readonly image: SimulatedImage;
  readonly panes: Int32Array;
  readonly ahead: Int32Array;
  /** Of the panes, and behind them of what lies ahead. */
  readonly memory: Uint8Array;
  readonly weather: Weather;
}

export class SimulatedFiller {
  weather: Weather;
  readonly #options: SimulatedFillerOptions;
  readonly #filler: PaneFiller;
  readonly #ahead: AheadFiller;
  /** `slot` is its place in the memory. */
  #taken:
    | {
        readonly slot: number;
        readonly unit: number;
        readonly isHung: boolean;
        readonly end: (state: UnitEnd) => void;
      }
    | undefined;

  constructor(options: SimulatedFillerOptions) {
    this.#options = options;
    this.weather = options.weather;
    this.#filler = new PaneFiller(options.panes, () => undefined);
    this.#ahead = new AheadFiller(options.ahead, () => undefined);
    this.#listens = options.random.below(4) > 0;
  }

  set #listens(on: boolean) {
    this.#filler.listens = on;
    this.#ahead.listens = on;
  }

  /** It begins with a unit, goes on with it, or ends it. */
  progress(): void {
    const { random } = this.#options;
    if (random.below(30) === 0) this.#listens = random.below(4) > 0;
    if (this.#taken === undefined) {
      const claimed = this.#claim();
      if (claimed === undefined) return;
      this.#taken = { ...claimed, isHung: random.below(100) < this.weather.hanging };
    }
    this.#target(this.#taken.slot).fill(random.below(256));
    if (random.below(2) === 0) this.end();
  }

  #claim() {
    const own = this.#filler.claim();
    if (own !== undefined) return { ...own, end: (state: UnitEnd) => this.#filler.end(own.slot, state) };
    const next = this.#ahead.claim();
    if (next === undefined) return undefined;
    const slot = PANES * PANE_UNITS + next.slot;
    return { slot, unit: next.unit, end: (state: UnitEnd) => this.#ahead.end(next.slot, state) };
  }

  /** It ends what it has taken, unless it hangs. */
  end(): void {
    const taken = this.#taken;
    if (taken === undefined || taken.isHung) return;
    this.#taken = undefined;
    const { random, image } = this.#options;
    const { slot, unit, end } = taken;
    const target = this.#target(slot);
    if (random.below(100) < this.weather.failing) {
      target.fill(random.below(256));
      end(UNIT_STATE.FAILED);
    } else if (image.isHole(unit)) {
      end(UNIT_STATE.ZERO);
    } else {
      image.fill(unit, target);
      end(UNIT_STATE.THERE);
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
