// Places of a program as addresses and lengths, the wrong ones too.

import type { Word } from "../../src/abi/structs.ts";
import { AREAS, type Area } from "./arena.ts";
import type { Place } from "./steps.ts";

export interface Span {
  readonly area: Area;
  readonly page: number;
  readonly count: number;
  readonly start: Word;
  readonly length: Word;
  readonly text: string;
}

export function areaOf(index: number): Area {
  return AREAS[index % AREAS.length] ?? (AREAS[0] as Area);
}

export function span(place: Place): Span {
  const area = areaOf(place.area);
  const page = place.page % area.pages;
  const count = Math.min(place.count, area.pages - page);
  const start = area.start + page * area.pageBytes;
  const length = count * area.pageBytes;
  const plain = `${area.index}:[${page},${page + count})`;
  const with_ = (changed: { start?: Word; length?: Word }) => ({
    area,
    page,
    count,
    start,
    length,
    text: place.edge === "none" ? plain : `${plain}/${place.edge}`,
    ...changed,
  });
  switch (place.edge) {
    case "none":
      return with_({});
    case "start+1":
      return with_({ start: start + 1 });
    case "length+1":
      return with_({ length: length + 1 });
    case "length 0":
      return with_({ length: 0 });
    case "kernel":
      return with_({ start: 0xffff_8000_0000_0000n });
    case "wrap":
      return with_({ length: 0xffff_ffff_ffff_f000n });
    default:
      return place.edge satisfies never;
  }
}

/** The address of a byte of a page. */
export function byteAt(area: Area, page: number, offset: number): number {
  return area.start + (page % area.pages) * area.pageBytes + offset;
}
