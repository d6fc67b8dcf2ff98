// A memory drawn as a rectangle: each cell stands for so many pages, and is the darker the more of them are there.

import { hasBit } from "../../base/bitmap.ts";
import type { Style } from "./style.ts";

/** Upper end of the share of pages for each shade. */
const SHADES: readonly (readonly [until: number, shade: string])[] = [
  [0, "·"],
  [0.1, "░"],
  [0.5, "▒"],
  [1 - 1e-9, "▓"],
  [1, "█"],
];

/** Colours of the xterm palette, from dark blue over green to yellow. */
const COLOURS = [60, 61, 67, 31, 37, 36, 35, 71, 77, 113, 149, 185, 220, 226];
const COLOUR_OF_NOTHING = 240;

/** The share of pages that are there, for each of `cellCount` equal parts of the memory. */
export function residencyShares(resident: Uint8Array, cellCount: number): number[] {
  return Array.from({ length: cellCount }, (_, cell) => {
    const start = Math.floor((cell * resident.length) / cellCount);
    const until = Math.max(start + 1, Math.floor(((cell + 1) * resident.length) / cellCount));
    const pages = resident.subarray(start, until);
    return pages.reduce((sum, isThere) => sum + isThere, 0) / pages.length;
  });
}

/** The same for a set of bits, one a page. */
export function residencyOfBits(bits: Uint32Array, pageCount: number, cellCount: number): number[] {
  return Array.from({ length: cellCount }, (_, cell) => {
    const start = Math.floor((cell * pageCount) / cellCount);
    const until = Math.max(start + 1, Math.floor(((cell + 1) * pageCount) / cellCount));
    let count = 0;
    for (let page = start; page < until; page++) count += hasBit(bits, page) ? 1 : 0;
    return count / (until - start);
  });
}

/** Cells beside each other; a colour is set once for all that share it. */
export function drawShares(shares: readonly number[], style: Style): string {
  let line = "";
  let colour: number | undefined;
  for (const share of shares) {
    const next = style.manyColours ? colourOf(share) : undefined;
    if (next !== colour) line += `\x1b[38;5;${next}m`;
    colour = next;
    line += SHADES.find(([until]) => share <= until)?.[1] ?? "█";
  }
  return colour === undefined ? line : `${line}\x1b[39m`;
}

function colourOf(share: number): number {
  // The square root spreads the small shares, where a lazy restore begins, over more colours.
  const index = Math.min(COLOURS.length - 1, Math.floor(Math.sqrt(share) * COLOURS.length));
  return share === 0 ? COLOUR_OF_NOTHING : (COLOURS[index] ?? COLOUR_OF_NOTHING);
}

/** The map, line by line. */
export function drawMap(resident: Uint8Array, columns: number, rows: number, style: Style): string[] {
  const shares = residencyShares(resident, columns * rows);
  return Array.from({ length: rows }, (_, row) =>
    drawShares(shares.slice(row * columns, (row + 1) * columns), style),
  );
}

/** What the shades mean, one a line. */
export function mapLegend(style: Style): string[] {
  return [
    `${drawShares([0], style)} nothing there`,
    `${drawShares([0.05], style)} up to 10 %`,
    `${drawShares([0.3], style)} up to half`,
    `${drawShares([0.8], style)} more`,
    `${drawShares([1], style)} everything`,
  ];
}
