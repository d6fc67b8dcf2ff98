// The four figures of a guest: which of its memory is there, where pages arrived and when, how long faults took, what
// waits. Each is a figure with a caption, its drawing, and the same as a table. Page and report show the same HTML; the
// page renews the parts that are named (data-part), and leaves the rest, and the reader's place in it, alone.

import type { History, HistoryColumn } from "../control/history-schema.ts";
import { barsSvg, cellsSvg, endOf, heatSvg, latencyScale, latencySvg, levelOf } from "./draw.ts";
import { bytesText, countText, durationText, escaped, microsecondsText, percentText } from "./words.ts";

const MAP_COLUMNS = 64;
/** Rows of a table that stands for a drawing. */
const TABLE_ROWS = 24;

export function figuresOf(history: History): string {
  return [mapFigure(history), heatFigure(history), latencyFigure(history), waitFigure(history)].join("\n");
}

/** What is known of a guest, in words. */
export function factsOf(history: History): string {
  const { columns, byteLength, ended } = history;
  const sum = (value: (column: HistoryColumn) => number) =>
    columns.reduce((total, column) => total + value(column), 0);
  const resident = columns.at(-1)?.residentBytes ?? 0;
  const facts: readonly (readonly [string, string])[] = [
    ["Image", history.image],
    ["Process", String(history.pid)],
    ["Memory", bytesText(byteLength)],
    ["Resident", `${bytesText(resident)} (${percentText(resident, byteLength)})`],
    ["Faults", countText(sum(({ faults }) => faults))],
    ["Installed", bytesText(sum(({ bytesInstalled }) => bytesInstalled))],
    ["Ahead of the guest", bytesText(sum(({ bytesReplayed }) => bytesReplayed))],
    [ended === undefined ? "Served for" : "Was served for", durationText(endOf(columns))],
    ...(ended === undefined ? [] : [["Ended", ended.detail ?? ended.reason] as const]),
  ];
  return facts.map(([name, text]) => `<div><dt>${name}</dt><dd>${escaped(text)}</dd></div>`).join("");
}

export function happeningsOf({ happenings }: History): string {
  return happenings
    .map(({ atMs, kind, text }) => {
      const at = `<span class="at">${durationText(atMs)}</span>`;
      return `<li class="${/^[a-z]+$/.test(kind) ? kind : "other"}">${at} ${escaped(text)}</li>`;
    })
    .join("");
}

function mapFigure({ map, columns, byteLength }: History): string {
  const resident = columns.at(-1)?.residentBytes ?? 0;
  const said = `${percentText(resident, byteLength)} of the memory is resident`;
  const each = bytesText(byteLength / Math.max(1, map.length));
  const rows = inRows(map, 16).map(({ first, values }) => {
    const mean = values.reduce((sum, share) => sum + share, 0) / values.length;
    return [bytesText((first / map.length) * byteLength), percentText(mean, 1)];
  });
  return figure("map", {
    title: "Residency",
    said: `${said}; a cell stands for ${each}`,
    plot: cellsSvg(map.map(levelOf), MAP_COLUMNS, said),
    left: [],
    below: ["first address", "last address"],
    key: [
      ["level-0", "missing"],
      ["level-4", "partly"],
      ["level-9", "resident"],
    ],
    table: { heads: ["From", "Resident"], rows },
  });
}

function heatFigure({ columns, byteLength }: History): string {
  const end = endOf(columns);
  const arrived = columns.reduce((total, { heat }) => total + heat.reduce((sum, pages) => sum + pages, 0), 0);
  const said = `${countText(arrived)} pages arrived in ${durationText(end)}`;
  const rows = gathered(columns).map((some) => {
    const pages = some.map(({ heat }) => heat.reduce((sum, each) => sum + each, 0));
    const sums = some[0]!.heat.map((_, cell) => some.reduce((sum, { heat }) => sum + heat[cell]!, 0));
    const hottest = sums.indexOf(Math.max(...sums));
    const total = pages.reduce((sum, each) => sum + each, 0);
    const where = total === 0 ? "–" : bytesText((hottest / sums.length) * byteLength);
    return [durationText(some[0]!.startMs), countText(total), where];
  });
  return figure("heat", {
    title: "Heat over time",
    said,
    plot: heatSvg(columns, said),
    left: ["first", "last"],
    below: ["0", durationText(end)],
    key: [
      ["level-2", "few pages a millisecond"],
      ["level-9", "many"],
    ],
    table: { heads: ["At", "Pages", "Most of them near"], rows },
  });
}

