// How results are printed: a line a case, a failure with both sides and the place where they part, and the counts.

import type { CaseResult } from "./run.ts";

export interface Counts {
  readonly system: string;
  readonly ok: number;
  readonly failed: number;
  readonly skipped: number;
}

export function countResults(system: string, results: readonly CaseResult[]): Counts {
  const of = (status: CaseResult["status"]) => results.filter((result) => result.status === status).length;
  return { system, ok: of("ok"), failed: of("fail"), skipped: of("skip") };
}

/** One case as lines. */
export function resultLines(result: CaseResult): string {
  const head = `${result.id.padEnd(4)} ${result.system.padEnd(8)}`;
  switch (result.status) {
    case "ok":
      return `ok   ${head} ${result.got.join(" ")}`;
    case "skip":
      return `skip ${head} ${result.reason ?? ""}`;
    case "fail":
      return `FAIL ${head} ${failureLines(result).join("\n")}`;
    default:
      return result.status satisfies never;
  }
}

/** What was written, what was expected and got, one under the other, and a mark under the first difference. */
export function failureLines(result: CaseResult): string[] {
  const { expected, got, differs, reason } = result;
  const lines = [`${result.where}: ${result.text}`];
  if (reason !== undefined) lines.push(`     problem   ${reason}`);
  const [wanted, came] = aligned(expected, got);
  lines.push(`     expected  ${wanted}`, `     got       ${came}`);
  if (differs !== undefined) lines.push(`               ${" ".repeat(columnOf(expected, got, differs))}^`);
  return lines;
}

/** Both rows with each token as wide as the wider of the two, so that differences stand under each other. */
function aligned(expected: readonly string[], got: readonly string[]): [string, string] {
  const count = Math.max(expected.length, got.length);
  const row = (tokens: readonly string[]) =>
    Array.from({ length: count }, (_, index) => (tokens[index] ?? "").padEnd(width(expected, got, index)))
      .join(" ")
      .trimEnd();
  return [row(expected), row(got)];
}

function width(expected: readonly string[], got: readonly string[], index: number): number {
  return Math.max(expected[index]?.length ?? 0, got[index]?.length ?? 0);
}

function columnOf(expected: readonly string[], got: readonly string[], index: number): number {
  let column = 0;
  for (let before = 0; before < index; before += 1) column += width(expected, got, before) + 1;
  return column;
}

export function countLine({ system, ok, failed, skipped }: Counts, seconds: number): string {
  return `${system}: ${ok} ok, ${failed} failed, ${skipped} skipped (${seconds.toFixed(1)} s)`;
}
