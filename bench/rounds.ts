// Alternating rounds: every contestant once a round, in turning order, the first round for warmth only. What others did
// to the machine meanwhile is recorded, and a noisy round is measured again, a few times at most.

import { type Load, type LoadMeter, NOISE_MAX } from "./load.ts";

/** What one run gives: named figures. */
export type Figures = Readonly<Record<string, number>>;

export interface Contestant {
  readonly name: string;
  run(round: number): Promise<Figures> | Figures;
}

export interface Series {
  /** One entry a round that counts. */
  readonly figures: ReadonlyMap<string, readonly Figures[]>;
  readonly load: readonly Load[];
  /** Rounds that were measured again because others were busy. */
  readonly repeated: number;
}

export async function alternate(
  contestants: readonly Contestant[],
  rounds: number,
  meter: LoadMeter,
): Promise<Series> {
  const figures = new Map<string, Figures[]>(contestants.map(({ name }) => [name, []]));
  const load: Load[] = [];
  let repeated = 0;
  for (let round = 0; load.length < rounds; round++) {
    meter.begin();
    const results = new Map<string, Figures>();
    const turned = contestants.map((_, index) => contestants[(index + round) % contestants.length]!);
    for (const contestant of turned) results.set(contestant.name, await contestant.run(round));
    const seen = meter.end();
    if (round === 0) continue;
    if (seen.foreign + seen.stolen > NOISE_MAX && repeated < rounds) {
      repeated++;
      continue;
    }
    load.push(seen);
    for (const [name, result] of results) figures.get(name)?.push(result);
  }
  return { figures, load, repeated };
}

/** Rounds that `alternate` may need: for whoever has to prepare something for each. */
export function roundsMax(rounds: number): number {
  return 1 + 2 * rounds;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

/** A figure of a contestant, over the rounds. */
export function seriesOf(series: Series, name: string, figure: string): number[] {
  return (series.figures.get(name) ?? []).map((result) => result[figure] ?? Number.NaN);
}

export function medianOf(series: Series, name: string, figure: string): number {
  return median(seriesOf(series, name, figure));
}

/** The median of the ratios a : b of each round. */
export function ratioOf(
  series: Series,
  figure: string,
  a: string,
  b: string,
  figureOfB: string = figure,
): number {
  const [as, bs] = [seriesOf(series, a, figure), seriesOf(series, b, figureOfB)];
  return median(as.map((value, index) => value / bs[index]!));
}
