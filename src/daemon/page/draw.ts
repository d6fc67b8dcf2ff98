// Drawings as SVG in which colours are classes, so that one style sheet serves page and report, by day and by night. Pure:
// data in, text out; browsers load this file too.
//
// Cells of one colour are one path. A drawing fills its place whatever that is; what is written stands beside it as text.

import type { HistoryColumn } from "../control/history-schema.ts";

/** Colours of cells: 0 is nothing, LEVELS is everything. */
export const LEVELS = 9;
const WIDTH = 1000;

/** A share from 0 to 1 as a level: nothing and everything are only that. */
export function levelOf(share: number): number {
  if (share <= 0) return 0;
  return share >= 1 ? LEVELS : 1 + Math.min(LEVELS - 2, Math.floor(share * (LEVELS - 1)));
}

/** A grid of levels, row by row. */
export function cellsSvg(levels: readonly number[], columns: number, label: string): string {
  const rows = Math.ceil(levels.length / columns);
  const paths: string[] = Array.from({ length: LEVELS + 1 }, () => "");
  for (let row = 0; row < rows; row++) {
    const line = levels.slice(row * columns, (row + 1) * columns);
    for (let x = 0; x < line.length; ) {
      const level = line[x]!;
      let until = x + 1;
      while (line[until] === level) until++;
      if (level > 0) paths[level] += `M${x} ${row}h${until - x}v1h${x - until}z`;
      x = until;
    }
  }
  return svg(columns, rows, label, coloured(paths), "cells");
}

/** Where in the memory pages arrived, and when: time goes to the right, addresses go down. */
export function heatSvg(columns: readonly HistoryColumn[], label: string): string {
  const { spans, cells } = { spans: spansOf(columns), cells: columns[0]?.heat.length ?? 1 };
  // A page a millisecond is much for one part of a memory and little for another, so the scale is logarithmic.
  const rates = columns.map(({ heat, ms }) => heat.map((pages) => pages / Math.max(1, ms)));
  const most = Math.max(...rates.map((each) => Math.max(...each)), 0);
  const paths: string[] = Array.from({ length: LEVELS + 1 }, () => "");
  for (const [index, rate] of rates.entries()) {
    const { x, width } = spans[index]!;
    for (const [cell, value] of rate.entries()) {
      if (value <= 0) continue;
      const level = Math.max(1, LEVELS + Math.round(Math.log2(value / most)));
      paths[level] += `M${x} ${cell}h${width}v1h${-width}z`;
    }
  }
  return svg(WIDTH, cells, label, coloured(paths), "cells");
}

export interface LatencyScale {
  /** Powers of ten, microseconds: the lowest and the highest line. */
  readonly low: number;
  readonly high: number;
}

export function latencyScale(columns: readonly HistoryColumn[]): LatencyScale {
  const all = columns.flatMap(({ latencyUs }) => (latencyUs === undefined ? [] : [latencyUs]));
  const least = Math.min(...all.map(({ p50 }) => p50), 10);
  const most = Math.max(...all.map(({ max }) => max), 100);
  return { low: Math.floor(Math.log10(Math.max(0.1, least))), high: Math.ceil(Math.log10(most)) };
}

/** Median and 99th percentile as lines, the slowest as points, over a logarithmic scale. */
export function latencySvg(columns: readonly HistoryColumn[], scale: LatencyScale, label: string): string {
  const { low, high } = scale;
  const height = 100;
  const y = (us: number): number =>
    round(height * (1 - (Math.log10(Math.max(us, 10 ** low)) - low) / (high - low)));
  const spans = spansOf(columns);
  let p50 = "";
  let p99 = "";
  let slowest = "";
  for (const [index, { latencyUs }] of columns.entries()) {
    if (latencyUs === undefined) continue;
    const { x, width } = spans[index]!;
    p50 += `M${x} ${y(latencyUs.p50)}h${width}`;
    p99 += `M${x} ${y(latencyUs.p99)}h${width}`;
    slowest += `M${round(x + width / 2)} ${y(latencyUs.max)}h0`;
  }
  const grid = Array.from({ length: high - low - 1 }, (_, line) => {
    const at = round((height * (line + 1)) / (high - low));
    return `M0 ${at}h${WIDTH}`;
  }).join("");
  const lines = [
    ["grid", grid],
    ["p99", p99],
    ["p50", p50],
    ["slowest", slowest],
  ] as const;
  const body = lines.map(([name, d]) => (d === "" ? "" : `<path class="${name}" d="${d}"/>`)).join("");
  return svg(WIDTH, height, label, body, "lines");
}

/** One quantity of every column as bars from the ground. */
export function barsSvg(
  columns: readonly HistoryColumn[],
  value: (column: HistoryColumn) => number,
  most: number,
  label: string,
): string {
  const height = 100;
  const spans = spansOf(columns);
  const bars = columns.map((column, index) => {
    const { x, width } = spans[index]!;
    const tall = most === 0 ? 0 : round((value(column) / most) * height);
    return tall === 0 ? "" : `M${x} ${height}v${-tall}h${width}v${tall}z`;
  });
  return svg(WIDTH, height, label, `<path class="bars" d="${bars.join("")}"/>`, "lines");
}

/** Where each column lies between the left and the right end. */
function spansOf(columns: readonly HistoryColumn[]): { readonly x: number; readonly width: number }[] {
  const end = endOf(columns);
  return columns.map(({ startMs, ms }) => {
    const x = round((startMs / end) * WIDTH);
    return { x, width: Math.max(0.5, round(((startMs + ms) / end) * WIDTH - x)) };
  });
}

/** Milliseconds at the right end. */
export function endOf(columns: readonly HistoryColumn[]): number {
  const last = columns.at(-1);
  return last === undefined ? 1 : Math.max(1, last.startMs + last.ms);
}

function coloured(paths: readonly string[]): string {
  return paths.map((d, level) => (d === "" ? "" : `<path class="level-${level}" d="${d}"/>`)).join("");
}

function svg(width: number, height: number, label: string, body: string, kind: string): string {
  return (
    `<svg class="${kind}" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" ` +
    `aria-label="${label}">${body}</svg>`
  );
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
