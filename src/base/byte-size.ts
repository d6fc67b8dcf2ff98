// Sizes in bytes as options take them: a number, or a text such as "512MiB".

import { MinorfaultError } from "./errors.ts";

const UNITS: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["b", 1],
  ["kib", 2 ** 10],
  ["mib", 2 ** 20],
  ["gib", 2 ** 30],
  ["tib", 2 ** 40],
]);

/** Bytes of "4096", "64KiB" or "1.5 GiB"; undefined when it is no size, or no whole number of bytes. */
export function byteSizeOf(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = UNITS.get(match?.[2]?.toLowerCase() ?? "?");
  const bytes = Number(match?.[1]) * (unit ?? Number.NaN);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Bytes of 65536, "64KiB" or "1.5 GiB"; throws ERR_BAD_ARGUMENT naming what it is the size of. */
export function parseByteSize(size: number | string, what: string): number {
  const bytes = byteSizeOf(String(size));
  if (bytes === undefined) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${what} is not a size: ${JSON.stringify(size)}`, {
      hint: "Pass a number of bytes, or a text such as 64KiB, 512MiB or 1.5GiB",
    });
  }
  return bytes;
}
