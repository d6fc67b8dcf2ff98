// The picture of `minorfault top`, line by line, for a terminal of any width from 80 on. Pure: a frame and the one before
// go in, lines come out.

import type { Frame, FrameGuest } from "../../client/index.ts";
import { bytesText, countText, microsecondsText, percentText } from "../../daemon/page/words.ts";
import type { Style } from "../demo/style.ts";

const SHADES = [" ", "░", "░", "▒", "▒", "▓", "▓", "▓", "▓", "█"];
const NAME = 14;
const IMAGE = 10;
const NUMBERS = 34;
/** Two blanks between columns. */
const GAPS = 6;

/** At most so many rows, the busiest guests first. */
export function rowsOf(frame: Frame, before: Frame | undefined, style: Style, rows: number): string[] {
  const { guests, health, at } = frame;
  const seconds = before === undefined ? Number.POSITIVE_INFINITY : Math.max(0.001, (at - before.at) / 1000);
  const old = new Map(before?.guests.map((guest) => [guest.id, guest]) ?? []);
  const rate = (guest: FrameGuest, of: (guest: FrameGuest) => number): number => {
    const was = old.get(guest.id);
    return was === undefined ? 0 : Math.max(0, of(guest) - of(was)) / seconds;
  };
  const total = (of: (guest: FrameGuest) => number): number =>
    guests.reduce((sum, guest) => sum + of(guest), 0);
  const faults = (guest: FrameGuest) => rate(guest, (each) => each.faults);
  const state = health.ready ? style.paint("green", "ready") : style.paint("red", health.why ?? "not ready");
  const head = [
    `${style.paint("bold", "minorfault")}  ${state}`,
    `${countText(guests.length)} ${guests.length === 1 ? "guest" : "guests"}`,
    `${countText(total(faults))} faults/s`,
    `${bytesText(total((guest) => rate(guest, (each) => each.bytesInstalled)))}/s`,
    `${countText(total(({ waiting }) => waiting))} waiting`,
  ].join("   ");
  const { takeovers, refused } = health.counters;
  const refusals = Object.values(refused).reduce((sum, count) => sum + count, 0);
  const spare = health.sparePid === undefined ? "no spare" : `spare ${health.sparePid}`;
  const second = `pager ${health.pid}, keeper ${health.keeperPid}, ${spare}; ${takeovers} takeovers, ${refusals} refused`;
  const map = style.width - NAME - IMAGE - NUMBERS - GAPS;
  const heads =
    `${"GUEST".padEnd(NAME)}  ${"IMAGE".padEnd(IMAGE)}  ${"MEMORY".padEnd(map)}  ` +
    `${"RESIDENT".padStart(8)}${"FAULTS/S".padStart(10)}${"P99".padStart(9)}${"WAIT".padStart(7)}`;
  const room = rows - 4;
  const busiest = [...guests].sort(
    (one, other) =>
      other.waiting - one.waiting ||
      faults(other) - faults(one) ||
      one.ageMs - other.ageMs ||
      compare(one, other),
  );
  const lines = busiest.slice(0, room).map((guest) => {
    const { image, strip, residentBytes, byteLength, p99Us, waiting } = guest;
    const numbers =
      percentText(residentBytes, byteLength).padStart(8) +
      countText(faults(guest)).padStart(10) +
      microsecondsText(p99Us).padStart(9) +
      countText(waiting).padStart(7);
    const name = cut(guest.name ?? guest.id, NAME);
    const line = `${name}  ${cut(image, IMAGE)}  ${style.paint("blue", shades(strip, map))}  ${numbers}`;
    return waiting > 0 ? style.paint("yellow", line) : line;
  });
  const more = guests.length - lines.length;
  return [
    head,
    style.paint("dim", second),
    style.paint("dim", heads),
    ...lines,
    ...(more > 0 ? [style.paint("dim", `and ${more} more`)] : []),
    ...(guests.length === 0 ? ["no guests"] : []),
  ];
}

/** A strip of digits over so many characters. */
function shades(strip: string, width: number): string {
  return Array.from({ length: width }, (_, at) => {
    const digit = strip[Math.floor((at * strip.length) / width)] ?? "0";
    return SHADES[Number(digit)];
  }).join("");
}

function cut(text: string, width: number): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a guest's name must not move the cursor
  const clean = text.replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
  return clean.length <= width ? clean.padEnd(width) : `${clean.slice(0, width - 1)}~`;
}

function compare(one: FrameGuest, other: FrameGuest): number {
  return (one.name ?? one.id).localeCompare(other.name ?? other.id, undefined, { numeric: true });
}
