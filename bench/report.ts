// What the benchmark says: a table a group, and for each target whether it is met, with the figure.

import { type Load, NOISE_MAX } from "./load.ts";
import { median, type Series } from "./rounds.ts";

export interface Verdict {
  readonly claim: string;
  readonly figure: number;
  readonly limit: number;
  readonly bound: "at most" | "at least";
  readonly met: boolean;
}

export interface Row {
  readonly name: string;
  /** Medians over the rounds, by name. */
  readonly figures: Readonly<Record<string, number>>;
}

export interface Group {
  readonly title: string;
  /** Names of the figures with their units, in the order of the columns. */
  readonly columns: readonly { readonly key: string; readonly title: string; readonly digits: number }[];
  readonly rows: readonly Row[];
  readonly verdicts: readonly Verdict[];
  readonly notes: readonly string[];
  readonly rounds: number;
  readonly repeated: number;
  /** Foreign and stolen processor time of each round. */
  readonly load: readonly Load[];
}

/** Whether nobody else did much in any round that counts: otherwise the verdicts say little, met or not. */
export function isQuiet({ load }: Group): boolean {
  return load.every(({ foreign, stolen }) => foreign + stolen <= NOISE_MAX);
}

/** What a group has of its series: the medians as rows, and how they came about. */
export function measured(series: Series): Pick<Group, "rows" | "rounds" | "repeated" | "load"> {
  const { load, repeated } = series;
  return { rows: rowsOf(series), rounds: load.length, repeated, load };
}

function rowsOf(series: Series): Row[] {
  return [...series.figures].map(([name, results]) => {
    const keys = Object.keys(results[0] ?? {});
    const figures = keys.map((key) => [key, median(results.map((result) => result[key] ?? Number.NaN))]);
    return { name, figures: Object.fromEntries(figures) };
  });
}

export function atMost(claim: string, figure: number, limit: number): Verdict {
  return { claim, figure, limit, bound: "at most", met: figure <= limit };
}

export function atLeast(claim: string, figure: number, limit: number): Verdict {
  return { claim, figure, limit, bound: "at least", met: figure >= limit };
}

export function printGroup(group: Group): void {
  const { title, columns, rows, verdicts, notes, load } = group;
  console.log(`\n${title}`);
  const width = Math.max(...rows.map(({ name }) => name.length), 20);
  console.log(`  ${"".padEnd(width)} ${columns.map((column) => column.title.padStart(12)).join("")}`);
  for (const { name, figures } of rows) {
    const cells = columns.map(({ key, digits }) => {
      const value = figures[key];
      return (value === undefined || Number.isNaN(value) ? "" : value.toFixed(digits)).padStart(12);
    });
    console.log(`  ${name.padEnd(width)} ${cells.join("")}`);
  }
  for (const verdict of verdicts) console.log(`  ${verdictText(verdict)}`);
  for (const note of notes) console.log(`  note: ${note}`);
  const worst = (key: "foreign" | "stolen"): string =>
    (Math.max(0, ...load.map((one) => one[key])) * 100).toFixed(0);
  console.log(
    `  ${group.rounds} rounds, ${group.repeated} measured again; worst round: ${worst("foreign")} % of a CPU foreign, ${worst("stolen")} % stolen`,
  );
  if (!isQuiet(group))
    console.log("  NOT QUIET: others were busy; these verdicts do not count, met or missed");
}

export function verdictText({ claim, figure, limit, bound, met }: Verdict): string {
  const sign = bound === "at most" ? "≤" : "≥";
  return `${met ? "met   " : "MISSED"} ${claim}: ${figure.toFixed(figure < 100 ? 2 : 0)} (${sign} ${limit})`;
}
