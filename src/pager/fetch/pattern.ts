// Guesses from the units that faulted which ones come next. Pure.
//
//   faults  4   5 ──▶ 6 7              a run is seen: two ahead
//           8 ──▶ 9 10 11 12           it went on where we had stopped: twice as many
//           ...                        up to the widest
//           90, 3, 57 ──▶ nothing      a fault that continues no run brings nobody along
//
// What was brought along raises no fault; so that a run goes on shows when it faults behind what we brought, or a little
// later where some of that was there already. Several runs are followed at once, forwards, backwards or by a stride. Faults that fit nowhere narrow what the runs may
// bring: in a random walk an accidental neighbour is no run.

export interface Guess {
  readonly stride: number;
  /** Units from the faulting one on, which is not among them; 0: none. */
  readonly count: number;
}

export interface PatternOptions {
  /** Units ahead at most: a power of two. */
  readonly widthMax: number;
}

/** LIMIT: runs that are followed at once, and faults that are remembered. */
const RUNS_MAX = 8;
const RECENT_MAX = 8;
/** Units between two faults of one run at most. */
const STRIDE_MAX = 64;
/** Below this share of faults that were foreseen, in the long run, nothing is brought along but on proof. */
const DECAY = 1 / 8;
const NARROW_BELOW = 0.25;

interface Run {
  /** Behind what was brought along. */
  next: number;
  /** Units that were brought along last. */
  brought: number;
  readonly stride: number;
  width: number;
}

const NOTHING: Guess = { stride: 1, count: 0 };

export class Pattern {
  readonly #widthMax: number;
  /** The one that was continued last at the end. */
  readonly #runs: Run[] = [];
  readonly #recent: number[] = [];
  /** How well faults fitted lately: 1 all, 0 none. */
  #fit = 0.5;

  constructor({ widthMax }: PatternOptions) {
    this.#widthMax = widthMax;
  }

  /** A unit has faulted. */
  fault(unit: number): Guess {
    if (this.#recent.at(-1) === unit) return NOTHING;
    const run = this.#continued(unit) ?? this.#begun(unit);
    this.#fit += ((run === undefined ? 0 : 1) - this.#fit) * DECAY;
    this.#remember(unit);
    if (run === undefined) return NOTHING;
    const width = this.#fit < NARROW_BELOW ? 1 : run.width;
    run.next = unit + run.stride * (width + 1);
    run.brought = width;
    return { stride: run.stride, count: width };
  }

  #continued(unit: number): Run | undefined {
    const index = this.#runs.findIndex((run) => {
      const steps = (unit - run.next) / run.stride;
      // What was brought along may be on its way yet. The more a run has shown, the more it may leave out.
      return steps >= -run.brought && steps < run.width && Number.isInteger(steps);
    });
    const [run] = index < 0 ? [] : this.#runs.splice(index, 1);
    if (run === undefined) return undefined;
    run.width = Math.min(this.#widthMax, run.width * 2);
    this.#runs.push(run);
    return run;
  }

  /** Neighbours make a run at once; any other distance when it has come twice. */
  #begun(unit: number): Run | undefined {
    const last = this.#recent.at(-1);
    const before = this.#recent.at(-2);
    let stride = this.#recent.includes(unit - 1) ? 1 : 0;
    if (stride === 0 && last !== undefined && before !== undefined && unit - last === last - before) {
      stride = unit - last;
    }
    if (stride === 0 || Math.abs(stride) > STRIDE_MAX) return undefined;
    const run: Run = { next: unit, brought: 0, stride, width: Math.min(2, this.#widthMax) };
    this.#runs.push(run);
    if (this.#runs.length > RUNS_MAX) this.#runs.shift();
    return run;
  }

  #remember(unit: number): void {
    this.#recent.push(unit);
    if (this.#recent.length > RECENT_MAX) this.#recent.shift();
  }
}
