// The result as people read it: what was restored, a table with one column a restore, the map under the columns,
// the verdict, and the machine with the command that repeats it.

import { stripVTControlCharacters } from "node:util";
import type { GuestKind } from "./guest.ts";
import { commandOf } from "./report.ts";
import { drawMap, mapLegend } from "./residency-map.ts";
import type { RestoreResult } from "./restore.ts";
import type { DemoResult } from "./run.ts";
import { formatCount, formatSize } from "./size.ts";
import { plain, type Style } from "./style.ts";

const LABEL_WIDTH = 20;
const MAP_ROWS = 8;
const MAP_GAP = 2;

export function renderResult(result: DemoResult, style: Style): string {
  const sections = [intro(result, style), table(result, style), map(result, style), verdict(result, style)];
  return plain(sections.map((lines) => lines.join("\n")).join("\n\n"), style);
}

/** Lines that go before the table: image, guest, pager. */
function intro(result: DemoResult, style: Style): string[] {
  const { image, guest } = result;
  const { files, zero, repeated } = image.composition;
  const mib = (pages: number) => formatSize(pages * 4096);
  const libraries = image.files.length - 1;
  const from = `${image.files[0] ?? "?"}${libraries > 0 ? ` and ${libraries} libraries that it has loaded` : ""}`;
  const indent = " ".repeat(8);
  const below = (text: string, paint: (line: string) => string = (line) => line) =>
    wrap(text, style.width - indent.length).map((line) => `${indent}${paint(line)}`);
  const row = (label: string, text: string) => {
    const [first = "", ...rest] = below(text);
    return [`${style.paint("bold", label.padEnd(8))}${first.slice(indent.length)}`, ...rest];
  };
  const pages = `${formatCount(image.pageCount)} pages of 4 KiB, ${formatCount(image.distinctPages)} of them different`;
  return [
    ...row("image", `${formatSize(image.byteLength)}: ${mib(files)} of ${from},`),
    ...below(`${mib(zero)} of zeros, ${mib(repeated)} of repeated pages;`),
    ...below(`${pages}, the SHA-256 of each is known`),
    ...row("guest", guest.guestText),
    ...guest.refusals.flatMap(({ kind, reason }) =>
      below(`not ${KIND[kind]}: ${reason}`, (line) => style.paint("yellow", line)),
    ),
    ...row("pager", guest.pagerText),
    ...result.restores
      .filter(({ name, placement }) => name !== "eager" && placement !== undefined)
      .slice(-1)
      .flatMap(({ placement }) =>
        below(`placed: ${placement?.mode}: ${placement?.why}`, (line) => style.paint("dim", line)),
      ),
  ];
}

/** Lines of at most `width` characters, broken between words; a word that is longer stays whole. */
export function wrap(text: string, width: number, glue = ""): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length + glue.length <= width) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else lines.push(word);
  }
  return lines.map((line, index) => (index < lines.length - 1 ? `${line}${glue}` : line));
}

const KIND: Readonly<Record<GuestKind, string>> = {
  kvm: "a KVM machine",
  process: "a process",
  software: "the software implementation",
};

function title({ name, faultAroundPages }: RestoreResult): readonly [string, string] {
  if (name === "eager") return ["eager", "all copied first"];
  if (name === "page-by-page") return ["lazy", "page by page"];
  return ["lazy", `${faultAroundPages} pages a fault`];
}

function table(result: DemoResult, style: Style): string[] {
  const { restores } = result;
  const width = columnWidth(style);
  const line = (label: string, cells: readonly string[]) =>
    `${label.padEnd(LABEL_WIDTH)}${cells.map((cell) => cell.padStart(width)).join("")}`;
  const row = (label: string, cell: (restore: RestoreResult) => string) => line(label, restores.map(cell));
  const [eager] = restores;
  const ratio = (of: (restore: RestoreResult) => number) =>
    style.paint(
      "dim",
      row("", (restore) => (restore === eager || eager === undefined ? "" : compare(of(restore), of(eager)))),
    );
  const rule = style.paint("dim", "─".repeat(LABEL_WIDTH + width * restores.length));
  return [
    style.paint(
      "bold",
      row("", (restore) => title(restore)[0]),
    ),
    style.paint(
      "dim",
      row("", (restore) => title(restore)[1]),
    ),
    rule,
    style.paint(
      "bold",
      row("first byte read", ({ firstByteMs }) => formatMs(firstByteMs)),
    ),
    ratio(({ firstByteMs }) => firstByteMs),
    row("random 2 % touched", ({ sampleMs }) => formatMs(sampleMs)),
    ratio(({ sampleMs }) => sampleMs),
    row("everything touched", ({ allMs }) => formatMs(allMs)),
    ratio(({ allMs }) => allMs),
    rule,
    row("faults", ({ faults }) => formatCount(faults)),
    style.paint(
      "dim",
      row("  until 2 % touched", ({ faultsUntilSample }) => formatCount(faultsUntilSample)),
    ),
    row("bytes moved", ({ bytesMoved }) => formatSize(bytesMoved)),
    style.paint(
      "dim",
      row("  until 2 % touched", ({ bytesMovedUntilSample }) => formatSize(bytesMovedUntilSample)),
    ),
    row("fault latency p50", ({ faultUs }) => formatUs(faultUs?.p50)),
    row("fault latency p99", ({ faultUs }) => formatUs(faultUs?.p99)),
    row("resident access p50", ({ residentUs }) => formatUs(residentUs?.p50)),
    row("wrong pages", ({ wrongPages }) => (wrongPages === 0 ? "0" : `${formatCount(wrongPages)} !`)),
  ];
}