function latencyFigure({ columns }: History): string {
  const scale = latencyScale(columns);
  const measured = columns.filter(({ latencyUs }) => latencyUs !== undefined);
  const worst = Math.max(0, ...measured.map(({ latencyUs }) => latencyUs?.max ?? 0));
  const last = measured.at(-1)?.latencyUs;
  const said =
    last === undefined
      ? "No faults yet"
      : `Lately ${microsecondsText(last.p50)} in the middle and ${microsecondsText(last.p99)} at the 99th percentile; ` +
        `the slowest ever ${microsecondsText(worst)}`;
  const rows = gathered(columns).map((some) => {
    const each = some.flatMap(({ latencyUs }) => (latencyUs === undefined ? [] : [latencyUs]));
    const most = (of: (latency: { p50: number; p99: number; max: number }) => number) =>
      microsecondsText(each.length === 0 ? undefined : Math.max(...each.map(of)));
    const faults = some.reduce((sum, column) => sum + column.faults, 0);
    return [
      durationText(some[0]!.startMs),
      countText(faults),
      most(({ p50 }) => p50),
      most(({ p99 }) => p99),
      most(({ max }) => max),
    ];
  });
  const lines = Array.from({ length: scale.high - scale.low + 1 }, (_, line) => 10 ** (scale.high - line));
  return figure("latency", {
    title: "Fault latency over time",
    said,
    plot: latencySvg(columns, scale, said),
    left: lines.map((us) => microsecondsText(us).replace(".0 ", " ")),
    below: ["0", durationText(endOf(columns))],
    key: [
      ["p50", "median"],
      ["p99", "99th percentile"],
      ["slowest", "slowest"],
    ],
    table: { heads: ["At", "Faults", "Median", "99th percentile", "Slowest"], rows },
  });
}

function waitFigure({ columns, image }: History): string {
  const now = columns.at(-1)?.waiting ?? 0;
  const most = Math.max(0, ...columns.map(({ waiting }) => waiting));
  const said =
    now === 0
      ? `Nothing waits${most === 0 ? "" : `; ${faultsText(most)} did at most`}`
      : `${faultsText(now)} ${now === 1 ? "waits" : "wait"} for bytes of ${image}`;
  const rows = gathered(columns).map((some) => [
    durationText(some[0]!.startMs),
    countText(Math.max(...some.map(({ waiting }) => waiting))),
  ]);
  return figure("waits", {
    title: "What waits",
    said,
    plot: barsSvg(columns, ({ waiting }) => waiting, most, escaped(said)),
    left: [countText(most), "0"],
    below: ["0", durationText(endOf(columns))],
    key: [["bars", "faults that wait for their bytes"]],
    table: { heads: ["At", "Waiting, at most"], rows },
  });
}

function faultsText(count: number): string {
  return count === 1 ? "1 fault" : `${countText(count)} faults`;
}

interface FigureParts {
  readonly title: string;
  /** The figure in a sentence. */
  readonly said: string;
  readonly plot: string;
  /** From top to bottom. */
  readonly left: readonly string[];
  /** From left to right. */
  readonly below: readonly string[];
  readonly key: readonly (readonly [className: string, text: string])[];
  readonly table: { readonly heads: readonly string[]; readonly rows: readonly (readonly string[])[] };
}

function figure(name: string, { title, said, plot, left, below, key, table }: FigureParts): string {
  const spans = (texts: readonly string[]) => texts.map((text) => `<span>${escaped(text)}</span>`).join("");
  const keys = key.map(([className, text]) => `<li><i class="key ${className}"></i>${text}</li>`).join("");
  const heads = table.heads.map((head) => `<th scope="col">${head}</th>`).join("");
  const rows = table.rows.map(([first = "", ...rest]) => {
    const cells = rest.map((text) => `<td>${escaped(text)}</td>`).join("");
    return `<tr><th scope="row">${escaped(first)}</th>${cells}</tr>`;
  });
  return `<figure class="figure ${name}" aria-labelledby="${name}-title">
<figcaption><h3 id="${name}-title">${title}</h3><p data-part="${name}-said">${escaped(said)}</p></figcaption>
<div class="frame"><div class="left" aria-hidden="true" data-part="${name}-left">${spans(left)}</div>
<div class="plot" data-part="${name}-plot">${plot}</div>
<div class="below" aria-hidden="true" data-part="${name}-below">${spans(below)}</div></div>
<ul class="keys" aria-label="Key">${keys}</ul>
<details><summary>${title} as a table</summary><div class="scroll" tabindex="0" role="region" aria-label="${title}">
<table><thead><tr>${heads}</tr></thead><tbody data-part="${name}-rows">${rows.join("")}</tbody></table></div></details>
</figure>`;
}

/** Columns side by side, so that a table has few rows. */
function gathered(columns: readonly HistoryColumn[]): HistoryColumn[][] {
  return inRows(columns, TABLE_ROWS).map(({ values }) => values);
}

function inRows<T>(values: readonly T[], rows: number): { first: number; values: T[] }[] {
  const each = Math.max(1, Math.ceil(values.length / rows));
  return Array.from({ length: Math.ceil(values.length / each) }, (_, row) => ({
    first: row * each,
    values: values.slice(row * each, (row + 1) * each),
  }));
}
