// Sizes as people write and read them: 256MiB, 1GiB, 65536KiB.

import { InvalidArgumentError } from "@commander-js/extra-typings";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { parseBytes } from "../bytes.ts";

/** LIMIT: below it the three kinds of content and a random 2 % of the pages mean nothing. */
export const SIZE_MIN: number = 2 ** 20;

/** Bytes of a memory such as "256MiB", for commander: a wrong one is a usage error that says what is right. */
export function parseSize(text: string): number {
  const byteLength = parseBytes(text);
  if (byteLength < SIZE_MIN)
    throw new InvalidArgumentError(`A memory has at least ${formatSize(SIZE_MIN)}, such as 256MiB.`);
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
