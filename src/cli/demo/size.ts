// Sizes as people write and read them: 256MiB, 1GiB, 65536KiB.

import { InvalidArgumentError } from "@commander-js/extra-typings";
import { PAGE_SIZE } from "../../abi/memory.ts";

const UNITS = new Map([
  ["kib", 2 ** 10],
  ["mib", 2 ** 20],
  ["gib", 2 ** 30],
]);

/** LIMIT: below it the three kinds of content and a random 2 % of the pages mean nothing. */
export const SIZE_MIN: number = 2 ** 20;

/** Bytes of a size such as "256MiB", for commander: a wrong one is a usage error that says what is right. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim());
  const unit = UNITS.get(match?.[2]?.toLowerCase() ?? "");
  if (match === null || unit === undefined) {
    throw new InvalidArgumentError("A size is a number and KiB, MiB or GiB, such as 256MiB or 1.5GiB.");
  }
  const byteLength = Number(match[1]) * unit;
  if (byteLength < SIZE_MIN) throw new InvalidArgumentError(`The least size is ${formatSize(SIZE_MIN)}.`);
  if (byteLength % PAGE_SIZE !== 0) {
    throw new InvalidArgumentError(`A size is a whole number of pages of ${PAGE_SIZE} bytes.`);
  }
  return byteLength;
}

/** "256 MiB", "1.5 GiB", "96.4 MiB": three digits at most, unless they are needed to be exact. */
export function formatSize(byteLength: number): string {
  const [name, unit] =
    byteLength >= 2 ** 30 ? ["GiB", 2 ** 30] : byteLength >= 2 ** 20 ? ["MiB", 2 ** 20] : ["KiB", 2 ** 10];
  const value = byteLength / unit;
  return `${value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${name}`;
}

/** The size as `parseSize` takes it back, exactly. */
export function exactSize(byteLength: number): string {
  for (const [name, unit] of [
    ["GiB", 2 ** 30],
    ["MiB", 2 ** 20],
  ] as const) {
    if (byteLength % unit === 0) return `${byteLength / unit}${name}`;
  }
  return `${byteLength / 2 ** 10}KiB`;
}

/** 65536 as "65 536". */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, " ");
}
