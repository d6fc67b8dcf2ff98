// Half-open ranges of bytes, and the arithmetic of pages.

/** Bytes from `start` up to, not including, `until`. */
export interface Range {
  readonly start: number;
  readonly until: number;
}

export function roundDown(value: number, unit: number): number {
  return value - (value % unit);
}

export function roundUp(value: number, unit: number): number {
  return roundDown(value + unit - 1, unit);
}

export function overlaps(a: Range, b: Range): boolean {
  return a.start < b.until && b.start < a.until;
}
