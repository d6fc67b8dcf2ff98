// Sizes and times as options have them, 64KiB and 250ms; and they and counts as people read them.

import { InvalidArgumentError } from "@commander-js/extra-typings";
import { byteSizeOf } from "../base/byte-size.ts";

const TIMES = new Map([
  ["ms", 1],
  ["s", 1000],
  ["min", 60_000],
  ["h", 3_600_000],
  ["d", 86_400_000],
]);
const QUANTITY = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/;

/** Bytes of "64KiB", "1.5GiB" or "4096", for commander. */
export function parseBytes(text: string): number {
  const byteLength = byteSizeOf(text);
  if (byteLength !== undefined) return byteLength;
  throw new InvalidArgumentError("A size is a number and KiB, MiB, GiB or TiB, such as 64KiB.");
}

/** Milliseconds of "250ms", "30s", "1h", for commander. */
export function parseMs(text: string): number {
  const match = QUANTITY.exec(text.trim());
  const unit = TIMES.get(match?.[2]?.toLowerCase() ?? "?");
  if (match !== null && unit !== undefined) return Number(match[1]) * unit;
  throw new InvalidArgumentError("A time is a number and ms, s, min, h or d, such as 250ms.");
}

/** "256 MiB", "1.5 GiB", "96 B". */
export function bytesText(byteLength: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = byteLength;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** "1 page", "2 pages". */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** "12 s", "3 min 20 s", "450 ms". */
export function msText(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