function map(result: DemoResult, style: Style): string[] {
  const width = columnWidth(style);
  const maps = result.restores.map(({ residentAfterSample }) =>
    drawMap(residentAfterSample, width - MAP_GAP, MAP_ROWS, style),
  );
  const cellPages = result.image.pageCount / ((width - MAP_GAP) * MAP_ROWS);
  const legend = [
    "there after the",
    "random 2 %",
    `1 cell: ${formatCount(Math.round(cellPages))} pages`,
    ...mapLegend(style),
  ];
  const shares = result.restores.map(({ residentAfterSample }) => {
    const count = residentAfterSample.reduce((sum, isThere) => sum + isThere, 0);
    return `${((count / residentAfterSample.length) * 100).toFixed(1)} %`.padStart(width);
  });
  return [
    ...Array.from({ length: MAP_ROWS }, (_, row) => {
      const label = legend[row] ?? "";
      const padding = " ".repeat(LABEL_WIDTH - visibleLength(label));
      return label + padding + maps.map((lines) => " ".repeat(MAP_GAP) + lines[row]).join("");
    }),
    " ".repeat(LABEL_WIDTH) + shares.join(""),
  ];
}

function verdict(result: DemoResult, style: Style): string[] {
  const { restores, image, machine } = result;
  const checked = formatCount(restores.length * image.pageCount);
  const wrong = restores.reduce((sum, { wrongPages }) => sum + wrongPages, 0);
  const misread = restores.filter(({ guestReadRight }) => !guestReadRight).length;
  const words = result.right
    ? style.paint(["bold", "green"], `✔ Every page is right: ${checked} pages checked by SHA-256, 0 wrong`)
    : style.paint(
        ["bold", "red"],
        `✘ ${formatCount(wrong)} of ${checked} pages are wrong; guests that read wrong words: ${misread}`,
      );
  const memory = formatSize(Math.round(machine.memoryBytes / 2 ** 30) * 2 ** 30);
  return [
    words,
    ...wrap(
      `${machine.cpus} × ${machine.cpu}, ${memory}, ${machine.system}, Node ${machine.node}; ${formatMs(result.totalMs)}`,
      style.width,
    ).map((line) => style.paint("dim", line)),
    // As a shell takes it back.
    ...wrap(`again: ${commandOf(result)}`, style.width, " \\").map((line) => style.paint("dim", line)),
  ];
}

function columnWidth(style: Style): number {
  return Math.floor((style.width - LABEL_WIDTH) / 3);
}

/** "610× sooner", "1.4× later", "the same". */
function compare(value: number, reference: number): string {
  if (value <= 0 || reference <= 0) return "";
  const factor = value < reference ? reference / value : value / reference;
  if (factor < 1.05) return "the same";
  const text = factor >= 100 ? formatCount(Math.round(factor)) : factor.toPrecision(2);
  return `${text}× ${value < reference ? "sooner" : "later"}`;
}

/** "212 µs", "1.25 ms", "128 ms", "5.40 s": three digits. */
export function formatMs(ms: number): string {
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 1000) return `${ms.toPrecision(3)} ms`;
  return `${(ms / 1000).toFixed(ms < 100_000 ? 2 : 0)} s`;
}

function formatUs(us: number | undefined): string {
  if (us === undefined) return "–";
  if (us < 1) return `${(us * 1000).toFixed(0)} ns`;
  return us < 1000 ? `${us < 100 ? us.toFixed(1) : us.toFixed(0)} µs` : `${(us / 1000).toFixed(1)} ms`;
}

function visibleLength(text: string): number {
  return stripVTControlCharacters(text).length;
}
